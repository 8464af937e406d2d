"""Faults on the machines of service and collector: full disks, clock steps, certificates that end, paused relays."""

import itertools
import os
import random
import subprocess
from pathlib import Path

import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from trustme import CA

from telemetry.audit.verify import read_copy
from tests.support.archive import archived
from tests.support.certificates import issue, replace, write
from tests.support.collector import TLS, Collector
from tests.support.deployment import Deployment, RelayProcess
from tests.support.oracle import (
    await_backend,
    bodies_of,
    committed,
    require_conserved,
    require_receipts,
    require_whole_jobs,
)
from tests.support.otlp_client import post
from tests.support.otlp_messages import log_records_of
from tests.support.otlp_sink import OtlpSink
from tests.support.poll_until import poll_until
from tests.support.telemetry_maker import audit_request, record_ids_of
from tests.support.volumes import fill, small_volume

FAKETIME = Path("/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1")
TOKEN = "token-of-the-test"
SEED = 20261126
DROPPED = "otelcol_exporter_send_failed_log_records"


def test_a_full_disk_under_the_service_refuses_and_breaks_nothing(tmp_path: Path) -> None:
    """While the database cannot grow, writes are answered with 503; with room again they go on, and nothing is torn."""
    with (
        small_volume(tmp_path / "service", 16 << 20),
        Deployment(tmp_path, service_settings={"AUDITRACE_MIN_FREE": "0KiB"}) as deployment,
    ):
        with deployment.load() as load:
            load.wait_for(20)
            ballast = fill(tmp_path / "service")
            refused = 0

            def is_refused() -> bool:
                nonlocal refused
                answer = deployment.service.client().http.post(
                    "/v1/jobs", json={"template": "greet", "parameters": {"name": "x" * 1000}}
                )
                refused += answer.status_code == 503
                return refused >= 3

            poll_until(is_refused, "writes to be refused")
            ballast.unlink()
            load.wait_for(20)
        deployment.settle()
        require_receipts(deployment, load.receipts)
        require_whole_jobs(deployment)
        require_conserved(deployment, tmp_path)


def test_a_full_archive_volume_holds_the_outbox(tmp_path: Path) -> None:
    """While the collector cannot write its archive, records wait in the database; then all arrive."""
    archive = tmp_path / "collector" / "archive"
    with small_volume(archive, 1 << 20), Deployment(tmp_path) as deployment:
        with deployment.load() as load:
            full = {"exporter": "file/audit_archive"}
            poll_until(lambda: deployment.collector.own_metric(DROPPED, **full) > 0, "the volume to be full", 120)
            load.wait_for(20)
            assert deployment.undelivered() > 0
            subprocess.run(["mount", "-o", "remount,size=256m", str(archive)], check=True)
        deployment.settle()
        require_receipts(deployment, load.receipts)
        expected = {record_id: {body} for record_id, body in committed(deployment).items()}
        await_backend(deployment, expected)
        # The line that was cut short when the disk was full is in the archive for good; readers step over it.
        found = {body for one in read_copy([archive]) if (body := one.body) is not None}
        assert found == {body for bodies in expected.values() for body in bodies}
        report = deployment.service.verify(archive)
        assert report.verdict == "intact"
        assert {finding.code for finding in report.findings} <= {"torn_line"}


def test_the_control_a_queue_without_a_limit_loses_on_a_full_volume(tmp_path: Path) -> None:
    """What is acknowledged and cannot be taken off the queue for want of room is lost to the store; the archive has it.

    The shipped rule keeps the queue's limit below a quarter of its volume, so that it refuses before.
    """
    queue, draws, numbers = tmp_path / "collector" / "queue", random.Random(SEED), itertools.count(1)
    with (
        small_volume(queue, 8 << 20),
        OtlpSink() as store,
        Collector(tmp_path / "collector", {"AUDIT_LOGS_ENDPOINT": store.http_endpoint}) as collector,
    ):
        acknowledged: set[str] = set()
        missing: set[str] = set()

        def send() -> set[str]:
            request = ExportLogsServiceRequest()
            for _ in range(draws.randrange(1, 4)):
                request.MergeFrom(audit_request(next(numbers)))
            is_taken = post(collector.audit_endpoint, request).status == 200
            return set(record_ids_of(log_records_of([request]))) if is_taken else set()

        def is_some_lost() -> bool:
            nonlocal missing
            ballast = fill(queue)
            for _ in range(10):
                acknowledged.update(send())
            ballast.unlink()
            behind = send()
            poll_until(lambda: behind <= set(record_ids_of(store.log_records())), "what was sent behind them")
            # Twice, for what another consumer of the queue may have had in its hands.
            before, missing = missing, acknowledged - set(record_ids_of(store.log_records()))
            return bool(before & missing)

        acknowledged.update(send())
        poll_until(is_some_lost, "a record that could not be taken off the queue", 120)
        assert acknowledged <= bodies_of(archived(collector.archive_dir)).keys()


def _detail(deployment: Deployment) -> str:
    """Return what the relay said last; it writes into the service's log."""
    return deployment.service.log.read_text(errors="replace")


@pytest.fixture
def faked_clock(tmp_path: Path) -> Path:
    """A file that holds by how much the service's clock is off."""
    if not FAKETIME.exists():
        reason = "NO FAKETIME: steps of the clock are not tested on the whole service; install the package faketime"
        if os.environ.get("CI"):  # noqa: TID251 - of the test run
            pytest.fail(reason)
        pytest.skip(reason)
    clock = tmp_path / "clock"
    clock.write_text("+0")
    return clock


@pytest.mark.parametrize("step", ["+3600", "-3600"])
def test_a_step_of_the_clock_costs_nothing(tmp_path: Path, faked_clock: Path, step: str) -> None:
    """After an hour either way all goes on; `verify` reports late records at most, after two checkpoints nothing."""
    environment = {
        "LD_PRELOAD": str(FAKETIME),
        "FAKETIME_TIMESTAMP_FILE": str(faked_clock),
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        "DONT_FAKE_MONOTONIC": "1",
    }
    with Deployment(tmp_path, service_settings=environment) as deployment:
        with deployment.load(2) as load:
            load.wait_for(20)
            faked_clock.write_text(step)
            before = _checkpoints(deployment)
            load.wait_for(20)
            report = deployment.service.verify(deployment.collector.archive_dir)
            assert {finding.code for finding in report.findings} <= {"record_unanchored"}
            poll_until(lambda: _checkpoints(deployment) >= before + 3, "two checkpoints behind the step")
            load.wait_for(1)
        deployment.settle()
        require_receipts(deployment, load.receipts)
        require_conserved(deployment, tmp_path)


def _checkpoints(deployment: Deployment) -> int:
    ((number,),) = deployment.service.rows("SELECT coalesce(max(number), 0) FROM audit_checkpoints")
    return int(number)


def test_rotated_archives_hold_every_record(tmp_path: Path) -> None:
    """The collector's archive is rotated in the middle of load: together the files hold everything, and verify."""
    overlay = tmp_path / "small-files.yaml"
    overlay.write_text("exporters: {file/audit_archive: {rotation: {max_megabytes: 1}}}\n")
    with Deployment(tmp_path, overlays=[overlay]) as deployment:
        with deployment.load() as load:
            poll_until(lambda: len(list(deployment.collector.archive_dir.glob("*.jsonl"))) >= 2, "a rotated file", 120)
            load.wait_for(10)
        deployment.settle()
        require_conserved(deployment, tmp_path)


def test_a_certificate_that_ended_holds_records_until_it_is_renewed(tmp_path: Path) -> None:
    """An expired certificate, then a renewed one and a rotated token: no process is started again, nothing is lost."""
    servers, clients = CA(), CA()
    certificate, key = write(issue(servers, is_expired=True), tmp_path, "collector")
    shown, shown_key = write(issue(clients), tmp_path, "relay")
    replace(tmp_path / "servers-ca.crt", servers.cert_pem.bytes())
    replace(tmp_path / "clients-ca.crt", clients.cert_pem.bytes())
    replace(tmp_path / "token", f"{TOKEN}\n".encode())
    collector_settings = {
        "AUDIT_TLS_CERT_FILE": str(certificate),
        "AUDIT_TLS_KEY_FILE": str(key),
        "AUDIT_TLS_CLIENT_CA_FILE": str(tmp_path / "clients-ca.crt"),
        "AUDIT_TLS_RELOAD_INTERVAL": "100ms",
        "AUDIT_INGEST_TOKEN_FILE": str(tmp_path / "token"),
        "AUDIT_UNAUTHENTICATED_DIR": str(tmp_path / "unauthenticated"),
    }
    service_settings = {
        "AUDITRACE_AUDIT_TOKEN_FILE": str(tmp_path / "token"),
        "OTEL_EXPORTER_OTLP_LOGS_CERTIFICATE": str(tmp_path / "servers-ca.crt"),
        "OTEL_EXPORTER_OTLP_LOGS_CLIENT_CERTIFICATE": str(shown),
        "OTEL_EXPORTER_OTLP_LOGS_CLIENT_KEY": str(shown_key),
    }
    deployment = Deployment(
        tmp_path, overlays=[TLS], collector_settings=collector_settings, service_settings=service_settings
    )
    endpoint = deployment.collector.audit_endpoint.replace("http:", "https:")
    deployment.service.environment["AUDITRACE_AUDIT_ENDPOINT"] = endpoint
    with deployment:
        with deployment.load() as load:
            load.wait_for(10)
            poll_until(lambda: "certificate" in _detail(deployment), "the relay to name the certificate")
            assert not archived(deployment.collector.archive_dir)
            write(issue(servers), tmp_path, "collector")
            poll_until(lambda: bool(archived(deployment.collector.archive_dir)), "records behind the renewal")
            replace(tmp_path / "token", b"another-token\n")
            load.wait_for(20)
        deployment.settle()
        require_receipts(deployment, load.receipts)
        require_conserved(deployment, tmp_path)


def test_two_relays_that_fight_for_a_stream_deliver_it_once_and_whole(tmp_path: Path) -> None:
    """A paused relay loses its lease to another; when it wakes up it moves nothing back and sends at most copies."""
    with Deployment(tmp_path) as deployment:
        other = RelayProcess(deployment.service)
        with deployment.load(2) as load:
            poll_until(lambda: bool(deployment.backend.log_records()), "the first relay to deliver")
            deployment.relay.pause()
            delivered = deployment.delivered()
            load.wait_for(5)
            assert deployment.delivered() == delivered
            other.start()
            poll_until(lambda: deployment.delivered() > delivered, "the other relay to take over")
            deployment.relay.resume()
            load.wait_for(20)
        deployment.settle()
        assert other.stop() == 0
        require_receipts(deployment, load.receipts)
        require_conserved(deployment, tmp_path)

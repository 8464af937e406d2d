"""Moving to another sink: `auditrace relay --replay-all` as operators run it, against a real server and collector."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.support.collector import ROOT, Collector
from tests.support.deliveries import FakeSink, commit, committed, drain, got, relay_over
from tests.support.otlp_sink import Answer, OtlpSink, Request
from tests.support.poll_until import poll_until
from tests.support.processes import Process, start_process
from tests.support.service import Service
from tests.support.sqlite_stores import SqliteStore
from tests.support.stores import secret_file

COMMAND = [sys.executable, "-m", "service", "relay", "--replay-all"]


@pytest.fixture
def ledger(store: SqliteStore) -> SqliteStore:
    """Enough records for several requests, delivered to a sink that is left."""
    lane = store.lane()
    # This registers the signing key, as every start of a service does.
    store.checkpoints(lane)
    commit(store, lane, 1999)
    drain(relay_over(store, FakeSink()))
    return store


def _environment(ledger: SqliteStore, server: OtlpSink) -> Mapping[str, str]:
    return {
        "PATH": os.environ["PATH"],  # noqa: TID251 - of the test run
        "AUDITRACE_DATABASE": ledger.database,
        "AUDITRACE_LEDGER_SECRET": str(secret_file(ledger.folder)),
        "AUDITRACE_AUDIT_ENDPOINT": f"{server.http_endpoint}/v1/logs",
    }


def _recorded(ledger: SqliteStore) -> list[dict[str, Any]]:
    rows = ledger.rows("SELECT body FROM audit_records WHERE event_name = 'audit.redeliver' ORDER BY position")
    return [json.loads(body)["attributes"]["auditrace.changes"] for (body,) in rows]


def _start(environment: Mapping[str, str], *arguments: str) -> Process:
    command = [*COMMAND, *arguments]
    return start_process(command, env=environment, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_one_that_is_killed_goes_on_where_it_was(ledger: SqliteStore) -> None:
    """SIGKILL at a request: the next run says how many were sent before, sends the rest, and tells where they went."""
    server, delivered = OtlpSink(lambda request: Answer(hang=request.number == 4)), committed(ledger)
    with server:
        environment = _environment(ledger, server)
        killed = _start(environment)
        poll_until(lambda: server.request_count == 4, "the fourth request")
        killed.kill()
        killed.communicate()
        before = len(got(server))
        assert 0 < before < 2000
        process = _start(environment)
        printed, said = process.communicate(timeout=120)
    assert process.returncode == 0, said
    # Before anything was sent; the last batch that the killed process sent is sent again.
    to_sink = {"selection": {"to": "all"}, "sink": {"to": f"{server.http_endpoint}/v1/logs"}}
    assert _recorded(ledger) == [
        {**to_sink, "records": {"to": 2000}},
        {**to_sink, "records": {"to": 2000 - 512}, "earlier": {"to": 512}},
    ]
    assert "delivered records were sent again" in printed
    assert f"from the ledger {ledger.path} to {server.http_endpoint}/v1/logs" in printed
    assert "by an earlier run" in printed
    assert "2000 of 2000 delivered records were sent again" in said
    assert sorted(set(got(server))) == delivered
    assert len(got(server)) < 2000 + 512 + 1


def test_a_stop_is_told_with_how_to_go_on(ledger: SqliteStore) -> None:
    """SIGTERM ends it after the request under way, with exit status 1; the next run ends the work."""
    processes: list[Process] = []

    def script(request: Request) -> Answer:
        if request.number == 3:
            processes[0].terminate()
        return Answer()

    server, delivered = OtlpSink(script), committed(ledger)
    with server:
        environment = _environment(ledger, server)
        processes.append(_start(environment, "--json"))
        printed, said = processes[0].communicate(timeout=120)
        document = json.loads(printed)
        assert processes[0].returncode == 1
        assert document["reason"] == "a stop was asked for"
        # Undelivered is the record of this act, with the first and the last one of its stream.
        assert (document["total"], document["undelivered"], document["parked"]) == (2000, 3, 0)
        assert "goes on where this one stopped" in said
        again = _start(environment, "--json")
        assert json.loads(again.communicate(timeout=120)[0])["earlier"] == document["accepted"]
    assert again.returncode == 0
    assert sorted(set(got(server))) == delivered


def test_a_sink_that_is_away_is_named(ledger: SqliteStore) -> None:
    """Exit status 1 after the grace, with the reason, and nothing that is secret."""
    environment = {
        "PATH": os.environ["PATH"],  # noqa: TID251 - of the test run
        "AUDITRACE_DATABASE": ledger.database,
        "AUDITRACE_LEDGER_SECRET": str(secret_file(ledger.folder)),
        "AUDITRACE_AUDIT_ENDPOINT": "http://127.0.0.1:1/v1/logs?key=s3cret",
        "OTEL_EXPORTER_OTLP_HEADERS": "x-key=s3cret",
        "AUDITRACE_SHUTDOWN_GRACE": "1s",
    }
    process = _start(environment)
    printed, said = process.communicate(timeout=120)
    assert process.returncode == 1
    assert "0 of 2000 delivered records were sent again" in printed
    assert "stopped before the end" in said
    assert "refused" in said
    assert "s3cret" not in printed + said + str(ledger.rows("SELECT body FROM audit_records"))


def test_from_start_needs_a_replay(ledger: SqliteStore) -> None:
    """A mistake is exit status 2 with one line."""
    done = subprocess.run(
        [sys.executable, "-m", "service", "relay", "--from-start"],
        env={"PATH": os.environ["PATH"], "AUDITRACE_DATABASE": ledger.database},  # noqa: TID251 - of the test run
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (2, "auditrace: --from-start belongs to --replay-all\n")


def test_moving_to_a_collector_ends_with_an_archive_that_verifies(tmp_path: Path) -> None:
    """The README in its order: the tour with the embedded archive, then a collector, then the records of before."""
    service = Service(tmp_path / "service")
    with service:
        client = service.client()
        client.until(client.run("greet", name="before"), "succeeded")
    assert service.verify().verdict == "intact"
    with Collector(tmp_path / "collector") as collector:
        service.environment["AUDITRACE_AUDIT_ENDPOINT"] = collector.audit_endpoint
        with service:
            client = service.client()
            client.until(client.run("greet", name="after"), "succeeded")
            poll_until(
                lambda: (
                    not service.rows("""SELECT 1 FROM delivery_cursors JOIN audit_streams USING (stream_id)
                WHERE delivery_cursors.number < audit_streams.number""")
                ),
                "the new records to be delivered",
            )
            assert service.verify(collector.archive_dir).verdict == "broken"
            done = service.command("relay", "--replay-all")
            assert f"to {collector.audit_endpoint}" in done.stdout
            assert service.verify(collector.archive_dir).verdict == "intact"
        report = service.verify(collector.archive_dir)
        ((count,),) = service.rows("SELECT count(*) FROM audit_records")
        assert (report.verdict, report.records, report.findings) == ("intact", count, ())

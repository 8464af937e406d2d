"""An answer of the audit receiver means that the records are in the archive, and on their way to the store for good."""

import itertools
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from telemetry.names import AUDIT_RECORD_ID
from tests.support.archive import archived
from tests.support.collector import Collector
from tests.support.ids import record_ids
from tests.support.otlp_client import export, post
from tests.support.otlp_messages import log_records_of
from tests.support.otlp_sink import OtlpSink
from tests.support.poll_until import poll_until
from tests.support.telemetry_maker import app_request, audit_request, record_ids_of


@pytest.fixture(scope="module")
def store() -> Iterator[OtlpSink]:
    """The log backend behind the audit pipeline."""
    with OtlpSink() as sink:
        yield sink


@pytest.fixture(scope="module")
def collector(tmp_path_factory: pytest.TempPathFactory, store: OtlpSink) -> Iterator[Collector]:
    """The shipped configuration, with the store reachable."""
    with Collector(tmp_path_factory.mktemp("collector"), {"AUDIT_LOGS_ENDPOINT": store.http_endpoint}) as running:
        yield running


def test_an_acknowledged_record_of_every_event_is_unaltered_in_archive_and_store(
    collector: Collector, store: OtlpSink
) -> None:
    """Body, ids, times, severity, resource and the type of every attribute arrive as they were sent, in both copies."""
    request = audit_request(1)
    sent = log_records_of([request])
    ids = set(record_ids_of(sent))
    assert post(collector.audit_endpoint, request).status == 200
    in_archive = [each for each in archived(collector.archive_dir) if set(record_ids_of([each])) <= ids]
    assert in_archive == sent
    poll_until(lambda: ids <= set(record_ids_of(store.log_records())), "the records in the store")
    assert [each for each in store.log_records() if set(record_ids_of([each])) <= ids] == sent


def test_the_answer_comes_after_the_line_is_in_the_archive(collector: Collector) -> None:
    """Whoever has the answer finds the record in the archive file at once, small as it is: no buffer holds it."""
    for record_id in itertools.islice(record_ids(2), 20):
        request = app_request("small", attributes={AUDIT_RECORD_ID: record_id})
        assert post(collector.audit_endpoint, request).status == 200
        assert record_id in (collector.archive_dir / "audit.jsonl").read_text("utf-8")


def test_the_grpc_port_takes_audit_records_as_the_http_port_does(collector: Collector, store: OtlpSink) -> None:
    """A record that came over gRPC is in archive and store, unaltered."""
    request = audit_request(30)
    sent = log_records_of([request])
    ids = set(record_ids_of(sent))
    assert export(collector.audit_grpc_endpoint, request) is grpc.StatusCode.OK
    assert [each for each in archived(collector.archive_dir) if set(record_ids_of([each])) <= ids] == sent
    poll_until(lambda: ids <= set(record_ids_of(store.log_records())), "the records in the store")


def test_records_acknowledged_while_the_store_is_away_reach_it_after_a_kill_and_a_start(tmp_path: Path) -> None:
    """The queue is on disk when the answer is given: SIGKILL right after it and a new process lose nothing."""
    with OtlpSink() as store:
        collector = Collector(tmp_path, {"AUDIT_LOGS_ENDPOINT": store.http_endpoint})
        store.stop()
        with collector:
            requests = [audit_request(prefix) for prefix in range(40, 45)]
            assert [post(collector.audit_endpoint, request).status for request in requests] == [200] * 5
            collector.kill()
            store.start()
            collector.start()
            acknowledged = set(record_ids_of(log_records_of(requests)))
            poll_until(lambda: acknowledged <= set(record_ids_of(store.log_records())), "all records in the store")
            assert set(record_ids_of(archived(collector.archive_dir))) == acknowledged


def test_a_restart_appends_to_the_archive(tmp_path: Path) -> None:
    """What an earlier process wrote is still there after SIGTERM and a start, followed by what came since."""
    before, after = audit_request(50), audit_request(51)
    with OtlpSink() as store, Collector(tmp_path, {"AUDIT_LOGS_ENDPOINT": store.http_endpoint}) as collector:
        assert post(collector.audit_endpoint, before).status == 200
        collector.restart()
        assert post(collector.audit_endpoint, after).status == 200
        assert archived(collector.archive_dir) == log_records_of([before, after])

"""Processes that are all told to stop at the same time: what they committed has arrived when the last one has ended."""

import signal
from pathlib import Path

import pytest

from tests.support.both_stores import BOTH, Store
from tests.support.deliveries import got
from tests.support.otlp_sink import OtlpSink
from tests.support.service import STOP_S, Service

PROCESSES = 3


@pytest.mark.stores(*BOTH)
def test_a_deployment_that_stops_leaves_nothing_in_the_outbox(running_store: Store, tmp_path: Path) -> None:
    """All processes end by themselves, and every record is in the sink, last closes and checkpoints included."""
    with OtlpSink() as sink:
        settings = {
            "AUDITRACE_DATABASE": running_store.database,
            "AUDITRACE_AUDIT_ENDPOINT": f"{sink.http_endpoint}/v1/logs",
        }
        services = [Service(tmp_path / "service", settings) for _ in range(PROCESSES)]
        for service in services:
            service.start()
        for service in services:
            service.client().run("greet", name="you")
        processes = [service.process for service in services if service.process is not None]
        for process in processes:
            process.send_signal(signal.SIGTERM)
        assert [process.wait(STOP_S) for process in processes] == [0] * PROCESSES
        delivered = {record.record_id for record in got(sink)}
    assert running_store.reads.outbox().depth == 0
    committed = {record_id for (record_id,) in running_store.rows("SELECT record_id FROM audit_records")}
    assert delivered == committed
    assert running_store.rows("SELECT count(*) FROM audit_streams WHERE closed = 0") == [(0,)]

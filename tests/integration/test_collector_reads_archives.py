"""The collector's own reader of archives, at its defaults, gets every record of an archive that a backlog made."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from service.operations.exports import ROWS_AT_ONCE, otlp_lines
from service.ports import RecordFilter, Transition
from telemetry import names
from telemetry.delivery import open_sink
from telemetry.delivery.answers import Sink
from telemetry.delivery.archive import ArchiveSink
from telemetry.delivery.settings import sink_settings
from tests.support.collector import Collector, require_collector
from tests.support.deliveries import drain, relay_over, wall_clock
from tests.support.otlp_sink import OtlpSink
from tests.support.poll_until import poll_until
from tests.support.processes import start_process
from tests.support.sqlite_stores import SqliteStore

READER = """
receivers:
  otlp_json_file:
    include: [{folder}/*.jsonl]
    start_at: beginning
exporters:
  otlp_http:
    endpoint: {endpoint}
    sending_queue: {{enabled: false}}
service:
  telemetry: {{metrics: {{level: none}}}}
  pipelines:
    logs: {{receivers: [otlp_json_file], exporters: [otlp_http]}}
"""

TEXTS = ("plain " * 20, '"\\' * 60, "\x00\x01\b\f\x1f\x7f" * 20, "\n\r\t" * 40, "<>&'\u2028\u2029é\U0001f600" * 12)


@pytest.fixture
def backlog(store: SqliteStore) -> SqliteStore:
    """A ledger with some megabytes of undelivered records, in whose texts is all that JSON may write longer."""
    lane, futures = store.lane(), []
    for turn in range(3000):
        more = {names.AUDITRACE_REASON: TEXTS[turn % len(TEXTS)], names.AUDITRACE_TRUNCATED: [TEXTS[turn % 5][:9]] * 9}
        record = store.record(more=more)
        futures.append(lane.submit(lambda transaction, record=record: transaction.save(Transition(record=record))))
    for future in futures:
        future.result()
    return store


@pytest.fixture(params=["embedded", "export", "http", "grpc"])
def archive(request: pytest.FixtureRequest, backlog: SqliteStore, tmp_path: Path) -> Iterator[Path]:
    """The folder of an archive to which the backlog was delivered at once: embedded, or the shipped collector's.

    Or of an export, which has the same form.
    """
    folder = tmp_path / "archive"
    if request.param == "embedded":
        drain(relay_over(backlog, ArchiveSink(folder / "audit.jsonl", wall_clock)))
        yield folder
        return
    if request.param == "export":
        folder.mkdir()
        (folder / "export.jsonl").write_bytes(_exported(backlog))
        yield folder
        return
    with Collector(tmp_path / "collector") as collector:
        endpoint = collector.audit_endpoint if request.param == "http" else f"grpc://{collector.audit_grpc_endpoint}"
        drain(relay_over(backlog, _sink(endpoint)))
        yield collector.archive_dir


def test_every_record_of_a_backlog_arrives(backlog: SqliteStore, archive: Path, tmp_path: Path) -> None:
    """The reader leaves out lines of more than 1 MiB without a word, so that there must be none."""
    lines = [line for file in archive.glob("*.jsonl") for line in file.read_bytes().split(b"\n")]
    assert max(map(len, lines)) < 1 << 20
    # Otherwise nothing was shown: requests are about as large as they may be, and an export has smaller parts.
    assert max(map(len, lines)) > (1 << 17 if (archive / "export.jsonl").exists() else 1 << 19)
    with OtlpSink() as backend:
        reader = tmp_path / "reader.yaml"
        reader.write_text(READER.format(folder=archive, endpoint=backend.http_endpoint))
        with (tmp_path / "reader.log").open("wb") as log:
            process = start_process([require_collector(), f"--config={reader}"], stdout=log, stderr=log)
        try:
            poll_until(lambda: len(backend.log_records()) >= 3001, "every record to arrive")
        finally:
            process.terminate()
            process.wait()
        # Compared by their bodies, because the reader adds the attribute `log.file.name`.
        arrived = {each.record.body.string_value for each in backend.log_records()}
        assert arrived == {body for (body,) in backlog.rows("SELECT body FROM audit_records")}


def _exported(store: SqliteStore) -> bytes:
    exported, cursor = b"", None
    while True:
        page = store.reads.stored(RecordFilter(), cursor, ROWS_AT_ONCE)
        exported += otlp_lines(page.rows, not exported)
        cursor = page.next_cursor
        if cursor is None:
            return exported


def _sink(endpoint: str) -> Sink:
    settings = sink_settings({"OTEL_EXPORTER_OTLP_TIMEOUT": "30"}, endpoint)
    assert settings is not None
    return open_sink(settings, wall_clock)

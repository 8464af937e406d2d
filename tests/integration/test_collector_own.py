"""The collector says what it refused, dropped and holds: in its own metrics, and in every line of its own log."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from telemetry.names import AUDIT_RECORD_ID
from tests.support.collector import ROOT, Collector
from tests.support.otlp_client import post
from tests.support.otlp_messages import log_records_of
from tests.support.otlp_sink import Answer, OtlpSink
from tests.support.poll_until import poll_until
from tests.support.telemetry_maker import app_request, audit_request, span, trace_request

STORE = "otlp_http/audit_store"
QUEUE_BYTES = 300_000
REFUSED = 30
DOCUMENTS = [ROOT / "docs" / "collector.md", *(ROOT / "deploy").rglob("*alert*.y*ml")]


@pytest.fixture
def store() -> Iterator[OtlpSink]:
    """The backend behind the audit pipeline; it accepts until a test says otherwise."""
    with OtlpSink() as sink:
        yield sink


@pytest.fixture
def collector(tmp_path: Path, store: OtlpSink) -> Iterator[Collector]:
    """The shipped configuration with a queue that three requests fill; killed at the end, for the store may hang."""
    settings = {"AUDIT_LOGS_ENDPOINT": store.http_endpoint, "AUDIT_QUEUE_BYTES": str(QUEUE_BYTES)}
    running = Collector(tmp_path, settings)
    running.start()
    yield running
    running.kill()


def _send_small(collector: Collector, name: str) -> None:
    assert post(collector.audit_endpoint, app_request(name, attributes={AUDIT_RECORD_ID: name})).status == 200


def _dropped(collector: Collector) -> float:
    return collector.own_metric("otelcol_exporter_send_failed_log_records", exporter=STORE, error_permanent="true")


def _fill(collector: Collector, store: OtlpSink) -> int:
    """Fills the queue behind a store that hangs, up to the first refusal; returns how many requests were taken."""
    store.answer = Answer(hang=True)
    for taken in range(20):
        status = post(collector.audit_endpoint, audit_request(taken + 1)).status
        if status != 200:
            assert status == 503
            return taken
    raise AssertionError("twenty requests did not fill the queue")


def _logged(collector: Collector, text: str) -> int:
    lines = [json.loads(line) for line in collector.log_path.read_text("utf-8").splitlines()]
    return sum(text in line["msg"] for line in lines)


def test_every_drop_is_counted_and_logged_none_sampled_away(collector: Collector, store: OtlpSink) -> None:
    """Thirty records that the store refuses for good are thirty in the counter and thirty lines, within seconds."""
    store.answer = Answer(400)
    for number in range(REFUSED):
        _send_small(collector, f"refused-{number}")
    poll_until(lambda: _dropped(collector) == REFUSED, "the count of what was dropped")
    poll_until(lambda: _logged(collector, "Exporting failed. Dropping data.") == REFUSED, "a line for each drop")


def test_partial_success_is_a_warning_and_counts_as_sent(collector: Collector, store: OtlpSink) -> None:
    """What the store rejects with 200 shows in the log alone: the counter of what was sent moves all the same."""
    store.answer = Answer(rejected=1)
    _send_small(collector, "rejected")
    poll_until(lambda: collector.own_metric("otelcol_exporter_sent_log_records", exporter=STORE) == 1, "the count")
    assert _logged(collector, "Partial success response") == 1
    assert _dropped(collector) == 0


def test_a_full_queue_refuses_and_both_sides_are_counted(collector: Collector, store: OtlpSink) -> None:
    """With the store away the queue fills up to its limit, then the sender gets 503; counters and gauge say so."""
    taken = _fill(collector, store)
    each = len(log_records_of([audit_request()]))
    assert taken > 0
    assert collector.own_metric("otelcol_receiver_accepted_log_records", receiver="otlp/audit") == taken * each
    assert collector.own_metric("otelcol_receiver_refused_log_records", receiver="otlp/audit") == each
    assert collector.own_metric("otelcol_exporter_enqueue_failed_log_records", exporter=STORE) == each
    assert collector.own_metric("otelcol_exporter_queue_capacity", exporter=STORE) == QUEUE_BYTES
    assert 0 < collector.own_metric("otelcol_exporter_queue_size", exporter=STORE) <= QUEUE_BYTES


def test_every_metric_that_the_documents_name_exists(collector: Collector, store: OtlpSink) -> None:
    """Whoever copies a metric's name from the documents or the alert rules finds it in a scrape."""
    named = {name for path in DOCUMENTS for name in re.findall(r"otelcol_[a-z_]+", path.read_text("utf-8"))}
    assert len(named) >= 8
    store.answer = Answer(400)
    _send_small(collector, "refused")
    poll_until(lambda: _dropped(collector) == 1, "a drop")
    _fill(collector, store)
    assert post(collector.traces_endpoint, trace_request(span("any"))).status == 200
    assert post(collector.logs_endpoint, app_request("ordinary")).status == 200
    # The sampler's counters come with its first decisions.
    poll_until(lambda: "otelcol_processor_tail_sampling_global_count_traces_sampled" in collector.own_metrics(), "one")
    assert sorted(named - collector.own_metrics()) == []


def test_two_collectors_run_side_by_side(tmp_path: Path) -> None:
    """Each address that is listened on is a setting."""
    with Collector(tmp_path / "one") as one, Collector(tmp_path / "two") as two:
        assert one.own_metric("otelcol_process_uptime") > 0
        assert two.own_metric("otelcol_process_uptime") > 0

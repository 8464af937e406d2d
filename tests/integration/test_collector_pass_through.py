"""With deploy/otelcol/pass-through.yaml the answer is the store's, and nothing rests in the collector."""

from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from telemetry.names import AUDIT_RECORD_ID
from tests.support.archive import archived
from tests.support.collector import PASS_THROUGH, Collector
from tests.support.otlp_client import export, post
from tests.support.otlp_messages import log_records_of
from tests.support.otlp_sink import Answer, OtlpSink
from tests.support.poll_until import poll_until
from tests.support.telemetry_maker import app_request, audit_request

SMALL = app_request("small", attributes={AUDIT_RECORD_ID: "019b76da-a800-7001-8000-000000000001"})


@pytest.fixture(scope="module")
def store() -> Iterator[OtlpSink]:
    """The backend behind the audit pipeline."""
    with OtlpSink() as sink:
        yield sink


@pytest.fixture(scope="module")
def collector(tmp_path_factory: pytest.TempPathFactory, store: OtlpSink) -> Iterator[Collector]:
    """The shipped configuration with the overlay, and little patience with the store."""
    settings = {"AUDIT_LOGS_ENDPOINT": store.http_endpoint, "AUDIT_STORE_TIMEOUT": "300ms"}
    with Collector(tmp_path_factory.mktemp("collector"), settings, [PASS_THROUGH]) as running:
        yield running


def test_the_answer_comes_after_the_store_has_the_records(collector: Collector, store: OtlpSink) -> None:
    """Whoever has the answer finds the records in the store at once, every time, over HTTP and gRPC."""
    store.answer = Answer()
    for prefix in range(1, 5):
        over_http, over_grpc = audit_request(2 * prefix), audit_request(2 * prefix + 1)
        assert post(collector.audit_endpoint, over_http).status == 200
        assert export(collector.audit_grpc_endpoint, over_grpc) is grpc.StatusCode.OK
        sent = log_records_of([over_http, over_grpc])
        assert store.log_records()[-len(sent) :] == sent
        assert archived(collector.archive_dir)[-len(sent) :] == sent


@pytest.mark.parametrize(
    ("status", "passed_on"), [(400, 400), (401, 401), (403, 403), (413, 500), (429, 429), (500, 500), (503, 503)]
)
def test_the_stores_refusal_is_the_senders_answer(
    collector: Collector, store: OtlpSink, status: int, passed_on: int
) -> None:
    """What the store says reaches the sender, who holds the records; the collector does not ask twice."""
    store.answer = Answer(status)
    before = store.request_count
    assert post(collector.audit_endpoint, SMALL).status == passed_on
    assert store.request_count == before + 1


@pytest.mark.parametrize("answer", [Answer(hang=True), Answer(reset=True)], ids=["hangs", "resets"])
def test_a_store_that_does_not_answer_is_an_outage_to_the_sender(
    collector: Collector, store: OtlpSink, answer: Answer
) -> None:
    """A store that hangs or cuts the connection is a 503: the sender tries again."""
    store.answer = answer
    assert post(collector.audit_endpoint, SMALL).status == 503
    assert export(collector.audit_grpc_endpoint, SMALL) is grpc.StatusCode.UNAVAILABLE


def test_nothing_is_queued_and_a_refused_record_is_in_the_archive_each_time(tmp_path: Path) -> None:
    """After refusals and an outage the queue folder is empty, and the archive holds a line for every attempt."""
    with (
        OtlpSink(lambda _: Answer(503)) as store,
        Collector(tmp_path, {"AUDIT_LOGS_ENDPOINT": store.http_endpoint}, [PASS_THROUGH]) as collector,
    ):
        assert [post(collector.audit_endpoint, SMALL).status for _ in range(3)] == [503] * 3
        assert archived(collector.archive_dir) == log_records_of([SMALL] * 3)
        assert list(collector.queue_dir.iterdir()) == []


def test_partial_success_of_the_store_is_not_passed_on(collector: Collector, store: OtlpSink) -> None:
    """The limit of this mode: what the store rejects within a 200 looks accepted to the sender; only the log tells."""
    store.answer = Answer(rejected=1)
    reply = post(collector.audit_endpoint, SMALL)
    assert (reply.status, b"rejected" in reply.body) == (200, False)
    poll_until(lambda: "Partial success response" in collector.log_path.read_text("utf-8"), "the warning")

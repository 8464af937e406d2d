"""Audit records that come to the ports for ordinary telemetry join the audit pipeline, and nothing else does."""

from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest

from telemetry.names import AUDIT_ACTION, AUDIT_ACTOR_ID
from tests.support.archive import archived
from tests.support.collector import Collector
from tests.support.otlp_client import export, post
from tests.support.otlp_messages import log_records_of
from tests.support.otlp_sink import Answer, OtlpSink
from tests.support.poll_until import poll_until
from tests.support.telemetry_maker import app_request, audit_request, one_scope, record_ids_of, texts_of

Send = Callable[[Collector, ExportLogsServiceRequest], bool]


@pytest.fixture(scope="module")
def store() -> Iterator[OtlpSink]:
    """The log backend behind the audit pipeline."""
    with OtlpSink() as sink:
        yield sink


@pytest.fixture(scope="module")
def app_logs() -> Iterator[OtlpSink]:
    """The log backend for ordinary logs."""
    with OtlpSink() as sink:
        yield sink


@pytest.fixture(scope="module")
def collector(tmp_path_factory: pytest.TempPathFactory, store: OtlpSink, app_logs: OtlpSink) -> Iterator[Collector]:
    """The shipped configuration, with both log backends."""
    settings = {"AUDIT_LOGS_ENDPOINT": store.http_endpoint, "LOGS_ENDPOINT": app_logs.http_endpoint}
    with Collector(tmp_path_factory.mktemp("collector"), settings) as running:
        yield running


def _over_http(collector: Collector, request: ExportLogsServiceRequest) -> bool:
    return post(collector.logs_endpoint, request).status == 200


def _over_grpc(collector: Collector, request: ExportLogsServiceRequest) -> bool:
    return export(collector.grpc_endpoint, request) is grpc.StatusCode.OK


def test_ordinary_logs_reach_their_backend_and_not_the_audit_pipeline(
    collector: Collector, store: OtlpSink, app_logs: OtlpSink
) -> None:
    """A log without a record id stays ordinary, whatever other audit attributes it carries."""
    look_alike = app_request("look-alike", attributes={AUDIT_ACTION: "CREATE", AUDIT_ACTOR_ID: "mallory"})
    for request in (app_request("plain", "plain too"), look_alike):
        assert _over_http(collector, request)
    wanted = ["plain", "plain too", "look-alike"]
    poll_until(lambda: set(wanted) <= set(texts_of(app_logs.log_records())), "the ordinary logs")
    both = archived(collector.archive_dir) + store.log_records()
    assert set(wanted).isdisjoint(texts_of(both))


@pytest.mark.parametrize("send", [_over_http, _over_grpc], ids=["http", "grpc"])
def test_audit_records_on_the_wrong_port_reach_the_audit_pipeline_and_not_the_app_logs(
    collector: Collector, store: OtlpSink, app_logs: OtlpSink, send: Send
) -> None:
    """A record sent to 4317 or 4318 is in the archive when it is acknowledged, unaltered, and in the store."""
    request = audit_request(1 if send is _over_http else 2)
    sent = log_records_of([request])
    ids = set(record_ids_of(sent))
    assert send(collector, request)
    assert [each for each in archived(collector.archive_dir) if set(record_ids_of([each])) & ids] == sent
    poll_until(lambda: ids <= set(record_ids_of(store.log_records())), "the records in the store")
    # What was sent later through the same pipeline has arrived, so what was sent before it would have.
    assert send(collector, app_request(f"after {send.__name__}"))
    poll_until(lambda: f"after {send.__name__}" in texts_of(app_logs.log_records()), "a later ordinary log")
    assert record_ids_of(app_logs.log_records()) == []


@pytest.mark.parametrize("send", [_over_http, _over_grpc], ids=["http", "grpc"])
def test_a_mixed_request_is_split_without_loss(
    collector: Collector, store: OtlpSink, app_logs: OtlpSink, send: Send
) -> None:
    """Records of both kinds that take turns within one scope each arrive once, on their own side and unaltered."""
    audit = audit_request(3 if send is _over_http else 4)
    texts = [f"mixed {send.__name__} {number}" for number in range(30)]
    request = one_scope(audit, app_request(*texts))
    ids = record_ids_of(log_records_of([audit]))
    assert send(collector, request)
    poll_until(lambda: set(texts) <= set(texts_of(app_logs.log_records())), "the ordinary logs")
    poll_until(lambda: set(ids) <= set(record_ids_of(store.log_records())), "the records in the store")
    for copy in (archived(collector.archive_dir), store.log_records()):
        here = [each.record for each in copy if set(record_ids_of([each])) <= set(ids)]
        assert here == [each.record for each in log_records_of([audit])]
    assert [text for text in texts_of(app_logs.log_records()) if text in texts] == texts
    assert record_ids_of(app_logs.log_records()) == []


def test_misdirected_records_are_counted(tmp_path: Path) -> None:
    """The collector's own metrics say how many audit records came to the wrong port, so that the sender is found."""
    with Collector(tmp_path) as collector:
        mixed = one_scope(audit_request(), app_request("beside"))
        assert _over_http(collector, mixed)
        counted = collector.own_metric("otelcol_processor_filter_logs_filtered", filter="filter/audit")
        assert counted == len(log_records_of([audit_request()]))


def test_a_misdirected_record_that_cannot_be_kept_is_refused(tmp_path: Path) -> None:
    """With the audit queue full the ordinary port answers 503 too, and the ordinary half still arrives."""
    # A queue too small for any request stands for a full one.
    with OtlpSink(lambda _: Answer(503)) as store, OtlpSink() as app_logs:
        settings = {"AUDIT_LOGS_ENDPOINT": store.http_endpoint, "LOGS_ENDPOINT": app_logs.http_endpoint}
        with Collector(tmp_path, {**settings, "AUDIT_QUEUE_BYTES": "100"}) as collector:
            mixed = one_scope(audit_request(), app_request("beside"))
            assert post(collector.logs_endpoint, mixed).status == 503
            poll_until(lambda: "beside" in texts_of(app_logs.log_records()), "the ordinary half")

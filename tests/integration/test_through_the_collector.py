"""The service and the real collector with the shipped configuration: what an SRE finds at the far end."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from telemetry import names
from tests.support.archive import archived
from tests.support.collector import Collector
from tests.support.otlp_messages import plain_attributes
from tests.support.otlp_sink import OtlpSink
from tests.support.poll_until import poll_until
from tests.support.service import Service


class Deployment(NamedTuple):
    """A service whose audit records and traces go to a collector, and what stands behind that."""

    service: Service
    collector: Collector
    backend: OtlpSink


@pytest.fixture(scope="module")
def deployment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    """Everything running; the collector samples none of the traces that no audit record points to."""
    folder = tmp_path_factory.mktemp("deployment")
    with OtlpSink() as backend:
        settings = {
            "AUDIT_LOGS_ENDPOINT": backend.http_endpoint,
            "TRACES_ENDPOINT": backend.grpc_endpoint,
            "TRACE_SAMPLING_PERCENTAGE": "0",
        }
        with Collector(folder / "collector", settings) as collector:
            environment = {
                "AUDITRACE_AUDIT_ENDPOINT": collector.audit_endpoint,
                "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": collector.traces_endpoint,
                "OTEL_BSP_SCHEDULE_DELAY": "100",
            }
            with Service(folder / "service", environment) as service:
                yield Deployment(service, collector, backend)


def test_a_job_s_whole_story_is_in_the_collector_s_archive_and_verifies(deployment: Deployment) -> None:
    """Every record that the API shows of a job stands in the collector's archive with the same trace and span ids."""
    client = deployment.service.client()
    job_id = client.run("fail")
    client.until(job_id, "failed")
    trail = client.trail(job_id)
    ids = {record["record_id"] for record in trail}
    poll_until(
        lambda: all(client.get(f"/v1/audit/records/{each}")["delivery"] == "delivered" for each in ids), "the delivery"
    )
    found = {
        (
            attributes[names.AUDIT_RECORD_ID],
            each.record.trace_id.hex(),
            each.record.span_id.hex(),
            each.record.event_name,
        )
        for each in archived(deployment.collector.archive_dir)
        if (attributes := plain_attributes(each.record.attributes))[names.AUDIT_RECORD_ID] in ids
    }
    assert found == {
        (record["record_id"], record["trace_id"], record["span_id"], record["event_name"]) for record in trail
    }
    report = deployment.service.verify(deployment.collector.archive_dir)
    assert (report.verdict, report.findings) == ("intact", ())


def test_every_audited_trace_is_kept_and_no_other(deployment: Deployment) -> None:
    """At a baseline of 0 %, each record's span arrives and names the record; a read of jobs leaves no trace behind."""
    client = deployment.service.client()
    plain = client.http.get("/v1/jobs").headers["traceresponse"].split("-")[1]
    job_id = client.run("greet", name="you")
    client.until(job_id, "succeeded")
    for record in client.trail(job_id):

        def is_there(record: dict[str, str] = record) -> bool:
            spans = deployment.backend.trace(record["trace_id"])
            named = {
                span.span.span_id.hex(): plain_attributes(span.span.attributes).get(names.AUDIT_RECORD_ID)
                for span in spans
            }
            return record["record_id"] in (named.get(record["span_id"]) or [])

        poll_until(is_there, f"the span of {record['event_name']}")
    assert deployment.backend.trace(plain) == []


def test_the_trace_of_a_run_is_complete(deployment: Deployment) -> None:
    """Server span, producer and consumer form one tree: the run's parent is the producer, and linked to it."""
    client = deployment.service.client()
    job_id = client.run("greet", name="you")
    run = client.until(job_id, "succeeded")["runs"][0]
    trace_id = run["trace_id"]
    poll_until(lambda: len(deployment.backend.trace(trace_id)) == 3, "the whole trace")
    spans = {span.span.name: span.span for span in deployment.backend.trace(trace_id)}
    server, producer, consumer = (spans[name] for name in ("POST /v1/jobs/{job_id}/run", "job enqueue", "job run"))
    assert producer.parent_span_id == server.span_id
    assert consumer.parent_span_id == producer.span_id
    assert [link.span_id for link in consumer.links] == [producer.span_id]
    assert plain_attributes(server.attributes)[names.HTTP_ROUTE] == "/v1/jobs/{job_id}/run"
    assert consumer.span_id.hex() == run["span_id"]


def test_a_sampler_that_drops_spans_shows_in_the_record(tmp_path: Path) -> None:
    """A record whose span was not sampled says so: its ids still correlate, its flags promise no trace."""
    with Service(tmp_path, {"OTEL_TRACES_SAMPLER": "always_off"}) as service:
        client = service.client()
        job_id = client.create("greet", name="you")["id"]
        (record,) = client.trail(job_id)
    assert '"trace_flags":0' in record["body"]
    assert record["trace_id"] != "0" * 32

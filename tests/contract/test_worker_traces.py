"""How the trace of a job goes on from the request into runs, retries, reclaims and the command itself."""

from collections.abc import Mapping, Sequence

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import SpanKind, StatusCode

from service.jobs.model import Status
from telemetry import names
from telemetry.tracing import JOB_ENQUEUE, JOB_RECLAIM, JOB_RUN
from tests.support.both_stores import BOTH
from tests.support.jobs import Jobs, Record
from tests.support.poll_until import poll_until

pytestmark = pytest.mark.stores(*BOTH)

SpanId = tuple[str, str]


def _id(span: ReadableSpan) -> SpanId:
    context = span.get_span_context()
    assert context is not None
    return f"{context.trace_id:032x}", f"{context.span_id:016x}"


def _parent(span: ReadableSpan) -> SpanId | None:
    return None if span.parent is None else (f"{span.parent.trace_id:032x}", f"{span.parent.span_id:016x}")


def _links(span: ReadableSpan) -> list[SpanId]:
    return [(f"{link.context.trace_id:032x}", f"{link.context.span_id:016x}") for link in span.links]


def _spans(jobs: Jobs, name: str, count: int) -> list[ReadableSpan]:
    """Return the spans of this name in the order of their start, once there are `count`."""

    def found() -> list[ReadableSpan]:
        return [span for span in jobs.spans.get_finished_spans() if span.name == name]

    poll_until(lambda: len(found()) >= count, f"{count} spans {name!r}")
    assert len(found()) == count
    return sorted(found(), key=lambda span: span.start_time or 0)


def _told(jobs: Jobs, job_id: str, run: int) -> Mapping[str, str]:
    """Return the trace context that the command of a run was given."""
    lines = jobs.artifacts(job_id, run)["stdout"].decode().splitlines()
    return dict(line.split("=", 1) for line in lines)


def _assert_both_ways(jobs: Jobs, records: Sequence[Record]) -> None:
    """Each record names the span in which it was made, and that span names the record."""
    spans = {_id(span): span.attributes or {} for span in jobs.spans.get_finished_spans()}
    for record in records:
        attributes = spans[record.span]
        assert attributes[names.AUDIT_RECORDED] is True
        recorded = attributes[names.AUDIT_RECORD_ID]
        assert isinstance(recorded, Sequence)
        assert record.record_id in recorded
    named = [record_id for attributes in spans.values() for record_id in _names(attributes)]
    assert len(named) == len(set(named))
    assert set(named) >= {record.record_id for record in records}


def _names(attributes: Mapping[str, object]) -> Sequence[str]:
    recorded = attributes.get(names.AUDIT_RECORD_ID, ())
    assert isinstance(recorded, Sequence)
    return [str(record_id) for record_id in recorded]


def test_a_run_continues_the_request(jobs: Jobs) -> None:
    """Request, enqueue, run and command are one trace; the producer is parent and link of the run."""
    jobs.worker()
    job = jobs.queued("env | grep ^TRACE")
    jobs.until(job.job_id, Status.SUCCEEDED)
    (request,) = _spans(jobs, "request run", 1)
    (enqueue,) = _spans(jobs, JOB_ENQUEUE, 1)
    (run,) = _spans(jobs, JOB_RUN, 1)
    assert _parent(enqueue) == _id(request)
    assert (_parent(run), _links(run)) == (_id(enqueue), [_id(enqueue)])
    assert (enqueue.kind, run.kind) == (SpanKind.PRODUCER, SpanKind.CONSUMER)
    assert run.status.status_code is not StatusCode.ERROR
    trace_id, span_id = _id(run)
    told = _told(jobs, job.job_id, 1)
    assert told == {"TRACEPARENT": jobs.runs(job.job_id)[0].traceparent}
    assert told["TRACEPARENT"].split("-")[1:3] == [trace_id, span_id]
    assert int(told["TRACEPARENT"][-2:], 16) & 1
    trigger, claim, end = jobs.records(job.job_id)[2:]
    assert trigger.span == _id(enqueue)
    assert claim.span == end.span == _id(run)
    assert _names(run.attributes or {}) == [claim.record_id, end.record_id]
    assert all(record.body["trace_flags"] & 1 for record in (trigger, claim, end))
    _assert_both_ways(jobs, jobs.records(job.job_id))


def test_another_attempt_links_to_the_one_before(jobs: Jobs) -> None:
    """A new attempt stays in the trace: its producer span hangs below the run that failed, and both link to that."""
    jobs.worker()
    job = jobs.queued("env | grep ^TRACE; test $AUDITRACE_RUN = 2")
    jobs.until(job.job_id, Status.SUCCEEDED)
    _, second_enqueue = _spans(jobs, JOB_ENQUEUE, 2)
    first, second = _spans(jobs, JOB_RUN, 2)
    assert (_parent(second_enqueue), _links(second_enqueue)) == (_id(first), [_id(first)])
    assert (_parent(second), _links(second)) == (_id(second_enqueue), [_id(second_enqueue), _id(first)])
    assert _id(first)[0] == _id(second)[0]
    assert first.status.status_code is StatusCode.ERROR
    assert (first.attributes or {})[names.ERROR_TYPE] == "exit"
    assert _told(jobs, job.job_id, 2)["TRACEPARENT"].split("-")[1:3] == list(_id(second))
    claim, end = jobs.records(job.job_id)[-2:]
    assert claim.span == end.span == _id(second)
    _assert_both_ways(jobs, jobs.records(job.job_id))


def test_a_retry_is_the_trace_of_who_asked_for_it(jobs: Jobs) -> None:
    """A client's retry begins in the client's own trace and links to the last run of the earlier one."""
    jobs.worker()
    job = jobs.queued("test $AUDITRACE_RUN = 2", "picky")
    jobs.until(job.job_id, Status.FAILED)
    jobs.client("berta").retry(job.job_id)
    jobs.until(job.job_id, Status.SUCCEEDED)
    (request,) = _spans(jobs, "request retry", 1)
    _, enqueue = _spans(jobs, JOB_ENQUEUE, 2)
    first, second = _spans(jobs, JOB_RUN, 2)
    assert (_parent(enqueue), _links(enqueue)) == (_id(request), [_id(first)])
    assert (_parent(second), _links(second)) == (_id(enqueue), [_id(enqueue), _id(first)])
    assert _id(first)[0] != _id(second)[0] == _id(request)[0]
    retry = next(record for record in jobs.records(job.job_id) if record.event_name == names.EVENT_JOB_RETRY)
    assert retry.span == _id(enqueue)
    for record in jobs.records(job.job_id)[-2:]:
        assert record.attributes[names.AUDITRACE_INITIATOR_RECORD_ID] == retry.record_id
        assert record.attributes[names.AUDITRACE_INITIATOR_ID] == "berta"
    _assert_both_ways(jobs, jobs.records(job.job_id))


def test_a_reclaim_links_to_the_run_that_was_lost(jobs: Jobs) -> None:
    """The reclaim is a trace of its own that links to the lost run; the next run starts from it and links there too."""
    job = jobs.queued("true")
    lost = jobs.operations("lost", lease_s=0).claim()
    assert lost is not None
    jobs.worker()
    jobs.until(job.job_id, Status.SUCCEEDED)
    (reclaim,) = _spans(jobs, JOB_RECLAIM, 1)
    _, enqueue = _spans(jobs, JOB_ENQUEUE, 2)
    (run,) = _spans(jobs, JOB_RUN, 1)
    lost_span = (lost.span.ref.trace_id, lost.span.ref.span_id)
    assert (_parent(reclaim), _links(reclaim)) == (None, [lost_span])
    assert (_parent(enqueue), _links(enqueue)) == (_id(reclaim), [lost_span])
    assert (_parent(run), _links(run)) == (_id(enqueue), [_id(enqueue), lost_span])
    assert _id(run)[0] == _id(reclaim)[0] != lost_span[0]
    _, _, trigger, claim, unknown, *others = jobs.records(job.job_id)
    assert claim.span == lost_span
    assert unknown.span == _id(reclaim)
    # The span of a lost run was lost with it, but for its id.
    _assert_both_ways(jobs, [trigger, unknown, *others])


def test_a_run_that_is_handed_back_goes_on_in_its_trace(jobs: Jobs) -> None:
    """What another worker takes over from one that stopped links to the run that was handed back."""
    worker = jobs.worker()
    job = jobs.queued("test $AUDITRACE_RUN = 2 || exec sleep 300")
    jobs.until(job.job_id, Status.RUNNING)
    worker.stop(0)
    jobs.worker()
    jobs.until(job.job_id, Status.SUCCEEDED)
    first, second = _spans(jobs, JOB_RUN, 2)
    assert _links(second)[1] == _id(first)
    assert _id(second)[0] == _id(first)[0]
    assert (first.attributes or {})[names.ERROR_TYPE] == "worker_shutdown"
    _assert_both_ways(jobs, jobs.records(job.job_id))


def test_a_refusal_is_found_from_its_span(jobs: Jobs) -> None:
    """Requests that changed nothing point at their records; producer spans that nobody needed do not appear."""
    job = jobs.client().create("guarded", {}).value
    with pytest.raises(Exception, match="requires a confirmation"):
        jobs.client().run(jobs.client().draft(job.job_id).value.job_id)
    jobs.client().draft(job.job_id)
    _assert_both_ways(jobs, jobs.records(job.job_id))
    assert _spans(jobs, JOB_ENQUEUE, 0) == []
    assert _spans(jobs, JOB_RECLAIM, 0) == []


def test_the_clients_trace_reaches_the_command(jobs: Jobs) -> None:
    """A request that comes with a trace context is continued, tracestate included, through the queue to the command."""
    jobs.worker()
    trace_id, span_id = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
    client = jobs.client("anna", traceparent=f"00-{trace_id}-{span_id}-01", tracestate="vendor=1,other=2")
    job = client.create("shell", {"script": "env | grep ^TRACE; test $AUDITRACE_RUN = 2"}).value
    client.draft(job.job_id)
    client.run(job.job_id)
    jobs.until(job.job_id, Status.SUCCEEDED)
    (request,) = _spans(jobs, "request run", 1)
    assert _parent(request) == (trace_id, span_id)
    for number, run in enumerate(_spans(jobs, JOB_RUN, 2), start=1):
        told = _told(jobs, job.job_id, number)
        assert told["TRACEPARENT"].split("-")[1:3] == [trace_id, _id(run)[1]]
        assert told["TRACESTATE"] == "vendor=1,other=2"
    assert {record.body["trace_id"] for record in jobs.records(job.job_id)} == {trace_id}
    assert jobs.job(job.job_id).trace_id == trace_id

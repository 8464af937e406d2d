"""What is measured carries the names, units and attributes of the registry, and a broken reading harms no other."""

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import Histogram, HistogramDataPoint, InMemoryMetricReader, Metric

from telemetry import names
from telemetry.instruments import OUTCOMES, Instruments

EACH = (
    names.METRIC_AUDITRACE_AUDIT_OUTBOX_PARKED,
    names.METRIC_AUDITRACE_AUDIT_CHECKPOINT_NUMBER,
    names.METRIC_AUDITRACE_AUDIT_CHECKPOINT_AGE,
    names.METRIC_AUDITRACE_AUDIT_CHECKPOINT_REFUSED,
    names.METRIC_AUDITRACE_AUDIT_VERIFICATION_FINDINGS,
    names.METRIC_AUDITRACE_AUDIT_VERIFICATION_AGE,
    names.METRIC_AUDITRACE_KEYS_UNCOVERED,
    names.METRIC_AUDITRACE_LEDGER_DISK_FREE,
    names.METRIC_AUDITRACE_JOB_RUN_REFUSED,
)
"""The gauges that are read one by one."""


class Measured:
    """Instruments on a reader of the test's own."""

    def __init__(self) -> None:
        self._reader = InMemoryMetricReader()
        provider = MeterProvider([self._reader], shutdown_on_exit=False)
        self.instruments = Instruments(provider.get_meter("test"))

    def metrics(self) -> dict[str, Metric]:
        """Collect once and return the metrics by name."""
        data = self._reader.get_metrics_data()
        assert data is not None
        return {
            metric.name: metric
            for group in data.resource_metrics
            for scope in group.scope_metrics
            for metric in scope.metrics
        }

    def points(self, name: str) -> dict[frozenset[tuple[str, object]], object]:
        """Return the values of one metric by their attributes; of histograms, their points."""
        metric = self.metrics()[name]
        return {
            frozenset((point.attributes or {}).items()): point if isinstance(point, HistogramDataPoint) else point.value
            for point in metric.data.data_points
        }


@pytest.fixture
def measured() -> Measured:
    """Fresh instruments."""
    return Measured()


def test_every_metric_of_the_registry_is_there(measured: Measured) -> None:
    """After one of everything, exactly the metrics of the registry are exported, with their unit and description."""
    made = measured.instruments
    made.observe(lambda: (1, 2.0), lambda: {"queued": 1})
    made.observe_each(dict.fromkeys(EACH, lambda: 1.0))
    made.observe_webhooks(["siem"], lambda: {"siem": (1, 2.0)})
    made.request_refused("source_requests")
    made.connection_ended("connections")
    made.delivery_ended(0.1, None)
    made.run_ended(0.1, "greet", None)
    made.request_ended(0.1, method="GET", scheme="http", route="/", status=200, error_type=None)
    exported = {name: (metric.unit, metric.description) for name, metric in measured.metrics().items()}
    assert exported == dict(names.METRICS)


def test_a_gauge_that_has_nothing_to_say_is_left_out(measured: Measured) -> None:
    """None is no value, and not the value of before either; the others are there."""
    values: dict[str, float | None] = dict.fromkeys(EACH, 3.0)
    measured.instruments.observe_each({name: lambda name=name: values[name] for name in EACH})
    assert all(measured.points(name) == {frozenset(): 3.0} for name in EACH)
    values[names.METRIC_AUDITRACE_AUDIT_VERIFICATION_AGE] = None
    assert names.METRIC_AUDITRACE_AUDIT_VERIFICATION_AGE not in measured.metrics()
    assert measured.points(names.METRIC_AUDITRACE_AUDIT_CHECKPOINT_AGE) == {frozenset(): 3.0}


def test_each_endpoint_of_webhooks_is_measured_apart(measured: Measured) -> None:
    """Its attempts are counted by their errors from 0 on, and its backlog is read at each collection."""
    backlog = {"siem": (3, 4.0), "chat": (0, 0.0)}
    measured.instruments.observe_webhooks(backlog, lambda: backlog)
    measured.instruments.webhook_delivery_ended("siem", None)
    measured.instruments.webhook_delivery_ended("siem", "503")
    siem, chat = ((names.AUDITRACE_WEBHOOK_NAME, name) for name in backlog)
    assert measured.points(names.METRIC_AUDITRACE_WEBHOOK_DELIVERIES) == {
        frozenset({siem}): 1,
        frozenset({siem, (names.ERROR_TYPE, "503")}): 1,
        frozenset({chat}): 0,
    }
    assert measured.points(names.METRIC_AUDITRACE_WEBHOOK_LAG) == {frozenset({siem}): 3, frozenset({chat}): 0}
    assert measured.points(names.METRIC_AUDITRACE_WEBHOOK_AGE) == {frozenset({siem}): 4.0, frozenset({chat}): 0.0}


def test_counters_are_there_before_they_count(measured: Measured) -> None:
    """Each counter is exported as 0 from the start, so that its first increase is seen as one."""
    committed = measured.points(names.METRIC_AUDITRACE_AUDIT_RECORDS_COMMITTED)
    assert committed == {frozenset({(names.AUDIT_OUTCOME, outcome)}): 0 for outcome in OUTCOMES}
    assert measured.points(names.METRIC_AUDITRACE_AUDIT_RECORDS_DELIVERED) == {frozenset(): 0}
    assert measured.points(names.METRIC_AUDITRACE_AUDIT_RECORDS_PARKED) == {frozenset(): 0}


def test_records_are_counted(measured: Measured) -> None:
    """Committed records count by outcome, delivered ones by the batch, parked ones one by one."""
    made = measured.instruments
    for outcome in ("success", "success", "failure"):
        made.record_committed(outcome)
    made.records_delivered(7)
    made.record_parked()
    committed = measured.points(names.METRIC_AUDITRACE_AUDIT_RECORDS_COMMITTED)
    assert committed[frozenset({(names.AUDIT_OUTCOME, "success")})] == 2
    assert committed[frozenset({(names.AUDIT_OUTCOME, "failure")})] == 1
    assert measured.points(names.METRIC_AUDITRACE_AUDIT_RECORDS_DELIVERED) == {frozenset(): 7}
    assert measured.points(names.METRIC_AUDITRACE_AUDIT_RECORDS_PARKED) == {frozenset(): 1}


def test_one_duration_for_success_and_failure(measured: Measured) -> None:
    """Failures stand in the same histogram, told apart by error.type alone."""
    made = measured.instruments
    made.delivery_ended(0.2, None)
    made.delivery_ended(0.3, "unavailable")
    made.run_ended(12.0, "greet", None)
    made.run_ended(13.0, "greet", "timeout")
    deliveries = measured.points(names.METRIC_AUDITRACE_AUDIT_DELIVERY_DURATION)
    assert set(deliveries) == {frozenset(), frozenset({(names.ERROR_TYPE, "unavailable")})}
    template = (names.AUDITRACE_JOB_TEMPLATE, "greet")
    runs = measured.points(names.METRIC_AUDITRACE_JOB_RUN_DURATION)
    assert set(runs) == {frozenset({template}), frozenset({template, (names.ERROR_TYPE, "timeout")})}


def test_requests_are_told_apart_by_route(measured: Measured) -> None:
    """A request's duration carries method, scheme, route and status; what is not known is left out."""
    made = measured.instruments
    made.request_ended(0.1, method="GET", scheme="http", route="/v1/jobs/{job_id}", status=200, error_type=None)
    made.request_ended(0.1, method="_OTHER", scheme="https", route=None, status=None, error_type="OSError")
    assert set(measured.points(names.METRIC_HTTP_SERVER_REQUEST_DURATION)) == {
        frozenset(
            {
                (names.HTTP_REQUEST_METHOD, "GET"),
                (names.URL_SCHEME, "http"),
                (names.HTTP_ROUTE, "/v1/jobs/{job_id}"),
                (names.HTTP_RESPONSE_STATUS_CODE, 200),
            }
        ),
        frozenset(
            {
                (names.HTTP_REQUEST_METHOD, "_OTHER"),
                (names.URL_SCHEME, "https"),
                (names.ERROR_TYPE, "OSError"),
            }
        ),
    }


@pytest.mark.parametrize(
    ("metric", "short_s", "long_s"),
    [
        (names.METRIC_AUDITRACE_AUDIT_DELIVERY_DURATION, 0.002, 20.0),
        (names.METRIC_AUDITRACE_JOB_RUN_DURATION, 0.2, 3000.0),
        (names.METRIC_HTTP_SERVER_REQUEST_DURATION, 0.007, 8.0),
    ],
)
def test_buckets_tell_usual_durations_apart(measured: Measured, metric: str, short_s: float, long_s: float) -> None:
    """Neither the short nor the long end of what is usual falls into the first or the last bucket."""
    made = measured.instruments
    for duration in (short_s, long_s):
        made.delivery_ended(duration, None)
        made.run_ended(duration, "greet", None)
        made.request_ended(duration, method="GET", scheme="http", route=None, status=200, error_type=None)
    data = measured.metrics()[metric].data
    assert isinstance(data, Histogram)
    counts = data.data_points[0].bucket_counts
    assert sum(counts) == 2
    assert counts[0] == counts[-1] == 0


def test_gauges_read_when_they_are_collected(measured: Measured) -> None:
    """Outbox and jobs are asked at each collection, and say what is true then."""
    outbox = [(5, 2.5)]
    jobs = [{"queued": 1, "running": 2}]
    measured.instruments.observe(lambda: outbox[0], lambda: jobs[0])
    assert measured.points(names.METRIC_AUDITRACE_AUDIT_OUTBOX_DEPTH) == {frozenset(): 5}
    outbox[0], jobs[0] = (0, 0.0), {"running": 3}
    assert measured.points(names.METRIC_AUDITRACE_AUDIT_OUTBOX_DEPTH) == {frozenset(): 0}
    assert measured.points(names.METRIC_AUDITRACE_AUDIT_OUTBOX_AGE) == {frozenset(): 0.0}
    assert measured.points(names.METRIC_AUDITRACE_JOBS) == {frozenset({(names.AUDITRACE_JOB_STATUS, "running")}): 3}


def test_a_reading_that_fails_leaves_out_only_itself(measured: Measured, caplog: pytest.LogCaptureFixture) -> None:
    """A database that cannot be read costs its own gauges, which is logged; all others are collected."""

    def broken() -> tuple[int, float]:
        raise OSError("disk I/O error")

    measured.instruments.observe(broken, lambda: {"queued": 1})
    measured.instruments.record_committed("success")
    collected = measured.metrics()
    assert names.METRIC_AUDITRACE_AUDIT_OUTBOX_DEPTH not in collected
    assert names.METRIC_AUDITRACE_JOBS in collected
    assert names.METRIC_AUDITRACE_AUDIT_RECORDS_COMMITTED in collected
    assert any(names.METRIC_AUDITRACE_AUDIT_OUTBOX_DEPTH in record.getMessage() for record in caplog.records)

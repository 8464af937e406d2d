"""The instruments, with the names and units of the registry; recording never blocks and never fails."""

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Final

from opentelemetry.metrics import CallbackOptions, Counter, Histogram, Meter, Observation
from opentelemetry.util.types import AttributeValue

from telemetry import names

OUTCOMES: Final = sorted(names.ATTRIBUTE_VALUES[names.AUDIT_OUTCOME])

# Source: HTTP semantic conventions, http.server.request.duration.
REQUEST_BUCKETS_S: Final = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
DELIVERY_BUCKETS_S: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
RUN_BUCKETS_S: Final = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3600.0, 14400.0)


class Instruments:
    """The instruments of one process, on one meter. Any thread may use them."""

    def __init__(self, meter: Meter) -> None:
        self._meter = meter
        self._is_observing = True
        self._committed = self._counter(names.METRIC_AUDITRACE_AUDIT_RECORDS_COMMITTED)
        self._delivered = self._counter(names.METRIC_AUDITRACE_AUDIT_RECORDS_DELIVERED)
        self._parked = self._counter(names.METRIC_AUDITRACE_AUDIT_RECORDS_PARKED)
        self._delivery = self._histogram(names.METRIC_AUDITRACE_AUDIT_DELIVERY_DURATION, DELIVERY_BUCKETS_S)
        self._run = self._histogram(names.METRIC_AUDITRACE_JOB_RUN_DURATION, RUN_BUCKETS_S)
        self._webhook_deliveries = self._counter(names.METRIC_AUDITRACE_WEBHOOK_DELIVERIES)
        self._refused = self._counter(names.METRIC_AUDITRACE_REQUESTS_REFUSED)
        self._connections_ended = self._counter(names.METRIC_AUDITRACE_CONNECTIONS_ENDED)
        self._request = self._histogram(names.METRIC_HTTP_SERVER_REQUEST_DURATION, REQUEST_BUCKETS_S)
        # A counter without a count is not exported, so an alert on its increase would miss the first count.
        for outcome in OUTCOMES:
            self._committed.add(0, {names.AUDIT_OUTCOME: outcome})
        self._delivered.add(0)
        self._parked.add(0)

    def record_committed(self, outcome: str) -> None:
        """Count a record that was committed to the ledger."""
        self._committed.add(1, {names.AUDIT_OUTCOME: outcome})

    def records_delivered(self, count: int) -> None:
        """Count records that the sink acknowledged in full."""
        self._delivered.add(count)

    def record_parked(self) -> None:
        """Count a record that was parked because the sink refuses it even alone."""
        self._parked.add(1)

    def limit_requests(self, limits: Iterable[str]) -> None:
        """Let the counters of the requests over these limits begin at 0. Call this where requests are taken."""
        for limit in limits:
            self._refused.add(0, {names.AUDITRACE_LIMIT: limit})

    def request_refused(self, limit: str) -> None:
        """Count a request that was refused because it was over a limit."""
        self._refused.add(1, {names.AUDITRACE_LIMIT: limit})

    def delivery_ended(self, duration_s: float, error_type: str | None) -> None:
        """Record one delivery attempt; `error_type` is None when the sink acknowledged the whole request."""
        self._delivery.record(duration_s, _known({names.ERROR_TYPE: error_type}))

    def webhook_delivery_ended(self, endpoint: str, error_type: str | None) -> None:
        """Count one attempt to deliver a record to an endpoint; `error_type` is None when it was acknowledged."""
        self._webhook_deliveries.add(1, _known({names.AUDITRACE_WEBHOOK_NAME: endpoint, names.ERROR_TYPE: error_type}))

    def connection_ended(self, reason: str) -> None:
        """Count a connection of a client that a limit refused or ended; `reason` names the limit."""
        self._connections_ended.add(1, {names.ERROR_TYPE: reason})

    def run_ended(self, duration_s: float, template: str, error_type: str | None) -> None:
        """Record one run of a job; `error_type` is None when it succeeded."""
        attributes = {names.AUDITRACE_JOB_TEMPLATE: template, names.ERROR_TYPE: error_type}
        self._run.record(duration_s, _known(attributes))

    def request_ended(
        self,
        duration_s: float,
        *,
        method: str,
        scheme: str,
        route: str | None,
        status: int | None,
        error_type: str | None,
    ) -> None:
        """Record one HTTP request.

        Args:
            duration_s: from the arrival of the request to the end of the answer; of server-sent events, to its head.
            method: one of the known methods, or `_OTHER`.
            scheme: `http` or `https`.
            route: the path template; None when no route matched.
            status: the answer's status; None when there was no answer.
            error_type: the failure of the service; None when there was none, also for errors of the client.
        """
        attributes: dict[str, AttributeValue | None] = {
            names.HTTP_REQUEST_METHOD: method,
            names.URL_SCHEME: scheme,
            names.HTTP_ROUTE: route,
            names.HTTP_RESPONSE_STATUS_CODE: status,
            names.ERROR_TYPE: error_type,
        }
        self._request.record(duration_s, _known(attributes))

    def stop_observing(self) -> None:
        """Stop reading the gauges of `observe` and `observe_each`, because their sources are about to be closed."""
        self._is_observing = False

    def observe(self, outbox: Callable[[], tuple[int, float]], jobs: Callable[[], Mapping[str, int]]) -> None:
        """Read these at every collection of metrics. Call this once.

        When a reader fails, its gauge is left out of that collection, and the error is logged.

        Args:
            outbox: returns the number of records that are neither delivered nor parked, and the age of the oldest in
                seconds.
            jobs: returns the number of jobs, by status.
        """

        def by_status(_: CallbackOptions) -> Iterable[Observation]:
            return [Observation(count, {names.AUDITRACE_JOB_STATUS: status}) for status, count in jobs().items()]

        self._gauge(names.METRIC_AUDITRACE_JOBS, by_status)
        depth_and_age = (names.METRIC_AUDITRACE_AUDIT_OUTBOX_DEPTH, names.METRIC_AUDITRACE_AUDIT_OUTBOX_AGE)
        self.observe_each({depth_and_age[0]: lambda: outbox()[0], depth_and_age[1]: lambda: outbox()[1]})

    def observe_each(self, readings: Mapping[str, Callable[[], float | None]]) -> None:
        """Read these gauges, by their names, at every collection of metrics; a gauge that returns None is left out."""
        for name, read in readings.items():
            self._gauge(name, partial(_observed, read))

    def observe_webhooks(
        self, endpoints: Iterable[str], backlog: Callable[[], Mapping[str, tuple[int, float]]]
    ) -> None:
        """Read the backlog at every collection of metrics. Call this once, and only where webhooks are delivered.

        Args:
            endpoints: their names; the counter of their deliveries begins at 0.
            backlog: returns, by endpoint, the number of records behind its cursors, and the age of the oldest of them
                in seconds.
        """
        for endpoint in endpoints:
            self._webhook_deliveries.add(0, {names.AUDITRACE_WEBHOOK_NAME: endpoint})

        def each(index: int, _: CallbackOptions) -> Iterable[Observation]:
            found = backlog().items()
            return [Observation(values[index], {names.AUDITRACE_WEBHOOK_NAME: name}) for name, values in found]

        self._gauge(names.METRIC_AUDITRACE_WEBHOOK_LAG, partial(each, 0))
        self._gauge(names.METRIC_AUDITRACE_WEBHOOK_AGE, partial(each, 1))

    def _counter(self, name: str) -> Counter:
        unit, description = names.METRICS[name]
        return self._meter.create_counter(name, unit, description)

    def _histogram(self, name: str, buckets: tuple[float, ...]) -> Histogram:
        unit, description = names.METRICS[name]
        return self._meter.create_histogram(name, unit, description, explicit_bucket_boundaries_advisory=buckets)

    def _gauge(self, name: str, read: Callable[[CallbackOptions], Iterable[Observation]]) -> None:
        unit, description = names.METRICS[name]
        self._meter.create_observable_gauge(
            name, [lambda options: read(options) if self._is_observing else ()], unit, description
        )


def _observed(read: Callable[[], float | None], _: CallbackOptions) -> Iterable[Observation]:
    value = read()
    return () if value is None else (Observation(value),)


def _known(attributes: Mapping[str, AttributeValue | None]) -> dict[str, AttributeValue]:
    return {key: value for key, value in attributes.items() if value is not None}

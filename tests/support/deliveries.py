"""Relays for tests, and what arrived where they deliver."""

import random
import time
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from opentelemetry.metrics import NoOpMeterProvider
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord

from service.ports import Ledger, Outbox, Receipt
from service.relay import Relay, RelaySettings
from telemetry import names
from telemetry.delivery import open_sink
from telemetry.delivery.answers import Accepted, Answer, Sink
from telemetry.delivery.settings import sink_settings
from telemetry.instruments import Instruments
from tests.support.both_stores import Store
from tests.support.otlp_sink import Answer as Reply
from tests.support.otlp_sink import OtlpSink, Request

NO_INSTRUMENTS = Instruments(NoOpMeterProvider().get_meter("test"))


class Arrived(NamedTuple):
    """A record as a sink got it."""

    stream_id: str
    number: int
    record_id: str
    log_record: bytes


def arrived(records: Iterable[LogRecord]) -> list[Arrived]:
    """Return records of a sink by their place, in order of arrival."""
    return [_arrived(record) for record in records]


def in_request(request: ExportLogsServiceRequest) -> list[Arrived]:
    """Return the records of one request."""
    return arrived(
        record for resource in request.resource_logs for scope in resource.scope_logs for record in scope.log_records
    )


def _arrived(record: LogRecord) -> Arrived:
    index = {each.key: each.value for each in record.attributes}
    return Arrived(
        index[names.AUDIT_SEQUENCE_STREAM_ID].string_value,
        index[names.AUDIT_SEQUENCE_NUMBER].int_value,
        index[names.AUDIT_RECORD_ID].string_value,
        record.SerializeToString(),
    )


class FakeSink:
    """A sink in memory; `answer` decides what it says of each request, from the records in it."""

    address = "memory"

    def __init__(self, answer: Callable[[Sequence[Arrived]], Answer] = lambda _: Accepted()) -> None:
        self.answer = answer
        self.requests: list[list[Arrived]] = []
        self.kept: list[Arrived] = []

    def send(self, request: bytes) -> Answer:
        """Keep the records of a request that is accepted."""
        records = in_request(ExportLogsServiceRequest.FromString(request))
        self.requests.append(records)
        answer = self.answer(records)
        if isinstance(answer, Accepted):
            self.kept += records
        return answer

    def close(self) -> None:
        """Nothing is held open."""


def relay_over(
    store: Store,
    sink: Sink,
    outbox: Outbox | None = None,
    instruments: Instruments = NO_INSTRUMENTS,
    **settings: float,
) -> Relay:
    """Return a relay of a process of its own, that is not started."""
    return Relay(
        outbox or store.outbox(),
        sink,
        RelaySettings(**settings),
        instruments,
        clock=store.clock,
        monotonic=time.monotonic,
        random=random.Random(7).random,
    )


def commit(store: Store, lane: Ledger, count: int = 1) -> list[Receipt]:
    """Commit so many records in a lane's stream."""
    futures = [lane.submit(lambda transaction: transaction.save(store.fact())) for _ in range(count)]
    return [future.result() for future in futures]


def committed(store: Store) -> list[Arrived]:
    """Return every committed record, stream by stream."""
    rows = store.rows("SELECT stream_id, number, record_id, otlp FROM audit_records ORDER BY stream_id, number")
    return [Arrived(*row) for row in rows]


def wall_clock() -> int:
    """Return the real time in nanoseconds: the one by which a server dates its `Retry-After`."""
    return time.time_ns()  # noqa: TID251 - the server's clock is the real one


def sink_to(server: OtlpSink, protocol: str, **environment: str) -> Sink:
    """Open the server as a sink, with settings from the environment."""
    endpoint = f"grpc://{server.grpc_endpoint}" if protocol == "grpc" else f"{server.http_endpoint}/v1/logs"
    settings = sink_settings({"OTEL_EXPORTER_OTLP_TIMEOUT": "20", **environment}, endpoint)
    assert settings is not None
    return open_sink(settings, wall_clock)


def got(server: OtlpSink) -> list[Arrived]:
    """Return what the server kept."""
    return arrived(each.record for each in server.log_records())


def records_in(request: Request) -> list[Arrived]:
    """Return the records of a request."""
    assert isinstance(request.message, ExportLogsServiceRequest)
    return in_request(request.message)


def refusing(bad: Callable[[Arrived], bool], answer: Reply) -> Callable[[Request], Reply]:
    """Return a script that gives this answer to every request that holds a bad record, and takes the others."""
    return lambda request: answer if any(map(bad, records_in(request))) else Reply()


def drain(relay: Relay) -> None:
    """Deliver until nothing is left."""
    assert relay.drain(30)

"""Fills a database with records made by the real sealing code, fast enough for a million of them."""

import random
import time
import uuid
from collections.abc import Iterator, Sequence
from typing import Any, Final

import msgspec
from opentelemetry.sdk.resources import Resource

from service.store.postgres.connection import connect
from service.store.postgres.statements import executing
from service.store.writing import behind
from telemetry import names
from telemetry.audit.chain import Tip
from telemetry.audit.ledger import AuditLogger, SealedRecord
from telemetry.audit.record import Actor, AuditRecord, Result, SpanRef, Target, audit_record
from tests.support.stores import SECRET

LANES: Final = 4
_TWO_MONTHS_NS: Final = 59 * 24 * 3600 * 1_000_000_000
_EVENTS: Final = (names.EVENT_JOB_CREATE, names.EVENT_JOB_DRAFT, names.EVENT_JOB_CONFIRM, names.EVENT_JOB_RUN_TRIGGER)
_COLUMNS: Final = (
    "record_id, stream_id, number, hash, event_name, timestamp_ns, observed_ns, tenant_id, actor_id, action, outcome,"
    " result, target_type, target_id, job_id, request_id, trace_id, span_id, body, otlp, envelope_id"
)


class _Sealing:
    """Seals as a lane does, and keeps the rows to be copied in; implements `telemetry.audit.ledger.OpenLedger`."""

    def __init__(self, tip: Tip, envelope_id: int) -> None:
        self.tip = tip
        self.now_ns = 0
        self.rows: list[Sequence[Any]] = []
        self._envelope_id = envelope_id

    def observe_ns(self) -> int:
        return max(self.now_ns, self.tip.observed_ns + 1)

    def append(self, sealed: SealedRecord) -> None:
        said = sealed.attributes
        self.rows.append(
            (
                sealed.tip.record_id,
                sealed.tip.stream_id,
                sealed.tip.number,
                sealed.tip.hash,
                sealed.event_name,
                sealed.timestamp_ns,
                sealed.tip.observed_ns,
                said[names.AUDITRACE_TENANT_ID],
                said[names.AUDIT_ACTOR_ID],
                said[names.AUDIT_ACTION],
                said[names.AUDIT_OUTCOME],
                said[names.AUDITRACE_RESULT],
                said[names.AUDIT_TARGET_TYPE],
                said[names.AUDIT_TARGET_ID],
                said.get(names.AUDITRACE_JOB_ID),
                said.get(names.AUDITRACE_REQUEST_ID),
                sealed.span.trace_id,
                sealed.span.span_id,
                sealed.body.decode(),
                sealed.otlp,
                self._envelope_id,
            )
        )
        self.tip = sealed.tip


def fill(url: str, count: int, months: int = 12, seed: int = 1) -> None:
    """Add `count` records to new streams, spread evenly over the months that end now.

    A few tenants, a hundred actors, four records a job; one record in fifty is a failure. The records pass the
    database's own checks; they state no job version, so that no jobs need to be made for them.
    """
    draws = random.Random(seed)
    audit_log = AuditLogger(Resource({names.SERVICE_NAME: "auditrace", names.SERVICE_VERSION: "0.1.0"}), "0.1.0")
    now_ns = time.time_ns()  # noqa: TID251 - the end of what is filled in
    span_ns = months * 30 * 24 * 3600 * 1_000_000_000
    session = connect(url, statement_timeout="0", idle_timeout="0")
    each = count // LANES
    for lane in range(LANES):
        stream_id = str(uuid.UUID(int=draws.getrandbits(128), version=4))
        opened = {"owner": "fill", "session": "none", "opened_ns": now_ns - span_ns, "lease_ns": 0}
        session.execute(_OPEN, {"stream_id": stream_id, **opened})
        session.execute("INSERT INTO delivery_cursors (stream_id, number) VALUES (%s, 0)", [stream_id])
        sealing = _Sealing(Tip(stream_id), behind(executing(session), Tip(stream_id), audit_log).envelope_id)
        made = 0
        for batch in _batches(each):
            for _ in range(batch):
                at_ns = now_ns - span_ns + span_ns * (made * LANES + lane) // count
                sealing.now_ns = at_ns
                audit_log.emit(_record(draws, lane * each + made, at_ns), sealing)
                made += 1
            _make_partitions(session, sealing.rows)
            with session.cursor().copy(f"COPY audit_records ({_COLUMNS}) FROM STDIN".encode()) as copy:
                for row in sealing.rows:
                    copy.write_row(row)
            sealing.rows.clear()
        tip = sealing.tip
        mac = SECRET.tip_mac(tip.stream_id, tip.number, tip.hash)
        session.execute(_CLOSE, {**msgspec.structs.asdict(tip), "mac": mac})
    session.execute("ANALYZE")
    session.close()


_OPEN: Final = (
    "INSERT INTO audit_streams (stream_id, epoch, owner, session, opened_ns, number, hash, record_id, observed_ns, mac,"
    " alive_until_ns) VALUES (%(stream_id)s, 1, %(owner)s, %(session)s, %(opened_ns)s, 0, '', '', 0, '', %(lease_ns)s)"
)
_CLOSE: Final = (
    "UPDATE audit_streams SET number = %(number)s, hash = %(hash)s, record_id = %(record_id)s, mac = %(mac)s,"
    " observed_ns = %(observed_ns)s, closed = 1 WHERE stream_id = %(stream_id)s"
)


def _batches(count: int, size: int = 5_000) -> Iterator[int]:
    for at in range(0, count, size):
        yield min(size, count - at)


def _make_partitions(session: Any, rows: Sequence[Sequence[Any]]) -> None:
    for at_ns in range(rows[0][6], rows[-1][6] + _TWO_MONTHS_NS, _TWO_MONTHS_NS):
        session.execute("SELECT make_record_partitions(%s)", [at_ns])


def _record(draws: random.Random, number: int, at_ns: int) -> AuditRecord:
    job = number // 4
    result = Result.REJECTED if draws.random() < 0.02 else Result.SUCCESS
    return audit_record(
        record_id=str(uuid.UUID(int=(at_ns // 1_000_000 << 80) | (7 << 76) | (2 << 62) | draws.getrandbits(62))),
        event_name=_EVENTS[number % 4],
        timestamp_ns=at_ns,
        span=SpanRef(f"{job + 1:032x}", f"{number + 1:016x}", 1),
        actor=Actor(f"actor-{draws.randrange(100)}", "user", "key"),
        result=result,
        target=Target("job", f"job-{job}"),
        tenant_id=f"tenant-{draws.choice((0, 0, 0, 0, 1, 2))}",
        source="api",
        more={
            names.AUDITRACE_JOB_ID: f"job-{job}",
            names.AUDITRACE_JOB_TEMPLATE: "line-count",
            names.AUDITRACE_INITIATOR_ID: f"actor-{draws.randrange(100)}" if number % 4 == 3 else None,
            names.AUDITRACE_REQUEST_ID: f"request-{number}",
            names.AUDITRACE_CHANGES: {"status": {"from": "created", "to": "draft_ready"}},
            names.USER_AGENT_ORIGINAL: "curl/8.5.0",
            names.HTTP_REQUEST_METHOD: "POST",
            names.HTTP_ROUTE: "/v1/jobs/{job_id}/draft",
            names.CLIENT_ADDRESS: "192.0.2.7",
        },
    )

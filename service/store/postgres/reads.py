"""Reads of a PostgreSQL database: records are ordered by their observed time, up to the listing horizon."""

from service.store.conditions import Dialect
from service.store.following import FollowedReads
from service.store.postgres.listing_horizon import horizon_ns
from service.store.postgres.pool import SessionPool
from service.store.queries import Execute
from service.store.rows import Stored

_POSTGRES = Dialect(
    leading=(
        *("trace_id", "span_id", "request_id", "job_id", "target_id", "initiator_id", "stream_id", "actor_id"),
        *("event_name", "action", "target_type", "result", "outcome"),
    ),
    led_tenant="tenant_id = :tenant_id",
    initiator='initiator_of(body) COLLATE "C"',
    attribute="(comparable_json(body) -> 'attributes' ->> '{}')",
    contains='strpos(lower({} COLLATE "C"), {}) > 0',
    chosen='(observed_ns, records.stream_id) IN (SELECT CAST(place ->> 0 AS bigint), (place ->> 1) COLLATE "C" '
    "FROM json_array_elements(CAST(:places AS json)) AS place)",
    nul_as="\ufffd",
)


class PostgresReads(FollowedReads):
    """Implements `service.ports.Reads`, on sessions that read only."""

    dialect = _POSTGRES
    order = ("ns", "id")
    start = (0, "")
    cursor = tuple[Stored, str]
    cursor_and_newest = tuple[Stored, str, Stored]
    cursor_and_record = tuple[Stored, str, str]

    def __init__(self, url: str) -> None:
        super().__init__(SessionPool(url, read_only=True))

    def _newest(self, execute: Execute) -> int:
        return horizon_ns(execute)

"""Reads of a SQLite file: records are ordered by their position, which is the order of commits."""

from pathlib import Path
from typing import Final

from service.store.conditions import Dialect
from service.store.following import FollowedReads
from service.store.queries import Execute
from service.store.rows import Stored
from service.store.sqlite.connections import ThreadConnections
from service.store.sqlite.untouched import OpenFile, in_use
from telemetry import names

# As the index of the initiator has it (migration 0006). SQLite ends a text at a NUL, and refuses a damaged JSON text.
_ATTRIBUTE: Final = (
    """CASE WHEN instr(body, '"{0}":') > 0 AND json_valid(body) """
    """THEN json_extract(replace(body, '\\u0000', '\\ufffd'), '$.attributes."{0}"') END"""
)
_LEADING: Final = "trace_id request_id job_id target_id initiator_id actor_id event_name result"


_SQLITE: Final = Dialect(
    leading=_LEADING.split(),
    # With the sign, the index of the tenant is not considered, which would lead to more records.
    led_tenant="+tenant_id = :tenant_id",
    initiator=f"({_ATTRIBUTE.format(names.AUDITRACE_INITIATOR_ID)})",
    attribute=f"({_ATTRIBUTE})",
    contains="instr(lower({}), {}) > 0",
    chosen="position IN (SELECT value ->> 0 FROM json_each(:places))",
)


class SqliteReads(FollowedReads):
    """Implements `service.ports.Reads`, each thread on a connection of its own."""

    dialect = _SQLITE
    order = ("position",)
    start = (0,)
    cursor = tuple[Stored]
    cursor_and_newest = tuple[Stored, Stored]
    cursor_and_record = tuple[Stored, str]

    def __init__(self, path: Path, reading: OpenFile = in_use) -> None:
        super().__init__(ThreadConnections(path, reading))

    def _newest(self, execute: Execute) -> int:
        ((position,),) = execute("last_place", {})
        return int(position) + 1

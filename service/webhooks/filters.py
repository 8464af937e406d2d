"""The filter of an endpoint: the names and meanings of the filters of `GET /v1/audit/records`."""

from collections.abc import Collection, Mapping
from typing import Final

import msgspec

from service.jobs.tables import Table
from service.ports import RecordFilter
from telemetry import names

_VALUES: Final[Mapping[str, Collection[str]]] = {
    "action": sorted(set(names.ACTIONS.values())),
    "event_name": list(names.ACTIONS),
    "outcome": names.ATTRIBUTE_VALUES[names.AUDIT_OUTCOME],
    "result": names.ATTRIBUTE_VALUES[names.AUDITRACE_RESULT],
    "target_type": names.ATTRIBUTE_VALUES[names.AUDIT_TARGET_TYPE],
}
"""The filters whose values are known. A wrong value would match nothing, and nobody would notice."""

# A cursor says from where on, and a tenant is a key of the endpoint.
_NOT_FOR_ENDPOINTS: Final = frozenset({"since_ns", "until_ns", "tenant_id"})
FILTERS: Final = tuple(name for name in RecordFilter.__struct_fields__ if name not in _NOT_FOR_ENDPOINTS)
_LONGEST: Final = 512


def filter_of(table: Table, tenant_id: str) -> RecordFilter:
    """Return the filter that a table declares, within a tenant; problems are added to the table's."""
    table.allow(FILTERS)
    values = {name: _value_of(table, name) for name in FILTERS if table.has(name)}
    return msgspec.convert({**values, "tenant_id": tenant_id}, RecordFilter)


def _value_of(table: Table, name: str) -> str | None:
    value = table.take(name, str, "")
    if not 1 <= len(value) <= _LONGEST:
        if isinstance(table.raw(name), str):
            table.complain(name, f"must have 1 to {_LONGEST} characters")
        return None
    known = _VALUES.get(name)
    if known is not None and value not in known:
        table.complain(name, f"{value!r} is none of {', '.join(sorted(known))}")
    return value

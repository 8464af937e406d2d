"""The filter of an endpoint: the names, values and meanings of the filters of `GET /v1/audit/records`."""

from collections.abc import Sequence
from typing import Final

import msgspec

from service.jobs.tables import Table
from service.operations import filters
from service.ports import RecordFilter

# A cursor says from where on, and a tenant is a key of the endpoint.
_NOT_FOR_ENDPOINTS: Final = frozenset({"since", "until", "tenant_id"})
_INCLUDE_TRAIL: Final = "include_trail"
FILTERS: Final = tuple(name for name in filters.NAMES if name not in _NOT_FOR_ENDPOINTS)


def filter_of(table: Table, tenant_id: str) -> RecordFilter:
    """Return the filter that a table declares, within a tenant; problems are added to the table's."""
    table.allow(FILTERS)
    stated = [(name, value) for name in FILTERS for value in _values_of(table, name)]
    return msgspec.structs.replace(filters.filter_of(stated, 0), tenant_id=tenant_id)


def _values_of(table: Table, name: str) -> Sequence[str]:
    """Return the values of a filter, a text or a list of texts; none if one of them is wrong."""
    given = table.raw(name)
    if given is None:
        return ()
    if name == _INCLUDE_TRAIL and isinstance(given, bool):
        given = str(given).lower()
    most = 1 if name in filters.SINGLE else filters.MAX_VALUES
    try:
        values = [given] if isinstance(given, str) else msgspec.convert(given, list[str])
    except msgspec.ValidationError:
        table.complain(name, "must be a text" if most == 1 else "must be a text or a list of texts")
        return ()
    problems = [problem for value in values if (problem := filters.form_of(name).problem(value)) is not None]
    if not 1 <= len(values) <= most:
        problems.append(f"must have 1 to {most} values" if most > 1 else "must have one value")
    for problem in problems:
        table.complain(name, problem)
    return () if problems else values

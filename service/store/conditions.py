"""The SQL of a filter of records: its conditions, and the values that they bind. No value becomes SQL."""

from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from service.ports import TRAIL_EVENTS, FilterValues, RecordFilter, small
from telemetry import names

BEGINNING: Final = "*"
"""The end of an event name that stands for all that begin so."""


class Dialect(msgspec.Struct, frozen=True, kw_only=True):
    """What differs between databases in the SQL of a filter."""

    leading: Sequence[str]
    """The filters with an index in the order of records; first those with values that few records share."""
    led_tenant: str
    """The condition of the tenant beside a leading filter."""
    initiator: str
    """The initiator's id, as its index has it."""
    attribute: str
    """The text of an attribute of the body, with its name for `{}`."""
    contains: str
    """Whether the first text, with the letters A to Z made small, contains the second one."""
    chosen: str
    """Whether a record has one of the places in the JSON text `:places`."""
    nul_as: str = "\0"
    """What columns hold for NUL, which a filter can hold."""


Conditions = tuple[list[str], dict[str, object]]

_QUALIFIED: Final = {"stream_id": "records.stream_id"}
_OPTIONAL: Final = frozenset({"actor_issuer", "initiator_id", "job_id", "request_id"})
_FROM_BODY: Final = frozenset({"actor_issuer", "initiator_id"})
_SEARCHED: Final = (names.AUDITRACE_REASON, names.AUDITRACE_NOTES)


def conditions_of(where: RecordFilter, dialect: Dialect, *, is_led: bool = False) -> Conditions:
    """Return the conditions of a filter, and their values. `is_led` says that an index of a filter is to be used."""
    conditions: list[str] = []
    values: dict[str, object] = {}
    for name in FilterValues.__struct_fields__:
        expression = _expression(name, dialect)
        if stated := getattr(where, name):
            conditions.append(_any_of(name, expression, _as_stored(name, stated, dialect), values))
        if excluded := getattr(where.excluded, name):
            holds = _any_of(f"not_{name}", expression, _as_stored(name, excluded, dialect), values)
            conditions.append(f"({expression} IS NULL OR NOT {holds})" if name in _OPTIONAL else f"NOT {holds}")
    if where.tenant_id is not None:
        conditions.append(dialect.led_tenant if is_led else "tenant_id = :tenant_id")
        values["tenant_id"] = where.tenant_id.replace("\0", dialect.nul_as)
    if where.since_ns is not None:
        conditions.append("observed_ns >= :since_ns")
        values["since_ns"] = where.since_ns
    if where.until_ns is not None:
        conditions.append("observed_ns < :until_ns")
        values["until_ns"] = where.until_ns
    if not where.include_trail:
        events = _any_of("trail", "event_name", TRAIL_EVENTS, values)
        conditions.append(f"NOT ({events} AND result = 'success')")
    if where.q is not None:
        conditions.append(_contains(where.q, dialect, values))
    return conditions, values


def leading_filter(where: RecordFilter, dialect: Dialect) -> str | None:
    """Return the name of the stated filter by whose index records are found; None when there is none."""
    return next(
        (name for name in dialect.leading if (stated := getattr(where, name)) and _is_exact(name, stated)), None
    )


def by_value(where: RecordFilter, name: str) -> Sequence[RecordFilter]:
    """Return a filter for each value of a leading filter: each record that `where` matches, matches one of them."""
    return [msgspec.structs.replace(where, **{name: (value,)}) for value in dict.fromkeys(getattr(where, name))]


def by_value_left(where: RecordFilter, present: Callable[[str], Sequence[str]]) -> Sequence[RecordFilter] | None:
    """Return a filter for each value that an exclusion, or a beginning of event names, leaves; None if none is stated.

    Args:
        where: a filter.
        present: returns the values of `result` or `event_name` that records have.
    """
    left = where.excluded
    if left.result:
        stated = [result for result in present("result") if result not in left.result]
        return [msgspec.structs.replace(where, result=(result,)) for result in stated]
    if not where.event_name and not left.event_name and where.include_trail:
        return None
    events = [
        event
        for event in present("event_name")
        if (not where.event_name or _is_one(event, where.event_name)) and not _is_one(event, left.event_name)
    ]
    trail = tuple(event for event in events if event in TRAIL_EVENTS and not where.include_trail)
    parts = [msgspec.structs.replace(where, event_name=(event,)) for event in events if event not in trail]
    if trail:
        refused = [result for result in present("result") if result != "success"]
        parts += [msgspec.structs.replace(where, event_name=trail, result=(result,)) for result in refused]
    return parts


def _is_exact(name: str, stated: Sequence[str]) -> bool:
    return name != "event_name" or not any(value.endswith(BEGINNING) for value in stated)


def _is_one(event: str, stated: Sequence[str]) -> bool:
    return any(
        event.startswith(value.removesuffix(BEGINNING)) if value.endswith(BEGINNING) else event == value
        for value in stated
    )


def _expression(name: str, dialect: Dialect) -> str:
    if name == "initiator_id":
        return dialect.initiator
    if name == "actor_issuer":
        return dialect.attribute.format(names.AUDITRACE_ACTOR_ISSUER)
    return _QUALIFIED.get(name, name)


def _as_stored(name: str, stated: Sequence[str], dialect: Dialect) -> Sequence[str]:
    if name not in _FROM_BODY:
        # The columns are written with the same replacement, because not every database can hold NUL in them.
        return [value.replace("\0", dialect.nul_as) for value in stated]
    # What both databases read of a body in which the escape of NUL is replaced, as text, before it is parsed.
    return [value.replace("\0", "\ufffd").replace("\\u0000", "\\ufffd") for value in stated]


def _any_of(name: str, expression: str, stated: Sequence[str], values: dict[str, object]) -> str:
    exact = [value for value in stated if _is_exact(name.removeprefix("not_"), [value])]
    placeholders = [f"{name}_{index}" for index in range(len(exact))]
    values.update(zip(placeholders, exact, strict=True))
    found = [f"{expression} IN ({', '.join(f':{each}' for each in placeholders)})"] if exact else []
    for index, value in enumerate(each.removesuffix(BEGINNING) for each in stated if each not in exact):
        values[f"{name}_from_{index}"] = value
        values[f"{name}_until_{index}"] = f"{value[:-1]}{chr(ord(value[-1]) + 1)}"
        found.append(f"({expression} >= :{name}_from_{index} AND {expression} < :{name}_until_{index})")
    return f"({' OR '.join(found)})"


def _contains(q: str, dialect: Dialect, values: dict[str, object]) -> str:
    sought = small(q)
    values["q"] = sought.replace("\0", dialect.nul_as)
    values["q_of_body"] = small(q.replace("\0", "\ufffd").replace("\\u0000", "\\ufffd"))
    # A body holds the escaped text of what its values contain. One that does not is not parsed.
    values["q_escaped"] = msgspec.json.encode(sought).decode()[1:-1]
    target = dialect.contains.format("target_id", ":q")
    body = dialect.contains.format("body", ":q_escaped")
    texts = [dialect.contains.format(dialect.attribute.format(name), ":q_of_body") for name in _SEARCHED]
    return f"({target} OR ({body} AND ({' OR '.join(texts)})))"

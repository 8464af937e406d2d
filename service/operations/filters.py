"""Filters of records as texts: names with values, as in a query of the API and in `auditrace export --where`."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final
from urllib.parse import urlencode

from service.forms import Form, meant
from service.ports import FilterValues, RecordFilter, small
from service.times import parse_time_ns, require_order
from telemetry import names
from telemetry.audit.chain import rfc3339_nanos

MAX_VALUES: Final = 50
"""The most values of one filter."""
NOT: Final = "not_"
"""The begin of the name of an exclusion."""

_TIME: Final = "A day (UTC), an RFC 3339 time, or a duration ago: `2026-11-30`, `2026-11-30T08:00:00Z`, `-2h`."
_SHOWN: Final = 64


def _uuid(description: str) -> Form:
    pattern = "^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$"
    example = "019b76da-a8b3-7a41-9c52-5d9c40d3a1f0"
    return Form(description=description, pattern=pattern, title="a UUID in small letters", example=example)


def _hex(digits: int, description: str) -> Form:
    title = f"{digits} hexadecimal digits in small letters"
    example = "0af7651916cd43dd8448eb211c80319c"[:digits]
    return Form(description=description, pattern=f"^[0-9a-f]{{{digits}}}$", title=title, example=example)


def _value_of(attribute: str, description: str) -> Form:
    return Form(description=description, choices=sorted(names.ATTRIBUTE_VALUES[attribute]))


def _beginnings() -> Sequence[str]:
    """Return the beginnings of event names, in steps of their words: `job.*`, `job.run.*`."""
    words = [event.split(".") for event in names.ACTIONS]
    found = {f"{'.'.join(each[:count])}.*" for each in words for count in range(1, len(each))}
    return sorted(found)


FORMS: Final[Mapping[str, Form]] = {
    "actor_id": Form(description="The actor that acted.", example="anna"),
    "actor_issuer": Form(
        description="The source of the actor: `key`, the issuer of a token, `os` or `service`.", example="key"
    ),
    "initiator_id": Form(description="Who asked for what a worker did.", example="anna"),
    "action": Form(description="What was done.", choices=sorted(set(names.ACTIONS.values()))),
    "event_name": Form(
        description="What took place; `job.*` stands for all events that begin with `job.`.",
        choices=[*names.ACTIONS, *_beginnings()],
    ),
    "outcome": _value_of(names.AUDIT_OUTCOME, "How it ended."),
    "result": _value_of(names.AUDITRACE_RESULT, "How it ended, by cause."),
    "target_type": _value_of(names.AUDIT_TARGET_TYPE, "The kind of the target."),
    "target_id": Form(description="The id of the target.", example="auditrace"),
    "trace_id": _hex(32, "The trace in which it took place."),
    "span_id": _hex(16, "The span in which it took place."),
    "job_id": _uuid("The job that it belongs to."),
    "stream_id": _uuid("The stream in which the records stand."),
    "request_id": Form(
        description="The request that caused it.",
        pattern="^[A-Za-z0-9._-]{1,128}$",
        title="1 to 128 letters, digits, dots, underscores and hyphens",
        example="nightly-7c1d",
    ),
}
"""The filters with values: each may be given up to `MAX_VALUES` times, and excludes with `not_` before its name."""

SINGLE: Final[Mapping[str, Form]] = {
    "tenant_id": Form(description="The tenant; no other than that of the credential."),
    "since": Form(description=f"Observed at this time or later. {_TIME}", min_length=0, max_length=64),
    "until": Form(description=f"Observed before this time. {_TIME}", min_length=0, max_length=64),
    "q": Form(
        description="A text that the reason, the notes or the target id contain; A to Z match in either case.",
        max_length=200,
    ),
    "include_trail": Form(
        description="`false` leaves out the trail about itself: allowed `audit.read`, `audit.checkpoint`, "
        "`audit.stream.open` and `audit.stream.close`.",
        choices=("true", "false"),
    ),
}
"""The filters that are given once."""

NAMES: Final = (*FORMS, *(f"{NOT}{name}" for name in FORMS), *SINGLE)


def filter_of(stated: Iterable[tuple[str, str]], now_ns: int) -> RecordFilter:
    """Return the filter that names and values state.

    Args:
        stated: pairs of a filter's name and a value; filters with several values occur several times.
        now_ns: the present time, from which durations count back.

    Raises:
        ValueError: a name or value is not allowed; the error names it and says what is allowed.

    Example:
        >>> filter_of([("result", "denied"), ("result", "error"), ("not_event_name", "audit.*")], 0)
        RecordFilter(result=('denied', 'error'), excluded=FilterValues(event_name=('audit.*',)))
    """
    found: dict[str, list[str]] = {}
    for name, value in stated:
        if name not in NAMES:
            raise ValueError(f"unknown filter {_shown(name)}: {meant(name, NAMES)}known are {', '.join(NAMES)}")
        problem = form_of(name).problem(value)
        if problem is not None:
            raise ValueError(f"{name}={_shown(value)}: {problem}")
        found.setdefault(name, []).append(value)
    for name, values in found.items():
        most = 1 if name in SINGLE else MAX_VALUES
        if len(values) > most:
            raise ValueError(f"{name} is given {len(values)} times: allowed are {most}")
    members: dict[str, Any] = {name: _set(found[name]) for name in FORMS if name in found}
    excluded = {name: _set(found[NOT + name]) for name in FORMS if NOT + name in found}
    since_ns, until_ns = (_time_ns(name, found, now_ns) for name in ("since", "until"))
    require_order(since_ns, until_ns)
    return RecordFilter(
        **members,
        tenant_id=_only("tenant_id", found),
        since_ns=since_ns,
        until_ns=until_ns,
        q=_only("q", found),
        include_trail=_only("include_trail", found) != "false",
        excluded=FilterValues(**excluded),
    )


def filter_text(where: RecordFilter) -> str:
    """Return the canonical query text of a filter. Equal filters have the same text, whatever their order or form.

    Example:
        >>> filter_text(RecordFilter(outcome=("failure",), actor_id=("ci bot", "anna"), since_ns=0))
        'actor_id=anna&actor_id=ci+bot&outcome=failure&since=1970-01-01T00%3A00%3A00.000000000Z'
    """
    stated = [(name, value) for name in FORMS for value in set(getattr(where, name))]
    stated += [(NOT + name, value) for name in FORMS for value in set(getattr(where.excluded, name))]
    single = {
        "tenant_id": where.tenant_id,
        "since": None if where.since_ns is None else rfc3339_nanos(where.since_ns),
        "until": None if where.until_ns is None else rfc3339_nanos(where.until_ns),
        # Equal filters have equal texts: the letters A to Z match in either case.
        "q": None if where.q is None else small(where.q),
        "include_trail": None if where.include_trail else "false",
    }
    stated += [(name, value) for name, value in single.items() if value is not None]
    return urlencode(sorted(stated))


def form_of(name: str) -> Form:
    """Return the form of the values of a filter or exclusion."""
    return SINGLE.get(name) or FORMS[name.removeprefix(NOT)]


def _set(values: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted(set(values)))


def _only(name: str, found: Mapping[str, Sequence[str]]) -> str | None:
    return found[name][0] if name in found else None


def _time_ns(name: str, found: Mapping[str, Sequence[str]], now_ns: int) -> int | None:
    text = _only(name, found)
    try:
        return None if text is None else parse_time_ns(text, now_ns)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error


def _shown(text: str) -> str:
    return text[:_SHOWN]

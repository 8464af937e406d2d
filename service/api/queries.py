"""The query parameters of listings: the values that each can have; service/api/head.py checks them."""

from collections.abc import Iterable
from typing import Annotated, Any, Final

from litestar.di import NamedDependency, Provide
from litestar.params import QueryParameter

from service.api.fields import REQUEST_ID, UUID
from service.api.request import ApiRequest
from service.errors import InvalidRequestError
from service.ports import RecordFilter
from service.times import parse_time_ns, require_order
from telemetry import names

_TIME: Final = "A day (UTC), an RFC 3339 time, or a duration ago: `2026-11-30`, `2026-11-30T08:00:00Z`, `-2h`."

Cursor = Annotated[
    str | None,
    QueryParameter(
        min_length=1, max_length=512, description="`next_cursor` of the page before; absent for the first page."
    ),
]
Limit = Annotated[int, QueryParameter(ge=1, le=1000, description="The most rows of a page.")]
Wait = Annotated[
    str | None,
    QueryParameter(
        min_length=1,
        max_length=16,
        description="The longest time to wait for a final state: `30s`; no more than `60s`.",
    ),
]


def text(description: str) -> QueryParameter:
    """Declare a filter whose values others choose."""
    return QueryParameter(min_length=1, max_length=512, description=description)


def _one_of(values: Iterable[str], description: str) -> QueryParameter:
    return QueryParameter(enum=tuple(values), description=description)


def _value_of(attribute: str, description: str) -> QueryParameter:
    return _one_of(sorted(names.ATTRIBUTE_VALUES[attribute]), description)


def _form(pattern: str, title: str, description: str, **schema: Any) -> QueryParameter:
    """Declare a filter of this pattern; `title` is the pattern in words, for problems too."""
    return QueryParameter(pattern=pattern, title=title, description=description, schema_extra=schema)


def _hex(digits: int, description: str) -> QueryParameter:
    return _form(f"^[0-9a-f]{{{digits}}}$", f"{digits} hexadecimal digits in small letters", description)


def _uuid(description: str) -> QueryParameter:
    pattern = "^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$"
    return _form(pattern, "a UUID in small letters", description, **UUID)


def _request_id(description: str) -> QueryParameter:
    return _form(REQUEST_ID["pattern"], "1 to 128 letters, digits, dots, underscores and hyphens", description)


def _time(description: str) -> QueryParameter:
    return QueryParameter(max_length=64, description=f"{description} {_TIME}")


async def _provide_where(
    request: ApiRequest,
    actor_id: Annotated[str | None, text("The actor that acted.")] = None,
    action: Annotated[str | None, _one_of(sorted(set(names.ACTIONS.values())), "What was done.")] = None,
    event_name: Annotated[str | None, _one_of(names.ACTIONS, "What took place.")] = None,
    outcome: Annotated[str | None, _value_of(names.AUDIT_OUTCOME, "How it ended.")] = None,
    result: Annotated[str | None, _value_of(names.AUDITRACE_RESULT, "How it ended, by cause.")] = None,
    target_type: Annotated[str | None, _value_of(names.AUDIT_TARGET_TYPE, "The kind of the target.")] = None,
    target_id: Annotated[str | None, text("The id of the target.")] = None,
    trace_id: Annotated[str | None, _hex(32, "The trace in which it took place.")] = None,
    span_id: Annotated[str | None, _hex(16, "The span in which it took place.")] = None,
    job_id: Annotated[str | None, _uuid("The job that it belongs to.")] = None,
    stream_id: Annotated[str | None, _uuid("The stream in which the records stand.")] = None,
    request_id: Annotated[str | None, _request_id("The request that caused it.")] = None,
    tenant_id: Annotated[str | None, text("The tenant; no other than that of the credential.")] = None,
    since: Annotated[str | None, _time("Observed at this time or later.")] = None,
    until: Annotated[str | None, _time("Observed before this time.")] = None,
) -> RecordFilter:
    """Return the filter of records that the query states.

    Raises:
        InvalidRequestError: `since` or `until` is no time, or nothing can lie between them.
    """
    now_ns = request.parts.services.clock()
    since_ns, until_ns = _time_ns("since", since, now_ns), _time_ns("until", until, now_ns)
    try:
        require_order(since_ns, until_ns)
    except ValueError as error:
        raise InvalidRequestError(str(error)) from error
    return RecordFilter(
        actor_id=actor_id,
        action=action,
        event_name=event_name,
        outcome=outcome,
        result=result,
        target_type=target_type,
        target_id=target_id,
        trace_id=trace_id,
        span_id=span_id,
        job_id=job_id,
        stream_id=stream_id,
        request_id=request_id,
        tenant_id=tenant_id,
        since_ns=since_ns,
        until_ns=until_ns,
    )


Where = NamedDependency[RecordFilter]
WHERE: Final = {"where": Provide(_provide_where)}
"""The dependency of routes that take a `Where`."""


def _time_ns(name: str, text: str | None, now_ns: int) -> int | None:
    try:
        return None if text is None else parse_time_ns(text, now_ns)
    except ValueError as error:
        raise InvalidRequestError(f"{name}: {error}") from error

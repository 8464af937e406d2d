"""The query parameters of listings: what each may be; service/api/declared.py checks that they are that."""

from typing import Annotated, Final

from litestar.params import QueryParameter

from service.api.fields import REQUEST_ID
from service.api.parts import parts_of
from service.api.request import ApiRequest
from service.errors import InvalidRequestError
from service.ports import RecordFilter
from service.times import parse_time_ns, require_order
from telemetry import names

_RESULTS: Final = tuple(sorted(names.ATTRIBUTE_VALUES[names.AUDITRACE_RESULT]))
_OUTCOMES: Final = tuple(sorted(names.ATTRIBUTE_VALUES[names.AUDIT_OUTCOME]))
_TARGET_TYPES: Final = tuple(sorted(names.ATTRIBUTE_VALUES[names.AUDIT_TARGET_TYPE]))
_TIME: Final = "A day (UTC), an RFC 3339 time, or a duration ago: `2026-11-30`, `2026-11-30T08:00:00Z`, `-2h`."

Cursor = Annotated[
    str | None,
    QueryParameter(
        min_length=1, max_length=512, description="`next_cursor` of the page before; absent for the first page."
    ),
]
Limit = Annotated[int, QueryParameter(ge=1, le=1000, description="The most rows of a page.")]
QueryText = Annotated[str | None, QueryParameter(min_length=1, max_length=512)]
QueryWait = Annotated[
    str | None,
    QueryParameter(
        min_length=1, max_length=16, description="Wait for a final state, so long at most: `30s`; no more than `60s`."
    ),
]
QueryTime = Annotated[str | None, QueryParameter(max_length=64, description=_TIME)]
EventName = Annotated[str | None, QueryParameter(enum=tuple(names.ACTIONS))]
Action = Annotated[str | None, QueryParameter(enum=tuple(sorted(set(names.ACTIONS.values()))))]
Outcome = Annotated[str | None, QueryParameter(enum=_OUTCOMES)]
ResultName = Annotated[str | None, QueryParameter(enum=_RESULTS)]
TargetType = Annotated[str | None, QueryParameter(enum=_TARGET_TYPES)]
TraceId = Annotated[
    str | None, QueryParameter(pattern="^[0-9a-f]{32}$", description="32 hexadecimal digits in small letters")
]
SpanId = Annotated[
    str | None, QueryParameter(pattern="^[0-9a-f]{16}$", description="16 hexadecimal digits in small letters")
]

Uuid = Annotated[
    str | None,
    QueryParameter(
        pattern="^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$", description="a UUID in small letters"
    ),
]
RequestId = Annotated[
    str | None,
    QueryParameter(
        pattern=REQUEST_ID["pattern"], description="1 to 128 letters, digits, dots, underscores and hyphens"
    ),
]


async def provide_where(
    request: ApiRequest,
    actor_id: QueryText = None,
    action: Action = None,
    event_name: EventName = None,
    outcome: Outcome = None,
    result: ResultName = None,
    target_type: TargetType = None,
    target_id: QueryText = None,
    trace_id: TraceId = None,
    span_id: SpanId = None,
    job_id: Uuid = None,
    stream_id: Uuid = None,
    request_id: RequestId = None,
    tenant_id: QueryText = None,
    since: QueryTime = None,
    until: QueryTime = None,
) -> RecordFilter:
    """Return the filter of records that the query states.

    Raises:
        InvalidRequestError: `since` or `until` is no time, or nothing can lie between them.
    """
    now_ns = parts_of(request.scope).services.clock()
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


def _time_ns(name: str, text: str | None, now_ns: int) -> int | None:
    try:
        return None if text is None else parse_time_ns(text, now_ns)
    except ValueError as error:
        raise InvalidRequestError(f"{name}: {error}") from error

"""The query parameters of listings, and the rule that a misspelt one is refused and never silently means "all"."""

from collections.abc import Collection
from typing import Annotated, Final, cast

import msgspec
from litestar.params import QueryParameter

from service.api.requests import ApiRequest
from service.api.texts import is_plain, time_ns
from service.errors import InvalidRequestError
from service.ports import RecordFilter

Cursor = Annotated[
    str | None,
    QueryParameter(
        min_length=1, max_length=512, description="`next_cursor` of the page before; absent for the first page."
    ),
]
Limit = Annotated[int, QueryParameter(ge=1, le=1000, description="The most rows of a page.")]
QueryText = Annotated[str | None, QueryParameter(min_length=1, max_length=512)]
QueryTime = Annotated[str | None, QueryParameter(max_length=64, description="An RFC 3339 time.")]


def require_known(request: ApiRequest, known: Collection[str]) -> None:
    """Check the query as a whole.

    Raises:
        InvalidRequestError: a parameter is unknown, given twice, or holds what no record can hold.
    """
    seen: set[str] = set()
    for name, value in cast("list[tuple[str, str]]", list(request.query_params.multi_items())):
        if name not in known:
            raise InvalidRequestError(f"unknown query parameter: known are {', '.join(sorted(known))}")
        if name in seen:
            raise InvalidRequestError(f"query parameter {name} is given twice")
        if not is_plain(value):
            raise InvalidRequestError(f"query parameter {name} must not hold control characters")
        seen.add(name)


async def provide_where(
    actor_id: QueryText = None,
    action: QueryText = None,
    event_name: QueryText = None,
    outcome: QueryText = None,
    result: QueryText = None,
    target_type: QueryText = None,
    target_id: QueryText = None,
    trace_id: QueryText = None,
    span_id: QueryText = None,
    job_id: QueryText = None,
    stream_id: QueryText = None,
    request_id: QueryText = None,
    tenant_id: QueryText = None,
    since: QueryTime = None,
    until: QueryTime = None,
) -> RecordFilter:
    """Return the filter of records that the query states; the handler checks the query as a whole.

    Raises:
        InvalidRequestError: `since` or `until` is no time.
    """
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
        since_ns=time_ns(since) if since is not None else None,
        until_ns=time_ns(until) if until is not None else None,
    )


PAGING: Final = frozenset({"cursor", "limit"})
JOB_QUERY: Final = PAGING | {"status", "template", "created_by"}
_FILTERS: Final = frozenset(
    name.removesuffix("_ns") if name in {"since_ns", "until_ns"} else name
    for name in msgspec.structs.asdict(RecordFilter())
)
RECORD_QUERY: Final = PAGING | _FILTERS
EXPORT_QUERY: Final = _FILTERS | {"format"}

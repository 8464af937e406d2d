"""The query parameters of listings. service/api/head.py checks those that are given once."""

from typing import Annotated, Final, TypeAlias

from litestar.di import NamedDependency, Provide
from litestar.openapi.spec import OpenAPIType, Schema
from litestar.params import QueryParameter

from service.api.request import ApiRequest
from service.errors import InvalidRequestError
from service.forms import Form
from service.operations.filters import FORMS, MAX_VALUES, NAMES, NOT, SINGLE, filter_of
from service.ports import ListingOrder, RecordFilter

Cursor = Annotated[
    str | None,
    QueryParameter(
        min_length=1, max_length=512, description="`next_cursor` of the page before; absent for the first page."
    ),
]
Limit = Annotated[int, QueryParameter(ge=1, le=1000, description="The most rows of a page.")]
Direction = Annotated[
    ListingOrder,
    QueryParameter(name="order", description="The last committed first, or the first. A cursor belongs to its order."),
]
Wait = Annotated[
    str | None,
    QueryParameter(
        min_length=1,
        max_length=16,
        pattern="^[0-9]{1,9}(ms|s|m|h|d)$",
        description="The longest time to wait for a final state: `30s`; no more than `60s`.",
    ),
]


def text(description: str) -> QueryParameter:
    """Declare a filter whose values others choose."""
    return QueryParameter(min_length=1, max_length=512, description=description)


Several: TypeAlias = list[str] | None


def _several(name: str) -> QueryParameter:
    """Declare a filter or an exclusion of several values."""
    form = FORMS[name.removeprefix(NOT)]
    description = f"None of these: {form.description}" if name.startswith(NOT) else f"Any of these: {form.description}"
    return QueryParameter(
        name=name, description=description, max_items=MAX_VALUES, schema_extra={"items": _schema_of(form)}
    )


def _single(name: str) -> QueryParameter:
    form = SINGLE[name]
    return QueryParameter(
        name=name,
        description=form.description,
        enum=tuple(form.choices) or None,
        min_length=form.min_length or None,
        max_length=None if form.choices else form.max_length,
    )


def _schema_of(form: Form) -> Schema:
    if form.choices:
        return Schema(type=OpenAPIType.STRING, enum=list(form.choices), examples=[form.choices[0]])
    if form.pattern:
        examples = [form.example]
        return Schema(type=OpenAPIType.STRING, pattern=form.pattern, examples=examples)
    lengths = (form.min_length, form.max_length)
    return Schema(type=OpenAPIType.STRING, min_length=lengths[0], max_length=lengths[1], examples=[form.example])


async def _provide_where(
    request: ApiRequest,
    _actor_id: Annotated[Several, _several("actor_id")] = None,
    _actor_issuer: Annotated[Several, _several("actor_issuer")] = None,
    _initiator_id: Annotated[Several, _several("initiator_id")] = None,
    _action: Annotated[Several, _several("action")] = None,
    _event_name: Annotated[Several, _several("event_name")] = None,
    _outcome: Annotated[Several, _several("outcome")] = None,
    _result: Annotated[Several, _several("result")] = None,
    _target_type: Annotated[Several, _several("target_type")] = None,
    _target_id: Annotated[Several, _several("target_id")] = None,
    _trace_id: Annotated[Several, _several("trace_id")] = None,
    _span_id: Annotated[Several, _several("span_id")] = None,
    _job_id: Annotated[Several, _several("job_id")] = None,
    _stream_id: Annotated[Several, _several("stream_id")] = None,
    _request_id: Annotated[Several, _several("request_id")] = None,
    _not_actor_id: Annotated[Several, _several("not_actor_id")] = None,
    _not_actor_issuer: Annotated[Several, _several("not_actor_issuer")] = None,
    _not_initiator_id: Annotated[Several, _several("not_initiator_id")] = None,
    _not_action: Annotated[Several, _several("not_action")] = None,
    _not_event_name: Annotated[Several, _several("not_event_name")] = None,
    _not_outcome: Annotated[Several, _several("not_outcome")] = None,
    _not_result: Annotated[Several, _several("not_result")] = None,
    _not_target_type: Annotated[Several, _several("not_target_type")] = None,
    _not_target_id: Annotated[Several, _several("not_target_id")] = None,
    _not_trace_id: Annotated[Several, _several("not_trace_id")] = None,
    _not_span_id: Annotated[Several, _several("not_span_id")] = None,
    _not_job_id: Annotated[Several, _several("not_job_id")] = None,
    _not_stream_id: Annotated[Several, _several("not_stream_id")] = None,
    _not_request_id: Annotated[Several, _several("not_request_id")] = None,
    _tenant_id: Annotated[str | None, _single("tenant_id")] = None,
    _since: Annotated[str | None, _single("since")] = None,
    _until: Annotated[str | None, _single("until")] = None,
    _q: Annotated[str | None, _single("q")] = None,
    _include_trail: Annotated[str | None, _single("include_trail")] = None,
) -> RecordFilter:
    """Return the filter of records that the query states. The parameters declare it; it is read as a whole.

    Raises:
        InvalidRequestError: a value is not allowed, there are too many, or nothing can lie between `since` and `until`.
    """
    stated = [(name, value) for name, value in request.query_params.multi_items() if name in NAMES]
    try:
        return filter_of(stated, request.parts.services.clock())
    except ValueError as error:
        raise InvalidRequestError(str(error)) from error


Where = NamedDependency[RecordFilter]
WHERE: Final = {"where": Provide(_provide_where)}
"""The dependency of routes that take a `Where`."""

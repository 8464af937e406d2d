"""Server-sent events of the audit trail: `GET /v1/audit/records?follow`.

Source: WHATWG HTML, section 9.2, "Server-sent events".
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Annotated, Any, Final

import msgspec
from litestar.enums import HttpMethod
from litestar.params import HeaderParameter, QueryParameter
from litestar.response import Stream

from service.api.audit_answers import record_answer
from service.api.follows import Follows
from service.api.problems import problem_of
from service.api.request import ApiRequest, authenticate, context_of, in_progress
from service.errors import AuditraceError, ForbiddenError, InvalidRequestError, MethodNotAllowedError
from service.operations.following import AuditFollow, FollowStart
from service.ports import RecordFilter
from service.roles import AUDITOR, require

EVENTS: Final = "text/event-stream"
CHECK_S: Final = 5.0
"""How often the credential of a follow is checked: a revoked one gets no record later than that."""
BEAT_S: Final = 15.0
"""How long a follow may be silent: then it sends its position, or a comment."""
RETRY_MS: Final = 2000
"""How long clients wait before they connect again."""

Follow = Annotated[
    str | None,
    QueryParameter(
        pattern="^(true)?$",
        title="true, or no value: …?follow",
        description=(
            "Send the records that match as server-sent events, oldest first, and go on with those that are committed "
            "later. Without `since` and `cursor`, begin with what is committed from now on."
        ),
    ),
]
LastEventId = Annotated[
    str | None,
    HeaderParameter(
        name="Last-Event-ID",
        description="With `follow`: the id of the last event that was received; continue right behind it. It takes "
        "precedence over `cursor`, which means the same.",
    ),
]

_OF_PAGES: Final = ("limit", "order", "until")


async def follow_records(request: ApiRequest, where: RecordFilter, cursor: str | None, last_id: str | None) -> Stream:
    """Answer with the records that match, and with those that are committed later. The follow is recorded first.

    Raises:
        RefusedError: the method, a parameter, the role or the cursor is refused.
        TryLaterError: there are too many follows in all, or the trail cannot be read or written.
    """
    if request.method != HttpMethod.GET:
        # It would be on record as a follow, and return nothing.
        raise MethodNotAllowedError("a follow is asked for with GET", HttpMethod.GET.value)
    for name in _OF_PAGES:
        if name in request.query_params:
            raise InvalidRequestError(f"{name} is for pages: leave it out of a follow")
    parts, credential = request.parts, request.exchange.credential
    # Before the follow is counted: who may not follow takes nobody's place.
    require(credential.roles, AUDITOR)
    parts.follows.admit(in_progress(request))
    follow = AuditFollow(parts.services, context_of(request.scope), request.exchange.span, parts.reads)
    start = await follow.begin(where, cursor if last_id is None else last_id)
    events = _events(request, parts.follows, start)
    # Litestar takes the media type of the route, which is that of its JSON, unless a header states another.
    return Stream(events, headers={"Content-Type": f"{EVENTS}; charset=utf-8", "X-Accel-Buffering": "no"})


async def _events(request: ApiRequest, follows: Follows, start: FollowStart) -> AsyncGenerator[bytes]:
    """Yield the events of a follow; the last one says why it ends."""
    now, behind = asyncio.get_running_loop().time, start.behind
    require_valid = _checking(request, now)
    told, beat_at = behind, now() + BEAT_S
    yield f"retry: {RETRY_MS}\n".encode() + _event("position", {}, behind.cursor)
    try:
        while True:
            news = follows.news
            due_at = await require_valid()
            found, behind = await follows.page(start.where, behind)
            for each in found:
                due_at = await require_valid()
                yield _event("record", record_answer(request, each.record), each.position.cursor)
                told, beat_at = each.position, now() + BEAT_S
            if found:
                continue
            if now() >= beat_at:
                yield b":\n\n" if told == behind else _event("position", {}, behind.cursor)
                told, beat_at = behind, now() + BEAT_S
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(due_at, beat_at) - now()):
                    await news.wait()
    except AuditraceError as error:
        yield _event("end", problem_of(error, request.exchange.request_id, request.exchange.span.ref.trace_id))


def _checking(request: ApiRequest, now: Callable[[], float]) -> Callable[[], Awaitable[float]]:
    """Return a function that checks the credential if that is due, and returns when it is due next.

    It raises RefusedError if the credential no longer allows the follow, and TryLaterError if it cannot be checked.
    """
    tenant_id = request.exchange.credential.tenant_id
    due_at = now() + CHECK_S

    async def require_valid() -> float:
        nonlocal due_at
        if now() >= due_at:
            credential = await authenticate(request.scope, request.headers)
            require(credential.roles, AUDITOR)
            if credential.tenant_id != tenant_id:
                raise ForbiddenError("the credential is now of another tenant")
            due_at = now() + CHECK_S
        return due_at

    return require_valid


def _event(name: str, value: Any, cursor: str | None = None) -> bytes:
    """Return an event; JSON has no line breaks outside of its texts, and writes those in texts with escapes."""
    id_line = b"" if cursor is None else b"id: " + cursor.encode() + b"\n"
    return id_line + b"event: " + name.encode() + b"\ndata: " + msgspec.json.encode(value) + b"\n\n"

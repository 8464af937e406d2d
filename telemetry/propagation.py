"""Reads and writes W3C Trace Context. A header that does not follow the standard is ignored.

Source: W3C Trace Context, section 3; https://www.w3.org/TR/trace-context-2/.
"""

import re
from typing import Final

from opentelemetry.context import Context
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, TraceState, set_span_in_context

_TRACEPARENT: Final = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?", re.ASCII)
_KNOWN_FLAGS: Final = TraceFlags.SAMPLED | TraceFlags.RANDOM_TRACE_ID
_MAX_TRACESTATE: Final = 512
"""Section 3.3.1.5 asks for at least 512 characters. More is not stored, because any client could send it."""

_MAX_MEMBERS: Final = 32
_VALUE_CHARACTER: Final = r"[\x21-\x2b\x2d-\x3c\x3e-\x7e]"
_MEMBER: Final = re.compile(
    r"([a-z][a-z0-9_\-*/]{0,255}|[a-z0-9][a-z0-9_\-*/]{0,240}@[a-z][a-z0-9_\-*/]{0,13})"
    rf"=((?:{_VALUE_CHARACTER}|\x20){{0,255}}{_VALUE_CHARACTER})",
    re.ASCII,
)
"""Sections 3.3.1.3.1 and 3.3.1.3.2: a key with or without a tenant, and a value that does not end in a blank."""


def traceparent(trace_id: str, span_id: str, trace_flags: int) -> str:
    """Return the `traceparent` that continues this span.

    Example:
        >>> traceparent("0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331", 1)
        '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01'
    """
    return f"00-{trace_id}-{span_id}-{trace_flags:02x}"


def remote_span_context(traceparent: str, tracestate: str | None = None) -> SpanContext | None:
    """Return the span that a peer named; None when its `traceparent` is not valid.

    Args:
        traceparent: the header's value; of a later version, the parts that version 00 defines are read.
        tracestate: the header's value, several headers joined by commas; an invalid value is dropped as a whole.
    """
    match = _TRACEPARENT.fullmatch(traceparent)
    if match is None:
        return None
    version, trace_id, span_id, flags, rest = match.groups()
    if version == "ff" or (version == "00" and rest is not None):
        return None
    context = SpanContext(
        int(trace_id, 16),
        int(span_id, 16),
        is_remote=True,
        trace_flags=TraceFlags(int(flags, 16) & _KNOWN_FLAGS),
        trace_state=_trace_state(tracestate or ""),
    )
    return context if context.is_valid else None


def remote_context(traceparent: str, tracestate: str | None) -> Context:
    """Return a context in which that span is the parent; when it is not valid, a context without a parent.

    The current context of this thread is not used.
    """
    span_context = remote_span_context(traceparent, tracestate)
    if span_context is None:
        return Context()
    return set_span_in_context(NonRecordingSpan(span_context), Context())


def _trace_state(tracestate: str) -> TraceState:
    if len(tracestate) > _MAX_TRACESTATE:
        return TraceState()
    # The parser of the API is not used: it logs what it refuses, so any client could fill the log.
    members = [member for text in tracestate.split(",") if (member := text.strip(" \t"))]
    matches = [match for member in members if (match := _MEMBER.fullmatch(member)) is not None]
    pairs = {match[1]: match[2] for match in matches}
    return TraceState(list(pairs.items()) if len(members) == len(pairs) <= _MAX_MEMBERS else None)

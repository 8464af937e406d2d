"""Trace context of peers is taken as the standard has it, or not at all."""

import logging

import pytest
from opentelemetry.context import attach, detach
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace import get_current_span

from telemetry.propagation import remote_context, remote_span_context, traceparent
from telemetry.tracing import Tracing

TRACE_ID = "0af7651916cd43dd8448eb211c80319c"
SPAN_ID = "b7ad6b7169203331"
PARENT = f"00-{TRACE_ID}-{SPAN_ID}-01"


def test_what_is_written_is_read_back() -> None:
    """A traceparent of our own names the same span again, sampled or not."""
    for flags in (0, 1):
        context = remote_span_context(traceparent(TRACE_ID, SPAN_ID, flags))
        assert context is not None
        assert (f"{context.trace_id:032x}", f"{context.span_id:016x}", context.trace_flags) == (
            TRACE_ID,
            SPAN_ID,
            flags,
        )
        assert context.is_remote


@pytest.mark.parametrize(
    "wrong",
    [
        "",
        "00",
        PARENT.upper(),
        PARENT.replace("-", "_"),
        PARENT[:-1],
        PARENT + "0",
        PARENT + "-",
        PARENT + "-00",
        " " + PARENT,
        PARENT + "\n",
        "ff" + PARENT[2:],
        f"00-{'0' * 32}-{SPAN_ID}-01",
        f"00-{TRACE_ID}-{'0' * 16}-01",
        f"00-{TRACE_ID[:-1]}g-{SPAN_ID}-01",
        f"00-{TRACE_ID[:-1]}٣-{SPAN_ID}-01",
        f"cc-{TRACE_ID}-{SPAN_ID}-01.what",
    ],
)
def test_an_invalid_traceparent_names_nothing(wrong: str) -> None:
    """What section 3.2.2 does not allow is no parent, and so no link and no trace to continue."""
    assert remote_span_context(wrong) is None
    assert not get_current_span(remote_context(wrong, "a=1")).get_span_context().is_valid


@pytest.mark.parametrize("later", [f"cc-{TRACE_ID}-{SPAN_ID}-01", f"01-{TRACE_ID}-{SPAN_ID}-01-what-the-future-brings"])
def test_a_later_version_is_read_as_far_as_it_is_known(later: str) -> None:
    """Versions after 00 keep their first four fields, and may add more (section 4.3)."""
    context = remote_span_context(later)
    assert context is not None
    assert f"{context.trace_id:032x}" == TRACE_ID


def test_unknown_flags_are_not_passed_on() -> None:
    """Of the flags only the known bits are kept: sampled, and random trace id of level 2."""
    context = remote_span_context(PARENT[:-2] + "ff")
    assert context is not None
    assert context.trace_flags == 0x03


def test_tracestate_is_kept_in_its_order() -> None:
    """A valid tracestate comes through with its members in order, blanks and empty members apart."""
    context = remote_span_context(PARENT, "rojo=00f067aa0ba902b7,\tcongo@t61rcwgmz=x y , ,a-b*c/d=~")
    assert context is not None
    assert context.trace_state.to_header() == "rojo=00f067aa0ba902b7,congo@t61rcwgmz=x y,a-b*c/d=~"


@pytest.mark.parametrize(
    "wrong",
    [
        "a=1,a=2",
        "A=1",
        "a",
        "a=",
        "a=b=c",
        "a=\x7f",
        "a=é",
        "@a=1",
        "1a=1",
        "=1",
        "a=1,b",
        ",".join(f"k{number}=1" for number in range(33)),
        "a=" + "x" * 257,
        ",".join(f"k{number}={'x' * 100}" for number in range(6)),
    ],
)
def test_an_invalid_tracestate_is_dropped_in_silence(wrong: str, caplog: pytest.LogCaptureFixture) -> None:
    """A bad tracestate costs the caller its tracestate, not its trace, and strangers cannot fill our log with it."""
    with caplog.at_level(logging.DEBUG):
        context = remote_span_context(PARENT, wrong)
    assert context is not None
    assert context.trace_state.to_header() == ""
    assert caplog.records == []


def test_a_new_trace_is_new_whatever_is_current() -> None:
    """`root` starts a trace of its own, also on a thread where another span is current."""
    tracing = Tracing(TracerProvider().get_tracer("test"))
    token = attach(remote_context(PARENT, None))
    try:
        root = tracing.root("audit.stream.open")
        run = tracing.run("not a traceparent", None, "job", "template", [])
    finally:
        detach(token)
    assert TRACE_ID not in {root.ref.trace_id, run.ref.trace_id}

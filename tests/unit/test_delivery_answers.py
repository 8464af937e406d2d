"""An answer counts as an acknowledgement only when it says so; everything else holds the records."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import (
    ExportLogsPartialSuccess,
    ExportLogsServiceRequest,
    ExportLogsServiceResponse,
)

from service.relay.backoff import LONGEST_PAUSE_S, pause_s
from telemetry.audit.otlp import resource_bytes
from telemetry.audit.request import export_request
from telemetry.delivery.answers import Accepted, Refused, Rejected, Unreachable, blames_records
from telemetry.delivery.responses import JSON, PROTOBUF, answer_of_body, retry_after_s, shown


def _response(rejected: int, message: str = "") -> bytes:
    partial = ExportLogsPartialSuccess(rejected_log_records=rejected, error_message=message)
    return ExportLogsServiceResponse(partial_success=partial).SerializeToString()


@pytest.mark.parametrize(
    ("body", "content_type", "answer"),
    [
        (b"", PROTOBUF, Accepted()),
        (b"", "", Accepted()),
        (_response(0), PROTOBUF, Accepted()),
        (_response(0, "slow"), PROTOBUF, Accepted("slow")),
        (_response(3, "bad"), PROTOBUF, Rejected(3, "bad")),
        (_response(3, "bad"), "Application/X-Protobuf; charset=utf-8", Rejected(3, "bad")),
        (b"", JSON, Accepted()),
        (b"", "text/html", Accepted()),
        (b"", "text/plain; charset=utf-8", Accepted()),
        (b'{"partialSuccess":{"rejectedLogRecords":"2","errorMessage":"x"}}', JSON, Rejected(2, "x")),
        (b'{"partialSuccess":{},"more":1}', JSON, Accepted()),
        (b'{"partial_success":{"rejected_log_records":"2"}}', JSON, Rejected(2, "")),
        (b"{}", JSON, Accepted()),
    ],
)
def test_an_otlp_response_is_read(body: bytes, content_type: str, answer: object) -> None:
    """In both encodings; a message without rejected records is a warning."""
    assert answer_of_body(body, content_type) == answer


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (b"<html></html>", "text/html"),
        (b"<html></html>", PROTOBUF),
        (b"OK", "text/plain"),
        (b"OK", ""),
        (b"\n", "text/html"),
        (b"{", JSON),
        (b"[]", JSON),
        (b"\xff", JSON),
        (b'{"status":"Server available","upSince":"2026-11-30T13:54:57Z","uptime":"22m"}', JSON),
        (b'{"error":"no such path"}', JSON),
        (b"\x0a\x05\x08", PROTOBUF),
    ],
)
def test_what_is_no_otlp_response_acknowledges_nothing(body: bytes, content_type: str) -> None:
    """A web page behind a wrong URL answers 200 too, and so does the collector's health check at any path."""
    answer = answer_of_body(body, content_type)
    assert isinstance(answer, Refused)
    assert not blames_records(answer)
    assert "is the URL right?" in answer.message


def test_only_three_answers_may_be_about_a_record() -> None:
    """400, 413 and partial success; no other status ever sets a record aside."""
    assert blames_records(Rejected(1, ""))
    blamed = [status for status in range(600) if blames_records(Refused(status, "", ""))]
    assert blamed == [400, 413]
    assert not blames_records(Accepted("warning"))
    assert not blames_records(Unreachable("timeout", ""))


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        (None, None),
        ("", None),
        ("120", 120.0),
        ("0.5", 0.5),
        ("-5", 0.0),
        ("nan", None),
        ("inf", None),
        ("1e999", None),
        ("later", None),
        ("Wed, 21 Oct 2015 07:28:10 GMT", 10.0),
        ("Wed, 21 Oct 2015 07:27:00 GMT", 0.0),
        ("Wed, 21 Oct 2015 07:28:10", 10.0),
        ("Wed, 99 Oct 2015 07:28:10 GMT", None),
    ],
)
def test_retry_after_is_a_number_or_a_date(header: str | None, seconds: float | None) -> None:
    """RFC 9110, section 10.2.3; what makes no sense asks for nothing."""
    assert retry_after_s(header, 1_445_412_480.0) == seconds


@given(st.text(max_size=600))
def test_a_sink_s_words_are_one_short_line(text: str) -> None:
    """They go into logs and readiness: no line breaks, no control characters, no novels."""
    line = shown(text)
    assert len(line) <= 201
    assert line.isprintable()


@given(st.integers(1, 10_000), st.none() | st.floats(0, 1e9), st.floats(0, 1, exclude_max=True))
def test_a_pause_is_never_longer_than_ten_seconds(failures: int, retry_after: float | None, draw: float) -> None:
    """Nor shorter than what the sink asked for within that limit, nor nothing at all."""
    pause = pause_s(failures, retry_after, lambda: draw)
    assert min(retry_after or 0.0, LONGEST_PAUSE_S) <= pause <= LONGEST_PAUSE_S
    assert pause >= 0.05
    assert math.isfinite(pause)


def test_pauses_grow_and_scatter() -> None:
    """They double with each failure; two relays that failed together do not come back together."""
    assert [pause_s(failures, None, lambda: 1.0) for failures in range(1, 10)] == pytest.approx(
        [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 10.0, 10.0]
    )
    assert pause_s(8, None, lambda: 0.0) == 5.0


class _Stored:
    def __init__(self, resource: bytes, scope: bytes, log_record: bytes) -> None:
        self.resource, self.scope, self.log_record = resource, scope, log_record


def test_neighbours_of_one_resource_share_a_frame() -> None:
    """Order is kept, and nothing of a record changes; only what follows directly is grouped."""
    first, second = resource_bytes({"a": "1"}), resource_bytes({"a": "2"})
    events = [f"b\x01{name}".encode() for name in "abcd"]
    records = [_Stored(first, b"", events[0]), _Stored(first, b"", events[1]), _Stored(second, b"", events[2])]
    records.append(_Stored(first, b"", events[3]))
    request = ExportLogsServiceRequest.FromString(export_request(records))
    groups = [[each.event_name for each in group.scope_logs[0].log_records] for group in request.resource_logs]
    assert groups == [["a", "b"], ["c"], ["d"]]
    assert [group.resource.SerializeToString() for group in request.resource_logs] == [first, second, first]
    assert export_request([]) == b""

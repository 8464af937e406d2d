"""Ordinary log lines keep what was said, name their span, and cannot be broken by what is logged or by an outage."""

import io
import json
import logging
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import InMemoryLogRecordExporter, SimpleLogRecordProcessor
from opentelemetry.sdk.trace import TracerProvider

from telemetry import names
from telemetry.logs import EXPORTING, QUIET_S, LogOutput

LOG = logging.getLogger("service.somewhere")
EXPORTER_LOG = logging.getLogger("opentelemetry.exporter.otlp.test")


class Written:
    """A log output of the test's own."""

    def __init__(self, *, is_daemon: bool) -> None:
        self._stream = io.StringIO()
        self._exporter = InMemoryLogRecordExporter()
        self.output = LogOutput(lambda: self._stream, is_daemon=is_daemon)

    def export(self) -> None:
        """Export too."""
        provider = LoggerProvider(shutdown_on_exit=False)
        provider.add_log_record_processor(SimpleLogRecordProcessor(self._exporter))
        self.output.export(provider)

    def text(self) -> str:
        """Return what was written."""
        return self._stream.getvalue()

    def lines(self) -> Sequence[dict[str, Any]]:
        """Return the JSON lines."""
        return [json.loads(line) for line in self.text().splitlines()]

    def exported(self) -> Sequence[Any]:
        """Return what was exported."""
        return [one.log_record for one in self._exporter.get_finished_logs()]


@pytest.fixture
def daemon() -> Iterator[Written]:
    """The output of a daemon."""
    written = Written(is_daemon=True)
    yield written
    written.output.close()


@pytest.fixture
def command() -> Iterator[Written]:
    """The output of a command."""
    written = Written(is_daemon=False)
    yield written
    written.output.close()


def test_a_daemon_writes_one_json_object_a_line(daemon: Written) -> None:
    """Every line is one object with time, level, logger and message; line breaks in a message stay inside it."""
    LOG.info("two\nlines of %s", "text")
    LOG.debug("not this")
    (line,) = daemon.lines()
    assert line.items() >= {"level": "INFO", "logger": "service.somewhere", "message": "two\nlines of text"}.items()
    assert line["time"].endswith("+00:00")
    assert "trace_id" not in line


def test_a_line_names_the_span_in_which_it_was_logged(daemon: Written) -> None:
    """Trace and span id lead from a line to its trace."""
    with TracerProvider(shutdown_on_exit=False).get_tracer("test").start_as_current_span("work") as span:
        LOG.warning("inside")
    (line,) = daemon.lines()
    assert line["trace_id"] == f"{span.get_span_context().trace_id:032x}"
    assert line["span_id"] == f"{span.get_span_context().span_id:016x}"


def test_an_exception_is_part_of_its_line(daemon: Written) -> None:
    """A stack trace does not spill over more lines."""
    LOG.error("it broke", exc_info=OSError("disk full"))
    (line,) = daemon.lines()
    assert line["level"] == "ERROR"
    assert "OSError: disk full" in line["exception"]


@pytest.mark.parametrize("text", ["\ud800", "\x00\x1b[31m", "\u2028", "…"])
def test_any_text_can_be_logged(daemon: Written, text: str) -> None:
    """Lone surrogates, control and line characters neither break the line nor the exporter."""
    daemon.export()
    LOG.warning("name: %s", text)
    assert [line["message"] for line in daemon.lines()] == [f"name: {text}"]
    assert "\x1b" not in daemon.text()
    (record,) = daemon.exported()
    record.body.encode()


def test_a_command_says_only_what_people_need(command: Written) -> None:
    """A command writes warnings and errors, plain, and nothing else."""
    LOG.info("not this")
    LOG.warning("the archive is %s", "old")
    assert command.text() == "auditrace: the archive is old\n"


def test_lines_are_exported_with_span_severity_and_place(daemon: Written) -> None:
    """An exported line carries its message, severity, span, place in the code and exception, by the conventions."""
    daemon.export()
    with TracerProvider(shutdown_on_exit=False).get_tracer("test").start_as_current_span("work") as span:
        LOG.error("number %d", 7, exc_info=ValueError("seven"))
    (record,) = daemon.exported()
    assert (record.body, record.severity_text, record.severity_number.value) == ("number 7", "ERROR", 17)
    assert record.span_id == span.get_span_context().span_id
    assert record.attributes[names.CODE_FUNCTION_NAME] == test_lines_are_exported_with_span_severity_and_place.__name__
    assert record.attributes[names.EXCEPTION_TYPE] == "ValueError"
    assert record.attributes[names.EXCEPTION_MESSAGE] == "seven"
    assert "ValueError: seven" in record.attributes[names.EXCEPTION_STACKTRACE]


@pytest.mark.parametrize(
    ("level", "text", "number"),
    [(25, "INFO", 9), (logging.WARNING, "WARN", 13), (logging.CRITICAL, "FATAL", 21)],
)
def test_levels_become_the_standard_s_severities(daemon: Written, level: int, text: str, number: int) -> None:
    """A level of Python's becomes the severity that the log data model has for it; one in between, the lower."""
    daemon.export()
    LOG.log(level, "said")
    (record,) = daemon.exported()
    assert (record.severity_text, record.severity_number.value) == (text, number)


@pytest.mark.parametrize("name", EXPORTING)
def test_what_exporters_say_is_never_exported(daemon: Written, name: str) -> None:
    """An exporter that cannot send must not send about it; standard error has it."""
    daemon.export()
    logging.getLogger(f"{name}.connection").error("refused")
    assert daemon.exported() == []
    assert [line["message"] for line in daemon.lines()] == ["refused"]


def test_an_outage_of_the_collector_does_not_flood_the_log(daemon: Written, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of what an exporter repeats, one a minute passes, and says how many were held back; others pass meanwhile."""
    now = [1_000_000.0]
    monkeypatch.setattr("logging.time.time", lambda: now[0])
    monkeypatch.setattr("logging.time.time_ns", lambda: int(now[0] * 1e9), raising=False)
    for attempt in range(100):
        EXPORTER_LOG.warning("attempt %d failed", attempt)
    EXPORTER_LOG.warning("another matter")
    now[0] += QUIET_S
    EXPORTER_LOG.warning("attempt %d failed", 100)
    said = [(line["message"], line.get("held_back")) for line in daemon.lines()]
    assert said == [("attempt 0 failed", None), ("another matter", None), ("attempt 100 failed", 99)]


def test_the_service_itself_is_never_held_back(daemon: Written) -> None:
    """Our own lines all pass, however often."""
    for _ in range(3):
        LOG.warning("a run was reclaimed")
    assert len(daemon.lines()) == 3


def test_there_is_one_output_at_a_time(daemon: Written, command: Written) -> None:
    """A second output takes the place of the first, so that no line is written twice."""
    LOG.warning("once")
    assert (daemon.text(), command.text()) == ("", "auditrace: once\n")


def test_a_stream_that_breaks_does_not_break_the_service() -> None:
    """A line that cannot be written is no reason to fail what was doing the work."""

    def closed() -> io.StringIO:
        raise ValueError("I/O operation on closed file")

    output = LogOutput(closed, is_daemon=True)
    LOG.warning("into the void")
    output.close()


def test_exporting_can_stop_before_the_end(daemon: Written) -> None:
    """After `stop_exporting` lines still reach the stream."""
    daemon.export()
    daemon.output.stop_exporting()
    LOG.warning("late")
    assert daemon.exported() == []
    assert len(daemon.lines()) == 1


def test_closing_leaves_logging_as_it_was() -> None:
    """Handlers and level of the root logger are what they were before."""
    root = logging.getLogger()
    before = (list(root.handlers), root.level, logging.getLogger("httpx").level)
    written = Written(is_daemon=True)
    written.export()
    written.output.close()
    assert (list(root.handlers), root.level, logging.getLogger("httpx").level) == before
    LOG.warning("afterwards")
    assert written.text() == ""

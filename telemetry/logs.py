"""Writes ordinary log lines to standard error, and through the Logs API where an exporter is configured.

Audit records never pass through here (docs/adr/0001).
"""

import json
import logging
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import IO, Final

from opentelemetry._logs import LoggerProvider, LogRecord, SeverityNumber
from opentelemetry.context import get_current
from opentelemetry.trace import get_current_span
from opentelemetry.util.types import AnyValue

from telemetry import names
from telemetry.exceptions import attributes_of_exception, printable
from telemetry.urls import hidden

# The loggers of exporters and their transports. Exporting their lines would make them log more lines.
EXPORTING: Final = ("opentelemetry", "grpc", "httpcore", "httpx", "requests", "urllib3")

QUIET_S: Final = 60.0
_CHATTY: Final = ("httpcore", "httpx", "urllib3")

# Source: OpenTelemetry log data model, SeverityNumber.
_SEVERITIES: Final = (
    (logging.CRITICAL, SeverityNumber.FATAL, "FATAL"),
    (logging.ERROR, SeverityNumber.ERROR, "ERROR"),
    (logging.WARNING, SeverityNumber.WARN, "WARN"),
    (logging.INFO, SeverityNumber.INFO, "INFO"),
    (0, SeverityNumber.DEBUG, "DEBUG"),
)


class LogOutput:
    """The log handlers of this process, on the root logger until `close`. There is one such output at a time."""

    def __init__(self, stream: Callable[[], IO[str]], *, is_daemon: bool) -> None:
        """Write to the stream that `stream` returns: JSON lines from INFO up for a daemon, warnings for a command."""
        self._root = logging.getLogger()
        for handler in [one for one in self._root.handlers if isinstance(one, StreamHandler | ExportingHandler)]:
            self._root.removeHandler(handler)
        self._stream_handler = StreamHandler(stream)
        self._stream_handler.setFormatter(JsonFormatter() if is_daemon else _LineFormatter("auditrace: %(message)s"))
        self._stream_handler.addFilter(RepetitionFilter())
        self._exporting: ExportingHandler | None = None
        levels: dict[str | None, int] = dict.fromkeys(_CHATTY, logging.WARNING)
        levels[None] = logging.INFO if is_daemon else logging.WARNING
        self._levels_before = {name: logging.getLogger(name).level for name in levels}
        _set_levels(levels)
        self._root.addHandler(self._stream_handler)

    def export(self, provider: LoggerProvider) -> None:
        """Also emit through this provider."""
        self._exporting = ExportingHandler(provider)
        self._root.addHandler(self._exporting)

    def stop_exporting(self) -> None:
        """Write to the stream only. Call this before the provider shuts down."""
        if self._exporting is not None:
            self._root.removeHandler(self._exporting)

    def close(self) -> None:
        """Remove the handlers; later log lines go where they went before."""
        self.stop_exporting()
        self._root.removeHandler(self._stream_handler)
        _set_levels(self._levels_before)


class StreamHandler(logging.Handler):
    """Writes lines to a stream that is looked up for each line, because standard error may be replaced."""

    def __init__(self, stream: Callable[[], IO[str]]) -> None:
        super().__init__()
        self._stream = stream

    def emit(self, record: logging.LogRecord) -> None:
        """Write the line at once."""
        try:
            stream = self._stream()
            stream.write(self.format(record) + "\n")
            stream.flush()
        except Exception:  # noqa: BLE001 - the contract of logging.Handler: report every error and continue
            self.handleError(record)


class JsonFormatter(logging.Formatter):
    """Formats a line as one JSON object, with the ids of the span that is current when the line is logged."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line; characters that a line cannot hold are escaped."""
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="microseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": hidden(record.getMessage()),
        }
        span = get_current_span().get_span_context()
        if span.is_valid:
            line["trace_id"] = f"{span.trace_id:032x}"
            line["span_id"] = f"{span.span_id:016x}"
        if record.exc_info:
            line["exception"] = hidden(self.formatException(record.exc_info))
        held_back = record.__dict__.get("held_back")
        if held_back:
            line["held_back"] = held_back
        return json.dumps(line)


class _LineFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return hidden(super().format(record))


class RepetitionFilter(logging.Filter):
    """Lets each message of an exporter pass once a minute, so that an outage of the collector does not flood the log.

    The next message that passes carries the number of those that were held back.
    """

    def __init__(self) -> None:
        super().__init__()
        self._seen: dict[tuple[str, str], tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether the record passes; records of the service itself always pass."""
        if not _is_of_exporter(record):
            return True
        key = (record.name, str(record.msg))
        passed_at, held_back = self._seen.get(key, (float("-inf"), 0))
        if record.created - passed_at < QUIET_S:
            self._seen[key] = (passed_at, held_back + 1)
            return False
        self._seen[key] = (record.created, 0)
        record.__dict__["held_back"] = held_back
        return True


class ExportingHandler(logging.Handler):
    """Emits log lines through the OpenTelemetry Logs API, except those of exporters."""

    def __init__(self, provider: LoggerProvider) -> None:
        super().__init__()
        self._provider = provider
        self.addFilter(lambda record: not _is_of_exporter(record))

    def emit(self, record: logging.LogRecord) -> None:
        """Pass the line to the SDK; an error is reported on standard error."""
        try:
            _, number, text = next(entry for entry in _SEVERITIES if record.levelno >= entry[0])
            self._provider.get_logger(record.name).emit(
                LogRecord(
                    timestamp=int(record.created * 1e9),
                    context=get_current(),
                    severity_number=number,
                    severity_text=text,
                    body=printable(hidden(record.getMessage())),
                    attributes=_attributes(record),
                )
            )
        except Exception:  # noqa: BLE001 - the contract of logging.Handler: report every error and continue
            self.handleError(record)


def _attributes(record: logging.LogRecord) -> Mapping[str, AnyValue]:
    attributes: dict[str, AnyValue] = {
        names.CODE_FILE_PATH: record.pathname,
        names.CODE_FUNCTION_NAME: record.funcName or "",
        names.CODE_LINE_NUMBER: record.lineno,
    }
    if record.exc_info and record.exc_info[1] is not None:
        attributes |= attributes_of_exception(record.exc_info[1])
    return attributes


def _set_levels(levels: Mapping[str | None, int]) -> None:
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)


def _is_of_exporter(record: logging.LogRecord) -> bool:
    return record.name.partition(".")[0] in EXPORTING

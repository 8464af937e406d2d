"""Exports the audit trail, oldest first, in formats of other tools. Its record is committed before its first byte."""

import asyncio
import csv
import io
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from enum import StrEnum
from typing import Final

import msgspec

from service.errors import ForbiddenError
from service.operations.base import Operation, Services, naming
from service.operations.filters import filter_text
from service.operations.steps import Decision, Step
from service.operations.tallies import LEDGER
from service.ports import Reads, RecordFilter, StoredRecord, Transaction
from service.records import AuditContext, Fact, change
from service.roles import AUDITOR, require
from telemetry import names
from telemetry.audit.body_view import view_body
from telemetry.audit.chain import rfc3339_nanos
from telemetry.audit.otlp import otlp_json
from telemetry.audit.record import Result
from telemetry.audit.request import export_request, in_lines
from telemetry.tracing import AuditedSpan

ROWS_AT_ONCE: Final = 100
"""The most records of an export that are read at a time; their text is in memory until the client has taken it."""
PAGE_BYTES: Final = 512 * 1024
"""After a page with more bytes than this, fewer records are read at a time."""
PIECE_BYTES: Final = 64 * 1024
"""The most bytes that are handed to the connection at a time."""


class ExportFormat(StrEnum):
    """The formats of an export: lines of OTLP JSON as in the archive, lines of bodies, or a table."""

    OTLP_JSON = "otlp-json"
    JSONL = "jsonl"
    CSV = "csv"


class AuditExport(Operation):
    """The exports of one request. Every reader, also `admin`, gets the records of its own tenant only.

    Raises (each method):
        RefusedError: refused; the record of the refusal is committed.
        TryLaterError: the export cannot be recorded, or its first records cannot be read; nothing is returned.
    """

    def __init__(
        self,
        services: Services,
        context: AuditContext,
        span: AuditedSpan,
        reads: Reads,
        threads: Executor,
    ) -> None:
        """Export for one request; records are read and written in `threads`, which no other kind of request needs."""
        super().__init__(services, context, span)
        self._reads = reads
        self._threads = threads

    async def begin(self, where: RecordFilter, form: ExportFormat) -> AsyncIterator[bytes]:
        """Record the export and return its bytes, part by part.

        The export holds no record that is committed after this method returns. It holds its own record, if that
        matches. When the iterator raises, the export is incomplete, and its receiver must not use it as complete.
        """

        def decide(_transaction: Transaction, _now_ns: int) -> Decision[None]:
            require(self.context.roles, AUDITOR)
            if where.tenant_id not in {None, self.context.tenant_id}:
                raise ForbiddenError("this credential exports the records of its own tenant only")
            fact = Fact(
                event_name=names.EVENT_AUDIT_EXPORT,
                target=LEDGER,
                result=Result.SUCCESS,
                changes={"filter": change(None, filter_text(where)), "format": change(None, form.value)},
            )
            return Decision([Step(fact=fact)], None)

        begun = await self.attempt(names.EVENT_AUDIT_EXPORT, LEDGER, decide)
        own = msgspec.structs.replace(where, tenant_id=self.context.tenant_id)
        # Read before the answer begins, so that the client gets an error when the database is not reachable.
        with naming(begun.receipt):
            first = await self._page(own, WRITERS[form], None, ROWS_AT_ONCE)
        return self._pieces(own, WRITERS[form], first)

    async def _pieces(self, where: RecordFilter, write: "Writer", page: "_Page") -> AsyncIterator[bytes]:
        while True:
            for begin in range(0, len(page.text), PIECE_BYTES):
                yield page.text[begin : begin + PIECE_BYTES]
            if page.next_cursor is None:
                return
            page = await self._page(where, write, page.next_cursor, _fitting(page))

    async def _page(self, where: RecordFilter, write: "Writer", cursor: str | None, rows: int) -> "_Page":
        def page() -> _Page:
            found = self._reads.stored(where, cursor, rows)
            return _Page(write(found.rows, cursor is None), rows, found.next_cursor)

        return await asyncio.get_running_loop().run_in_executor(self._threads, page)


class _Page(msgspec.Struct, frozen=True):
    """The text of records, how many were asked for, and where the next ones begin."""

    text: bytes
    rows: int
    next_cursor: str | None


def _fitting(page: _Page) -> int:
    """Return how many records to read after this page, so that records of any size fit into memory."""
    if len(page.text) > PAGE_BYTES:
        return max(1, page.rows * PAGE_BYTES // len(page.text))
    return min(ROWS_AT_ONCE, page.rows * 2)


Writer = Callable[[Sequence[StoredRecord], bool], bytes]
"""Returns records in one format; the second argument says whether they are the first."""


def otlp_lines(records: Sequence[StoredRecord], _is_first: bool) -> bytes:
    """Return lines of OTLP JSON, as the collector's file exporter writes them and `auditrace verify` reads them."""
    return b"".join(otlp_json(export_request(part)) + b"\n" for part in in_lines(records))


def body_lines(records: Sequence[StoredRecord], _is_first: bool) -> bytes:
    """Return a line for each record: its canonical body. The record hash is the SHA-256 of it."""
    return b"".join(record.record.body.encode() + b"\n" for record in records)


COLUMNS: Final[Mapping[str, str]] = {
    "actor_id": names.AUDIT_ACTOR_ID,
    "actor_type": names.AUDIT_ACTOR_TYPE,
    "action": names.AUDIT_ACTION,
    "outcome": names.AUDIT_OUTCOME,
    "result": names.AUDITRACE_RESULT,
    "target_type": names.AUDIT_TARGET_TYPE,
    "target_id": names.AUDIT_TARGET_ID,
    "tenant_id": names.AUDITRACE_TENANT_ID,
    "job_id": names.AUDITRACE_JOB_ID,
    "request_id": names.AUDITRACE_REQUEST_ID,
    "client_address": names.CLIENT_ADDRESS,
    "reason": names.AUDITRACE_REASON,
    "changes": names.AUDITRACE_CHANGES,
}
# At the end, so that readers by position find the columns of earlier versions where they were.
LATER_COLUMNS: Final[Mapping[str, str]] = {
    "initiator_id": names.AUDITRACE_INITIATOR_ID,
    "template": names.AUDITRACE_JOB_TEMPLATE,
    "run": names.AUDITRACE_JOB_RUN,
    "user_agent": names.USER_AGENT_ORIGINAL,
}
_PLACE: Final = ("record_id", "stream_id", "sequence_number", "record_hash", "event_name")
_TRACE: Final = ("trace_id", "span_id")
# Spreadsheets read a text with this beginning as a formula (OWASP, "CSV Injection").
_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r")


def csv_rows(records: Sequence[StoredRecord], is_first: bool) -> bytes:
    """Return rows of CSV (RFC 4180) for a spreadsheet, not for verification. The first rows begin with the header.

    A text that a spreadsheet would read as a formula gets an apostrophe in front.
    """
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    if is_first:
        writer.writerow([*_PLACE, "timestamp", "observed_timestamp", *COLUMNS, *_TRACE, *LATER_COLUMNS])
    writer.writerows([_cell(value) for value in _values(record)] for record in records)
    return text.getvalue().encode()


def _values(record: StoredRecord) -> Iterator[object]:
    row, body = record.record, view_body(record.record.body)
    yield from (getattr(row, name) for name in _PLACE)
    yield body.timestamp
    yield rfc3339_nanos(row.observed_ns)
    yield from (body.attributes.get(name, "") for name in COLUMNS.values())
    yield body.trace_id
    yield body.span_id
    yield from (body.attributes.get(name, "") for name in LATER_COLUMNS.values())


def _cell(value: object) -> object:
    if isinstance(value, dict):
        return msgspec.json.encode(value, order="sorted").decode()
    if isinstance(value, str) and value.startswith(_FORMULA):
        return f"'{value}"
    return value


WRITERS: Final[Mapping[ExportFormat, Writer]] = {
    ExportFormat.OTLP_JSON: otlp_lines,
    ExportFormat.JSONL: body_lines,
    ExportFormat.CSV: csv_rows,
}

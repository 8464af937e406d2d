"""`auditrace export`: hand out what the database holds, oldest first, in a form that others read."""

import argparse
import os
import sys
from collections.abc import Generator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, Final

import msgspec

from service.bootstrap.clock import now_ns
from service.bootstrap.databases import database_of
from service.cli.output import print_error, printing
from service.config import read_settings
from service.errors import BrokenLedgerError, SettingsError
from service.operations.exports import ROWS_AT_ONCE, ExportFormat, Writer, body_lines, csv_rows, otlp_lines
from service.ports import Reads, RecordFilter, StoredRecord
from service.times import parse_time_ns, require_order
from telemetry.audit.ocsf import ocsf_event

OCSF: Final = "ocsf"


def ocsf_lines(records: Sequence[StoredRecord], _is_first: bool) -> bytes:
    """Return a line for each record: an event of the class API Activity."""
    return b"".join(msgspec.json.encode(ocsf_event(record.record.body)) + b"\n" for record in records)


_WRITERS: Final[Mapping[str, Writer]] = {
    ExportFormat.OTLP_JSON: otlp_lines,
    ExportFormat.JSONL: body_lines,
    ExportFormat.CSV: csv_rows,
    OCSF: ocsf_lines,
}


def add_to(parser: argparse.ArgumentParser) -> None:
    """Add what the command takes."""
    parser.description = (
        "Hand out the records of the database, oldest first, those of every tenant unless one is named. "
        "Whoever can run this can read the database itself, so it leaves no record; an export over HTTP does. "
        "The forms otlp-json and jsonl can be verified, if nothing is filtered out."
    )
    forms = parser.add_mutually_exclusive_group()
    forms.add_argument(
        "--format",
        choices=[str(form) for form in ExportFormat],
        help="lines of OTLP JSON (the default), of bodies, or a table",
    )
    forms.add_argument("--as", dest="foreign", choices=[OCSF], help="as events of another schema")
    parser.add_argument("--since", metavar="TIME", help="sealed from then on (2026-11-30, 2026-11-30T08:00:00Z, -2h)")
    parser.add_argument("--until", metavar="TIME", help="sealed before then")
    parser.add_argument("--tenant", metavar="ID", help="of this tenant only")
    parser.add_argument("--actor", metavar="ID", help="of this actor only")
    parser.add_argument("--job", metavar="ID", help="of this job only")
    parser.add_argument(
        "--output", type=Path, metavar="FILE", help="a new file, there once it is whole; else standard output"
    )
    parser.set_defaults(command=_export)


def _export(arguments: argparse.Namespace) -> int:
    where = _filter(arguments)
    write = _WRITERS[arguments.foreign or arguments.format or ExportFormat.OTLP_JSON]
    reads = database_of(read_settings().database, as_it_lies=True).reads()
    with _output(arguments.output) as output, closing(reads):
        count = _copy(reads, where, write, output)
    print_error(f"{count} records")
    return 0


def _copy(reads: Reads, where: RecordFilter, write: Writer, output: BinaryIO) -> int:
    count, cursor = 0, None
    while True:
        page = reads.stored(where, cursor, ROWS_AT_ONCE)
        try:
            output.write(write(page.rows, cursor is None))
        except (msgspec.MsgspecError, KeyError) as error:
            raise BrokenLedgerError(
                "the body of a record is not that of a record: `auditrace verify --database` names it, and the forms "
                "otlp-json and jsonl hand it out as it is"
            ) from error
        count += len(page.rows)
        cursor = page.next_cursor
        if cursor is None:
            return count


def _filter(arguments: argparse.Namespace) -> RecordFilter:
    problems: list[str] = []
    present_ns = now_ns()

    def time_ns(option: str) -> int | None:
        text: str | None = getattr(arguments, option)
        try:
            return None if text is None else parse_time_ns(text, present_ns)
        except ValueError as error:
            problems.append(f"--{option}: {error}")
            return None

    since_ns, until_ns = time_ns("since"), time_ns("until")
    try:
        require_order(since_ns, until_ns, "--since", "--until")
    except ValueError as error:
        problems.append(str(error))
    if problems:
        raise SettingsError(problems)
    return RecordFilter(
        tenant_id=arguments.tenant,
        actor_id=arguments.actor,
        job_id=arguments.job,
        since_ns=since_ns,
        until_ns=until_ns,
    )


@contextmanager
def _output(path: Path | None) -> Generator[BinaryIO]:
    """Yield where to write; a file has its name only once everything is on disk."""
    if path is None:
        with printing():
            yield sys.stdout.buffer
            sys.stdout.buffer.flush()
        return
    if os.path.lexists(path):
        raise SettingsError([f"{path} exists: name a new file"])
    part = path.with_name(f".{path.name}.part")
    try:
        with part.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        part.rename(path)
    except FileExistsError as error:
        raise SettingsError([f"{part} exists: another export writes it, or one was killed; remove it"]) from error
    except OSError as error:
        with suppress(OSError):
            part.unlink()
        raise SettingsError([f"{path} cannot be written: {error.strerror}"]) from error
    except BaseException:
        part.unlink(missing_ok=True)
        raise

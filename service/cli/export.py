"""`auditrace export`: write the records of the database, oldest first, in a format that other programs read."""

import argparse
import os
import sys
from collections.abc import Generator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, Final

import msgspec

from service.bootstrap.clock import now_ns
from service.bootstrap.databases import database_of
from service.cli.arguments import parsed, require_none
from service.cli.output import print_error, printing
from service.config import read_settings
from service.errors import BrokenLedgerError, SettingsError
from service.operations.exports import ROWS_AT_ONCE, WRITERS, ExportFormat, Writer
from service.operations.filters import filter_of
from service.ports import Reads, RecordFilter, StoredRecord
from service.times import parse_time_ns, require_order
from telemetry.audit.ocsf import ocsf_event
from telemetry.files import open_private

OCSF: Final = "ocsf"
_OPTIONS: Final = {
    "tenant_id": "--tenant",
    "actor_id": "--actor",
    "job_id": "--job",
    "since_ns": "--since",
    "until_ns": "--until",
}


def ocsf_lines(records: Sequence[StoredRecord], _is_first: bool) -> bytes:
    """Return a line for each record: an OCSF event of the class API Activity."""
    return b"".join(msgspec.json.encode(ocsf_event(record.record.body)) + b"\n" for record in records)


def add_to(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    parser.description = (
        "Write the records of the database, oldest first, of all tenants unless --tenant is given. This export leaves "
        "no audit record, because a user who can run it can also read the database; an export over HTTP leaves one. "
        "Exports in the formats otlp-json and jsonl can be verified, if no filter is given."
    )
    forms = parser.add_mutually_exclusive_group()
    forms.add_argument(
        "--format",
        choices=[str(form) for form in ExportFormat],
        help="lines of OTLP JSON (the default), lines of record bodies, or a table",
    )
    forms.add_argument("--as", dest="foreign", choices=[OCSF], help="write events of another schema")
    parser.add_argument(
        "--since", metavar="TIME", help="only records sealed at or after TIME (2026-11-30, 2026-11-30T08:00:00Z, -2h)"
    )
    parser.add_argument("--until", metavar="TIME", help="only records sealed before TIME")
    parser.add_argument("--tenant", metavar="ID", help="only records of this tenant")
    parser.add_argument("--actor", metavar="ID", help="only records of this actor")
    parser.add_argument("--job", metavar="ID", help="only records of this job")
    parser.add_argument(
        "--where",
        action="append",
        default=[],
        metavar="FILTER=VALUE",
        help="only records that match this filter of GET /v1/audit/records, for example not_result=success, "
        "event_name=job.*, q=disk or include_trail=false; repeat it for more filters, or for more values of one",
    )
    parser.add_argument(
        "--output",
        type=Path,
        metavar="FILE",
        help="write to this new file, which appears when it is complete; default: standard output",
    )
    parser.set_defaults(command=_export)


def _export(arguments: argparse.Namespace) -> int:
    where = _filter(arguments)
    write = ocsf_lines if arguments.foreign else WRITERS[ExportFormat(arguments.format or ExportFormat.OTLP_JSON)]
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
                "the body of a record is damaged: `auditrace verify --database` names the record, and the formats "
                "otlp-json and jsonl export it unchanged"
            ) from error
        count += len(page.rows)
        cursor = page.next_cursor
        if cursor is None:
            return count


def _filter(arguments: argparse.Namespace) -> RecordFilter:
    problems: list[str] = []
    present_ns = now_ns()

    def time_ns(text: str) -> int:
        return parse_time_ns(text, present_ns)

    since_ns = parsed(time_ns, arguments.since, "--since", problems)
    until_ns = parsed(time_ns, arguments.until, "--until", problems)
    where = parsed(lambda stated: filter_of(map(_pair, stated), present_ns), arguments.where, "--where", problems)
    options: dict[str, Any] = {
        "tenant_id": arguments.tenant,
        "actor_id": None if arguments.actor is None else (arguments.actor,),
        "job_id": None if arguments.job is None else (arguments.job,),
        "since_ns": since_ns,
        "until_ns": until_ns,
    }
    stated = {name: value for name, value in options.items() if value is not None}
    problems += [
        f"{_OPTIONS[name]} and --where {name.removesuffix('_ns')}=… state the same filter: give one of them"
        for name in stated
        if where is not None and getattr(where, name)
    ]
    found = msgspec.structs.replace(where or RecordFilter(), **stated)
    try:
        require_order(found.since_ns, found.until_ns, "--since", "--until")
    except ValueError as error:
        problems.append(str(error))
    require_none(problems)
    return found


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals:
        raise ValueError(f"{text}: write the name of a filter, = and a value")
    return name, value


@contextmanager
def _output(path: Path | None) -> Generator[BinaryIO]:
    """Yield the file to write to. A named file gets its name only when everything is on disk."""
    if path is None:
        with printing():
            yield sys.stdout.buffer
            sys.stdout.buffer.flush()
        return
    if os.path.lexists(path):
        raise SettingsError([f"{path} exists: name a new file"])
    part = path.with_name(f".{path.name}.part")
    try:
        with open(part, "xb", opener=open_private) as file:
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

"""`auditrace demo`: a story on a real server, then its audit records and the result of verifying them."""

import argparse
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from service.bootstrap.node import open_node
from service.cli.invocation import invocation_at
from service.cli.output import print_answer, print_error, print_line, table
from service.cli.story import CAST, DemoError, Story
from service.config import Settings, read_settings, shipped_templates
from service.jobs.model import DEFAULT_TENANT
from service.jobs.texts import visible
from service.keyfiles import SigningKeys
from service.processes.serve import LISTENING
from service.records import Invocation
from telemetry import names
from telemetry.audit.verify import read_copy, verify
from telemetry.files import make_private_folder, open_private

_STOP_S: Final = 60
_OLD_S: Final = 40 * 24 * 3600


def add_to(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    parser.description = (
        "Start a new server in a temporary folder, send it the requests of four people, and show the audit records of "
        "these requests with the result of `auditrace verify`."
    )
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="use this new folder for the data, and keep it")
    parser.add_argument(
        "--json", action="store_true", help="print records and report as JSON, and the story on standard error"
    )
    parser.set_defaults(command=_demo)


def _demo(arguments: argparse.Namespace) -> int:
    with _folder(arguments.keep) as folder:
        settings = _settings(folder)
        with _serving(folder, settings) as url, tempfile.TemporaryDirectory(prefix="auditrace-demo-") as stage:
            forgotten = Path(stage) / "forgotten.log"
            forgotten.write_text("nobody needs this\n")
            modified_s = forgotten.stat().st_mtime - _OLD_S
            os.utime(forgotten, (modified_s, modified_s))
            # With --json, standard output holds one document only.
            say = print_error if arguments.json else print_line
            story = Story(url, _keys(settings, invocation_at(arguments, settings)), Path(stage), say)
            try:
                records = story.records(story.tell())
            except DemoError as error:
                print_error(f"auditrace: the demo went wrong: {error}")
                return 1
            finally:
                story.close()
        key = SigningKeys(settings.signing_key).open(may_create=False).public_key
        report = verify(read_copy([settings.archive.parent]), public_keys=[key])
    document = {"records": records, "report": report}
    print_answer(arguments, document, ["\nThe records of these jobs:\n", *_table(records), f"\n{report.summary()}"])
    return report.exit_status


def _settings(folder: Path) -> Settings:
    environment = {
        **os.environ,  # noqa: TID251 - the server that is started gets this environment, changed
        "AUDITRACE_DATABASE": f"sqlite:///{folder}/auditrace.db",
        "AUDITRACE_AUDIT_ARCHIVE": str(folder / "archive" / "audit.jsonl"),
        "AUDITRACE_SIGNING_KEY": str(folder / "keys" / "signing.pem"),
        "AUDITRACE_LEDGER_SECRET": str(folder / "keys" / "ledger.secret"),
        "AUDITRACE_ADMIN_KEY": str(folder / "keys" / "admin.key"),
        "AUDITRACE_TEMPLATES": str(shipped_templates()),
        "AUDITRACE_AUDIT_ENDPOINT": "",
        "OTEL_EXPORTER_OTLP_ENDPOINT": "",
        "OTEL_EXPORTER_OTLP_LOGS_ENDPOINT": "",
    }
    return read_settings(environment)


@contextmanager
def _folder(keep: Path | None) -> Generator[Path]:
    if keep is not None:
        yield keep.absolute()
        return
    with tempfile.TemporaryDirectory(prefix="auditrace-demo-") as folder:
        yield Path(folder)


@contextmanager
def _serving(folder: Path, settings: Settings) -> Generator[str]:
    """Run `auditrace serve` within the block; the end of the block waits until every record is delivered."""
    make_private_folder(folder)
    with open(folder / "server.log", "ab", opener=open_private) as log:
        server = subprocess.Popen(
            [sys.executable, "-m", "service", "serve", "--port", "0"],
            env=dict(settings.environment),
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
    try:
        yield _url(server, folder / "server.log")
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait(_STOP_S)


def _url(server: "subprocess.Popen[str]", log: Path) -> str:
    for line in server.stdout or ():
        if line.startswith(LISTENING):
            return line.removeprefix(LISTENING).strip()
    raise DemoError(f"the server did not start: {log.read_text(errors='replace')[-2000:]}")


def _keys(settings: Settings, invocation: Invocation) -> Mapping[str, str]:
    with open_node(settings, "cli", invocation) as node, node.key_operations() as operations:
        return {name: operations.create(name, roles.split(), DEFAULT_TENANT).value.key for name, roles in CAST.items()}


def _table(records: Sequence[Mapping[str, Any]]) -> list[str]:
    rows = [
        (
            record["timestamp"][11:23],
            record["event_name"],
            _who(record["attributes"]),
            record["attributes"][names.AUDITRACE_RESULT],
            visible(record["attributes"].get(names.AUDITRACE_REASON, _status(record["attributes"])))[:44],
            record["trace_id"],
        )
        for record in records
    ]
    return table(("TIME", "EVENT", "WHO", "RESULT", "WHAT", "TRACE"), rows)


def _who(attributes: Mapping[str, Any]) -> str:
    initiator = attributes.get(names.AUDITRACE_INITIATOR_ID)
    return f"{initiator} by worker" if initiator else str(attributes[names.AUDIT_ACTOR_ID])


def _status(attributes: Mapping[str, Any]) -> str:
    status = attributes.get(names.AUDITRACE_CHANGES, {}).get("status", {})
    return f"{status.get('from', '')} → {status['to']}".strip() if "to" in status else ""

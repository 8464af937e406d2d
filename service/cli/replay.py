"""`auditrace relay --replay-all`: send all delivered records to a new sink."""

import argparse
import sys
from typing import Final

from service.cli.invocation import invocation_at
from service.cli.output import print_answer, print_error
from service.config import examine_settings
from service.ports import OutboxRecord
from service.processes.alone import ReplayedAll, replay_all

_LISTED: Final = 1000
"""How many refused records a JSON document lists."""


def replay(arguments: argparse.Namespace) -> int:
    """Send the records, show the progress on standard error, and return the exit status."""
    shown = _Shown()
    settings = examine_settings()
    done = replay_all(settings, invocation_at(arguments, settings), shown, from_start=arguments.from_start)
    shown.end()
    print_answer(arguments, _document(done, shown.refused_records), _lines(done))
    if done.replayed.reason is not None:
        print_error(f"auditrace: stopped before the end: {done.replayed.reason}")
        print_error("  Run the same command again: it goes on where this one stopped.")
    return 1 if done.replayed.reason is not None or done.replayed.refused else 0


def refused_record(record: OutboxRecord, answer: str) -> dict[str, object]:
    """Return a record that the sink refused, with the sink's answer, as a member of a JSON document."""
    return {"stream_id": record.stream_id, "number": record.number, "record_id": record.record_id, "answer": answer}


def _lines(done: ReplayedAll) -> list[str]:
    replayed = done.replayed
    before = f", {replayed.earlier} by an earlier run" if replayed.earlier else ""
    lines = [
        f"{replayed.accepted} of {replayed.total} delivered records were sent again{before}",
        f"from the ledger {done.place} to {done.address}",
    ]
    if replayed.refused:
        lines.append(f"{replayed.refused} were refused alone, and are missing there")
    if done.parked:
        lines.append(f"{done.parked} parked records were left out: see `auditrace relay --retry-parked`")
    if done.undelivered:
        lines.append(f"{done.undelivered} are not delivered yet: a relay delivers them to the sink of its own settings")
    return lines


def _document(done: ReplayedAll, refused: list[dict[str, object]]) -> dict[str, object]:
    replayed = done.replayed
    return {
        "from": done.place,
        "to": done.address,
        "accepted": replayed.accepted,
        "earlier": replayed.earlier,
        "total": replayed.total,
        "refused": replayed.refused,
        "refused_records": refused,
        "parked": done.parked,
        "undelivered": done.undelivered,
        "reason": replayed.reason,
    }


class _Shown:
    """A `ReplayObserver` that shows one line with counts on a terminal, else a line for each tenth of the records."""

    def __init__(self) -> None:
        self.refused_records: list[dict[str, object]] = []
        self._is_terminal = sys.stderr.isatty()
        self._tenth = -1

    def progressed(self, done: int, total: int) -> None:
        """Show how many were sent."""
        tenth = 10 * done // total if total else 10
        progress = f"{done} of {total} delivered records were sent again"
        if self._is_terminal:
            sys.stderr.write(f"\r\x1b[K{progress}")
        elif tenth > self._tenth:
            sys.stderr.write(f"{progress}\n")
        self._tenth = tenth
        sys.stderr.flush()

    def refused(self, record: OutboxRecord, answer: str) -> None:
        """Show which record was refused."""
        self.end()
        sys.stderr.write(f"refused: {record.stream_id}:{record.number} {record.record_id}: {answer}\n")
        if len(self.refused_records) < _LISTED:
            self.refused_records.append(refused_record(record, answer))

    def end(self) -> None:
        """Erase the line that counts."""
        if self._is_terminal:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()

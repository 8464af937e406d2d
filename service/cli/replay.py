"""`auditrace relay --replay-all`: fill a sink that is new with everything that was delivered before."""

import sys
from typing import Final

from service.cli.output import print_json, print_line
from service.config import examine_settings
from service.ports import OutboxRecord
from service.processes.alone import ReplayedAll, replay_all

_LISTED: Final = 1000
"""How many records that are refused a JSON document lists."""


def replay(*, from_start: bool, as_json: bool) -> int:
    """Send the records, show how it goes on standard error, and return the exit status."""
    shown = _Shown()
    done = replay_all(examine_settings(), shown, from_start=from_start)
    shown.end()
    if as_json:
        print_json(_document(done, shown.refused_records))
    else:
        _print(done)
    if done.replayed.reason is not None:
        sys.stderr.write(
            f"auditrace: stopped before the end: {done.replayed.reason}\n"
            "  Run the same command again: it goes on where this one stopped.\n"
        )
    return 1 if done.replayed.reason is not None or done.replayed.refused else 0


def _print(done: ReplayedAll) -> None:
    replayed = done.replayed
    before = f", {replayed.earlier} by an earlier run" if replayed.earlier else ""
    print_line(f"{replayed.accepted} of {replayed.total} delivered records were sent again{before}")
    print_line(f"from the ledger {done.place} to {done.address}")
    if replayed.refused:
        print_line(f"{replayed.refused} were refused alone, and are missing there")
    if done.parked:
        print_line(f"{done.parked} parked records were left out: see `auditrace relay --retry-parked`")
    if done.undelivered:
        print_line(f"{done.undelivered} are not delivered yet: a relay delivers them to the sink of its own settings")


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
        if self._is_terminal:
            sys.stderr.write(f"\r\x1b[K{_progress(done, total)}")
        elif tenth > self._tenth:
            sys.stderr.write(_progress(done, total) + "\n")
        self._tenth = tenth
        sys.stderr.flush()

    def refused(self, record: OutboxRecord, answer: str) -> None:
        """Show which record was refused."""
        self.end()
        sys.stderr.write(f"refused: {record.stream_id}:{record.number} {record.record_id}: {answer}\n")
        if len(self.refused_records) < _LISTED:
            place = {"stream_id": record.stream_id, "number": record.number, "record_id": record.record_id}
            self.refused_records.append({**place, "answer": answer})

    def end(self) -> None:
        """Leave no half line behind."""
        if self._is_terminal:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()


def _progress(done: int, total: int) -> str:
    return f"{done} of {total} delivered records were sent again"

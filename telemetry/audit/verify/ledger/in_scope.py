"""Which records of each stream the scope asks for: all of them, or those behind what a window leaves out."""

from typing import Final

from telemetry.audit.verify.ledger.coverage import Anchor, Coverage
from telemetry.audit.verify.record.rows import key_of
from telemetry.audit.verify.scope import Scope

_NEVER: Final = 2**64


class InScope:
    """Tells which records are in the scope, after all checkpoints were taken in; streams are named by their keys."""

    def __init__(self, scope: Scope, coverage: Coverage) -> None:
        self._scope = scope
        self._coverage = coverage
        self._covered = None if scope.covered is None else {key_of(one)[0]: at for one, at in scope.covered.items()}
        self._begins: dict[bytes, int] = {}

    def begin_of(self, stream: bytes, first: Anchor | None) -> int | None:
        """Return the number of a stream behind which the scope begins; None when only times can tell.

        `first` is the first tip of the stream behind the start.
        """
        coverage = self._coverage
        if not self._scope.is_window or (coverage.start is None and coverage.last is not None):
            return 0
        if self._covered is not None:
            return self._covered.get(stream, 0)
        if stream in coverage.before:
            return coverage.before[stream]
        if coverage.has_all_before:
            return 0
        return None if first is None else first.first - 1

    def begin_by(self, stream: bytes) -> int:
        """Return the number up to which the first records of a stream may be missing.

        No earlier tip names the records that share a transaction with the checkpoint at the start. So a copy may begin
        with this checkpoint, unless the caller asked for everything behind it.
        """
        start = self._coverage.start
        if start is None or start.stream != stream or start.number == self._scope.behind:
            return 0
        return start.place

    def keep(self, stream: bytes, begin: int) -> None:
        """Keep the number behind which a stream begins, for `holds`."""
        if not self._scope.is_everything:
            self._begins[stream] = begin

    def holds(self, stream: bytes, number: int) -> bool:
        """Tell whether a record is in the scope; a stream without a `keep` has no records in it."""
        return self._scope.is_everything or number > self._begins.get(stream, _NEVER)

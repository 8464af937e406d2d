"""The answer of a verification: its findings, its counts, its verdict (docs/audit-format.md, section 7)."""

from typing import Final, Literal, TypeAlias

import msgspec

from telemetry.audit.verify.findings import Finding
from telemetry.audit.verify.named import Beginning, CopyPeriod, KeyUse, NamedCheckpoint, SeenReceipt, Window
from telemetry.audit.verify.report_text import (
    beginning_lines,
    clock_lines,
    count,
    covers_lines,
    finding_line,
    key_lines,
    named,
    nothing_lines,
    other_key_lines,
    printable,
    receipt_line,
    window_lines,
)

Verdict: TypeAlias = Literal["intact", "broken", "not_checked"]

EXIT_STATUS: Final[dict[Verdict, int]] = {"intact": 0, "broken": 1, "not_checked": 2}


class Report(msgspec.Struct, frozen=True):
    """What a verification found; encodes to the JSON of `auditrace verify --json`.

    `records` are distinct record ids, `checkpoints` distinct checkpoint records. `unanchored` are the records behind
    the last tip of their stream, less the records by which other streams of the copy fall short of theirs. What came
    after `last_checkpoint` is not covered by it. `lost` are records of a time that a restore of the database left out:
    no checkpoint that counts covers them. `window` is None when everything was verified.

    `keys` are the given keys and those that rotations name, as far as they signed; `other_keys` are those by which
    checkpoints say to be signed that no key signed which may. `beginning` is None unless the copy lacks the beginning
    of the ledger and was to be verified from there.
    """

    verdict: Verdict
    signatures: Literal["checked", "not_checked"]
    findings: tuple[Finding, ...]
    records: int
    streams: int
    checkpoints: int
    unanchored: int
    lost: int
    last_checkpoint: NamedCheckpoint | None
    window: Window | None
    first_checkpoint: NamedCheckpoint | None
    covers: CopyPeriod | None
    keys: tuple[KeyUse, ...]
    other_keys: tuple[KeyUse, ...]
    receipts: tuple[SeenReceipt, ...]
    beginning: Beginning | None

    @property
    def exit_status(self) -> int:
        """0 intact, 1 broken, 2 could not check."""
        return EXIT_STATUS[self.verdict]

    def summary(self) -> str:
        """Return the report for a reader at a terminal: the verdict, what it rests on, and a line for each finding."""
        lines = [*self._verdict(), *self._basis(), *map(finding_line, self.findings), *clock_lines(self.findings)]
        return "\n".join(map(printable, lines))

    def _verdict(self) -> list[str]:
        is_checked = self.signatures == "checked"
        verdict = self.verdict if is_checked else f"{self.verdict} (signatures not_checked)"
        found = f"{count(self.records, 'record')} in {count(self.streams, 'stream')}"
        lines = [f"{verdict}: {found}, {self.unanchored} not yet anchored, {count(self.checkpoints, 'checkpoint')}"]
        if not is_checked:
            lines.append("signatures not checked: no public key given, so whoever wrote this copy may have made it up")
        lines.extend(nothing_lines(self.records, self.window))
        lines.extend(other_key_lines(self.keys, self.other_keys))
        if self.beginning is not None:
            lines.extend(beginning_lines(self.beginning))
        return lines

    def _basis(self) -> list[str]:
        last = self.last_checkpoint
        if last is None:
            lines = ["no checkpoint to rely on: nothing shows that records are complete"]
        else:
            lines = [f"last checkpoint: {named(last)}"]
        lines.extend(key_lines(self.keys))
        if self.covers is not None:
            lines.extend(covers_lines(self.covers, self.first_checkpoint, last))
        if self.lost:
            lines.append(f"left out by a restore of the database, and covered by nothing: {count(self.lost, 'record')}")
        if self.window is not None:
            lines.extend(window_lines(self.window, last))
        lines.extend(map(receipt_line, self.receipts))
        return lines

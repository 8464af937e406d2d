"""The answer of the verification of a proof (docs/audit-format.md, section 7)."""

from typing import Literal

import msgspec

from telemetry.audit.verify.findings import Finding
from telemetry.audit.verify.named import NamedCheckpoint
from telemetry.audit.verify.report import EXIT_STATUS, Verdict
from telemetry.audit.verify.report_text import finding_line, named, printable


class NamedRecord(msgspec.Struct, frozen=True):
    """The record that a proof is for; `number` is that in its stream, `time` when it was sealed."""

    record_id: str
    stream_id: str
    number: int
    hash: str
    event_name: str
    time: str


class ProofReport(msgspec.Struct, frozen=True):
    """What a proof shows; encodes to the JSON of `auditrace verify --json`.

    `checkpoint` covers the record, None while none does. `signed_by` is the fingerprint of the given key that signed
    the checkpoint, `keys` are those of all given keys, and `other_key` is the one that the proof names instead.
    """

    verdict: Verdict
    signatures: Literal["checked", "not_checked"]
    findings: tuple[Finding, ...]
    record: NamedRecord | None
    checkpoint: NamedCheckpoint | None
    signed_by: str | None
    keys: tuple[str, ...]
    other_key: str | None

    @property
    def exit_status(self) -> int:
        """0 intact, 1 broken, 2 could not check."""
        return EXIT_STATUS[self.verdict]

    def summary(self) -> str:
        """Return the report for a reader at a terminal, one line for each finding."""
        is_checked = self.signatures == "checked" or self.verdict != "intact"
        lines = [f"{self.verdict if is_checked else f'{self.verdict} (signatures not_checked)'}: {self._what()}"]
        if self.record is not None:
            record = self.record
            lines.append(f"record: {record.record_id}, {record.event_name}, sealed {record.time}, hash {record.hash}")
            lines.append(f"its place: number {record.number} of stream {record.stream_id}")
        if self.checkpoint is not None:
            by = f", signed by {self.signed_by}" if self.signed_by else ""
            lines.append(f"covered by checkpoint {named(self.checkpoint)}{by}")
        lines.extend(map(finding_line, self.findings))
        return "\n".join(map(printable, lines))

    def _what(self) -> str:
        if self.verdict == "broken":
            return "this proof proves nothing"
        if self.other_key is not None:
            return (
                f"the checkpoint is signed by {self.other_key}, you gave {', '.join(self.keys)}: verify with the key "
                "that signed then (`auditrace keys public --all`)"
            )
        if self.checkpoint is None:
            return "not yet anchored, no checkpoint covers this record: ask for its proof again after the next one"
        if self.signed_by is None:
            return "this proof agrees with itself; no public key given, so whoever wrote it may have made it up"
        return "the record is as it was sealed, and has its place in the ledger"

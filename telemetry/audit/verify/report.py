"""The answer of a verification: its findings, its counts, its verdict (docs/audit-format.md, section 7)."""

from typing import Final, Literal, TypeAlias

import msgspec

from telemetry.audit.verify.findings import Finding

Verdict: TypeAlias = Literal["intact", "broken", "not_checked"]

_EXIT_STATUS: Final[dict[Verdict, int]] = {"intact": 0, "broken": 1, "not_checked": 2}


class NamedCheckpoint(msgspec.Struct, frozen=True):
    """A checkpoint that the verification relied on; `time` is when it was made."""

    number: int
    hash: str
    time: str


class Window(msgspec.Struct, frozen=True):
    """The part of the ledger that was verified: of `streams`, if any are named, and behind the checkpoint `start`.

    What `start` says is trusted, and nothing before it was verified. Without one verification began with the first
    record of each stream; or, when the copy has no checkpoint to begin behind, with what was sealed `since` then.
    """

    since: str | None
    start: NamedCheckpoint | None
    streams: tuple[str, ...]


class Report(msgspec.Struct, frozen=True):
    """What a verification found; encodes to the JSON of `auditrace verify --json`.

    `records` are distinct record ids, `checkpoints` distinct checkpoint records. `unanchored` are the records behind
    the last tip of their stream, less the records by which other streams of the copy fall short of theirs. What came
    after `last_checkpoint` is not covered by it. `lost` are records of a time that a restore of the database left out:
    no checkpoint that counts covers them. `window` is None when everything was verified.
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
    window: Window | None = None

    @property
    def exit_status(self) -> int:
        """0 intact, 1 broken, 2 could not check."""
        return _EXIT_STATUS[self.verdict]

    def summary(self) -> str:
        """Return the report for a reader at a terminal, one line for each finding."""
        is_checked = self.signatures == "checked"
        verdict = self.verdict if is_checked else f"{self.verdict} (signatures not_checked)"
        found = f"{_count(self.records, 'record')} in {_count(self.streams, 'stream')}"
        lines = [f"{verdict}: {found}, {self.unanchored} not yet anchored, {_count(self.checkpoints, 'checkpoint')}"]
        if not is_checked:
            lines.append("signatures not checked: no public key given, so whoever wrote this copy may have made it up")
        if self.last_checkpoint is None:
            lines.append("no checkpoint to rely on: nothing shows that records are complete")
        else:
            lines.append(f"last checkpoint: {_named(self.last_checkpoint)}")
        if self.lost:
            lines.append(
                f"left out by a restore of the database, and covered by nothing: {_count(self.lost, 'record')}"
            )
        if self.window is not None:
            lines.extend(_window_lines(self.window, self.last_checkpoint))
        lines.extend(_line(finding) for finding in self.findings)
        return "\n".join(lines)


def _window_lines(window: Window, last: NamedCheckpoint | None) -> list[str]:
    if window.start is not None:
        lines = [f"verified behind checkpoint {_named(window.start)}", "what is before it is trusted, not verified"]
    elif window.since is not None and last is None:
        lines = [f"verified what was sealed since {window.since}; what is before it is trusted, not verified"]
    else:
        lines = ["verified from the first record on"]
    return [*lines, *(f"verified of stream {stream}" for stream in window.streams)]


def _named(checkpoint: NamedCheckpoint) -> str:
    return f"{checkpoint.number} of {checkpoint.time}, hash {checkpoint.hash}"


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def _line(finding: Finding) -> str:
    where = "" if finding.stream_id is None else f" {finding.stream_id} {finding.number or '-'}"
    place = "" if finding.place is None else f" ({finding.place})"
    return _printable(f"{finding.code}{where}: {finding.detail}{place}")


def _printable(text: str) -> str:
    """Return a text that a terminal shows as it is: a copy may hold anything."""
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in text)

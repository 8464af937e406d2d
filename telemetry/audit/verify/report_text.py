"""Puts a report into words, for a reader at a terminal who does not know the finding codes."""

from collections.abc import Iterator, Sequence
from typing import Final

from telemetry.audit.verify.findings import SEALED_BEFORE, Finding
from telemetry.audit.verify.named import Beginning, CopyPeriod, KeyUse, NamedCheckpoint, SeenReceipt, Window

_MOST_CHARACTERS: Final = 1_000
_MOST_STREAMS: Final = 3


def printable(text: str) -> str:
    """Return a text that a terminal shows as it is, as one line: a copy may hold anything."""
    shown = "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in text)
    return shown if len(shown) <= _MOST_CHARACTERS else f"{shown[:_MOST_CHARACTERS]}…"


def count(number: int, what: str) -> str:
    """Return how many there are of something."""
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def named(checkpoint: NamedCheckpoint) -> str:
    """Return a checkpoint as it is noted elsewhere."""
    return f"{checkpoint.number} of {checkpoint.time}, hash {checkpoint.hash}"


def finding_line(finding: Finding) -> str:
    """Return a finding: its code, where, and what is wrong."""
    where = "" if finding.stream_id is None else f" {finding.stream_id} {finding.number or '-'}"
    place = "" if finding.place is None else f" ({finding.place})"
    return f"{finding.code}{where}: {finding.detail}{place}"


def clock_lines(findings: Sequence[Finding]) -> Iterator[str]:
    """Yield what else can be the reason when all findings are such as a step of the clock makes."""
    if findings and {finding.detail for finding in findings} == {SEALED_BEFORE}:
        yield (
            "this is also how records look when the clock was set, until two more checkpoints were written: if that "
            "can be, verify again then"
        )


def nothing_lines(records: int, window: Window | None) -> list[str]:
    """Return that nothing was there to verify, if so."""
    if records:
        return []
    if window is not None and window.streams:
        return [f"no record was found of stream {stream}" for stream in window.streams]
    return ["no record was found: is this the file or the folder of the copy?"]


def window_lines(window: Window, last: NamedCheckpoint | None) -> list[str]:
    """Return what was verified, and what was not."""
    if window.start is not None:
        lines = [f"verified behind checkpoint {named(window.start)}", "what is before it is trusted, not verified"]
    elif window.since is not None and last is None:
        lines = [f"verified what was sealed since {window.since}; what is before it is trusted, not verified"]
    else:
        lines = ["verified from the first record on"]
    return [*lines, *(f"verified of stream {stream}" for stream in window.streams)]


def covers_lines(covers: CopyPeriod, first: NamedCheckpoint | None, last: NamedCheckpoint | None) -> Iterator[str]:
    """Yield the time that a copy covers."""
    yield f"records were sealed from {covers.first} to {covers.last}"
    if first is not None and last is not None and first != last:
        yield f"checkpoints {first.number} to {last.number} were made from {first.time} to {last.time}"


def other_key_lines(keys: Sequence[KeyUse], others: Sequence[KeyUse]) -> Iterator[str]:
    """Yield a sentence for each key that signed and was not given."""
    given = [key.fingerprint or "" for key in keys if key.is_given]
    for other in others:
        by = other.fingerprint or "a key that the copy does not name"
        yield (
            f"{_checkpoints(other)} signed by {by}, you gave {', '.join(given)}: either this is the wrong key, or the "
            "copy is not of this ledger; `auditrace keys public --all` prints the keys of a ledger"
        )


def key_lines(keys: Sequence[KeyUse]) -> Iterator[str]:
    """Yield which keys signed what."""
    for key in keys:
        how = "given" if key.is_given else "named by a rotation"
        what = _checkpoints(key) if key.checkpoints else "no checkpoint here is"
        yield f"{what} signed by {key.fingerprint} ({how})"


def receipt_line(receipt: SeenReceipt) -> str:
    """Return where the record of a receipt is, and what covers it."""
    what = f"receipt of {receipt.record_id}, number {receipt.sequence_number} of stream {receipt.stream_id}:"
    if receipt.place is None:
        return f"{what} not found"
    if receipt.checkpoint is None:
        return f"{what} found at {receipt.place}, not covered by a checkpoint yet"
    checkpoint = receipt.checkpoint
    return f"{what} found at {receipt.place}, covered by checkpoint {checkpoint.number} of {checkpoint.time}"


def beginning_lines(beginning: Beginning) -> Iterator[str]:
    """Yield what is missing before the beginning of a copy, and what to do."""
    missing: list[str] = []
    if beginning.missing_checkpoints:
        last = beginning.missing_checkpoints
        missing.append("checkpoint 1" if last == 1 else f"checkpoints 1 to {last}")
    streams = beginning.streams
    missing.extend(
        f"the records before number {stream.number} of stream {stream.stream_id}" for stream in streams[:_MOST_STREAMS]
    )
    if len(streams) > _MOST_STREAMS:
        missing.append(f"the beginning of {count(len(streams) - _MOST_STREAMS, 'more stream')}")
    yield f"this copy lacks the beginning of the ledger; missing: {', '.join(missing)}"
    yield (
        "if that was delivered to another sink, verify both together (auditrace verify THIS OTHER); "
        "`auditrace relay --replay-all` fills the present sink with the whole ledger"
    )
    if beginning.checkpoint is not None:
        first = beginning.checkpoint
        yield f"to verify only what is behind checkpoint {first.number}, and trust what it says: --since {first.time}"


def _checkpoints(use: KeyUse) -> str:
    if use.checkpoints == 1:
        return f"checkpoint {use.first} is"
    return f"{use.checkpoints} checkpoints ({use.first} to {use.last}) are"

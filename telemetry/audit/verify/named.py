"""What a report names of a copy: checkpoints, keys, times, receipts, and what is missing or was not verified."""

import msgspec


class NamedCheckpoint(msgspec.Struct, frozen=True):
    """A checkpoint that the verification relied on; `time` is when it was made."""

    number: int
    hash: str
    time: str


class Window(msgspec.Struct, frozen=True):
    """The part of the ledger that was verified: of `streams`, if any are named, and behind the checkpoint `start`.

    What `start` says is trusted, and nothing before it was verified. Without one verification began with the first
    record of each stream; or, when the copy has no checkpoint to begin behind, with what was sealed `since` then.
    `since` and `behind` are what was asked for.
    """

    since: str | None
    start: NamedCheckpoint | None
    streams: tuple[str, ...]
    behind: int | None = None


class KeyUse(msgspec.Struct, frozen=True):
    """A key, how many checkpoints it signed, and the numbers of the first and the last of them.

    `fingerprint` is as in `audit.integrity.certificate`; None where the copy does not tell.
    """

    fingerprint: str | None
    is_given: bool
    checkpoints: int = 0
    first: int | None = None
    last: int | None = None


class CopyPeriod(msgspec.Struct, frozen=True):
    """When the first and the last record of the copy were sealed."""

    first: str
    last: str


class SeenReceipt(msgspec.Struct, frozen=True):
    """A receipt, where its record was found, and the first checkpoint that covers it; None for what is not there."""

    record_id: str
    stream_id: str
    sequence_number: int
    place: str | None
    checkpoint: NamedCheckpoint | None


class StreamBeginning(msgspec.Struct, frozen=True):
    """A stream of which the copy has nothing before `number`."""

    stream_id: str
    number: int


class Beginning(msgspec.Struct, frozen=True):
    """How a copy begins that lacks the beginning of the ledger.

    Before `checkpoint` the copy has none, and lacks `missing_checkpoints`; it has no checkpoint at all when None.
    """

    checkpoint: NamedCheckpoint | None
    missing_checkpoints: int
    streams: tuple[StreamBeginning, ...]

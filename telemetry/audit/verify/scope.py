"""What part of a ledger to verify, and what is known of it from elsewhere."""

from collections.abc import Mapping, Sequence

import msgspec


class Scope(msgspec.Struct, frozen=True):
    """A part of the ledger: everything unless stated.

    A window is asked for by one of two: `since_ns` asks for what was sealed from that time on, and verification begins
    at the last checkpoint before it; `behind` asks for what no checkpoint up to the one of this number covers. What
    the checkpoint says at which verification begins is taken as it is. `streams` asks for these streams only;
    checkpoints count wherever they are.

    `covered` is for a copy that holds nothing of before its start: how far the checkpoints up to the start cover each
    stream, as the caller knows it. A stream that is not among them is not covered.
    """

    since_ns: int | None = None
    streams: frozenset[str] = frozenset()
    behind: int | None = None
    covered: Mapping[str, int] | None = None

    @property
    def is_window(self) -> bool:
        """Tell whether there is a part of the ledger that is before what is asked for."""
        return self.since_ns is not None or self.behind is not None

    @property
    def is_everything(self) -> bool:
        """Tell whether the whole ledger is asked for."""
        return not self.is_window and not self.streams


class KnownReceipt(msgspec.Struct, frozen=True, rename={"number": "sequence_number", "hash": "record_hash"}):
    """What a caller was told of a record that was committed."""

    record_id: str
    stream_id: str
    number: int
    hash: str


class KnownCheckpoint(msgspec.Struct, frozen=True):
    """A checkpoint that is known to have been written."""

    number: int
    hash: str


class Expected(msgspec.Struct, frozen=True):
    """What a copy is to hold, apart from agreeing with itself: nothing unless stated.

    `at_least` is a checkpoint that the copy is to reach, `not_before_ns` the least age of its last checkpoint,
    `receipts` are records it is to hold. `all_anchored` asks for nothing but checkpoints behind the last tips.
    """

    at_least: KnownCheckpoint | None = None
    not_before_ns: int | None = None
    receipts: Sequence[KnownReceipt] = ()
    all_anchored: bool = False

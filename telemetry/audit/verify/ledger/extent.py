"""Notes what a report says of a copy beside its findings: how far the copy reaches, and where receipts are in it.

It gets the checkpoints and then the records of the streams as they are checked, and checks nothing itself.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set

from telemetry.audit.chain import rfc3339_nanos
from telemetry.audit.verify.findings import At
from telemetry.audit.verify.ledger.checkpoints import Seen
from telemetry.audit.verify.named import Beginning, CopyPeriod, NamedCheckpoint, SeenReceipt, StreamBeginning
from telemetry.audit.verify.record.rows import DIGEST, UNOBSERVED, digest_of, key_of, number_of, unpack
from telemetry.audit.verify.scope import KnownReceipt


class CopyExtent:
    """Gets the checkpoints, from the last one down, and then the rows of each stream."""

    def __init__(self, receipts: Sequence[KnownReceipt]) -> None:
        self._receipts = receipts
        self._wanted: defaultdict[bytes, defaultdict[int, set[bytes]]] = defaultdict(lambda: defaultdict(set))
        for receipt in receipts:
            self._wanted[key_of(receipt.stream_id)[0]][receipt.number].add(_digest(receipt))
        self._covering: dict[tuple[bytes, int], NamedCheckpoint] = {}
        self._found: dict[tuple[bytes, bytes], At] = {}
        self._sealed_ns: list[int] = []
        self._later: list[tuple[bytes, int]] = []
        self._lowest: Seen | None = None

    def see_checkpoint(self, seen: Seen) -> None:
        """Note a checkpoint that holds its number."""
        if not seen.is_trusted:
            return
        self._lowest = seen
        for tip in seen.stated.tips if self._wanted else ():
            stream = key_of(tip.stream_id)[0]
            for number in self._wanted.get(stream, ()):
                if tip.first <= number <= tip.number:
                    self._covering[stream, number] = name_of(seen)

    def pass_on(self, stream: bytes, rows: Iterable[bytes]) -> Iterator[bytes]:
        """Yield the rows of a stream, and note what is to be known of them."""
        first: bytes | None = None
        last = b""
        wanted: Mapping[int, Set[bytes]] = self._wanted.get(stream, {})
        for last in rows:
            first = first or last
            if wanted and last[DIGEST] in wanted.get(number_of(last), ()):
                self._found.setdefault((stream, last[DIGEST]), (unpack(last).source, unpack(last).line))
            yield last
        if first is not None:
            self._sealed_ns = _bounds([*self._sealed_ns, *_sealed_ns(first), *_sealed_ns(last)])
            if number_of(first) > 1:
                self._later.append((stream, number_of(first)))

    @property
    def first_checkpoint(self) -> NamedCheckpoint | None:
        """The first checkpoint that can be relied on."""
        return None if self._lowest is None else name_of(self._lowest)

    def covers(self) -> CopyPeriod | None:
        """Return when the first and the last record were sealed, by those at the ends of the streams."""
        if not self._sealed_ns:
            return None
        return CopyPeriod(rfc3339_nanos(self._sealed_ns[0]), rfc3339_nanos(self._sealed_ns[-1]))

    def beginning(self, text_of: Callable[[bytes], str]) -> Beginning | None:
        """Return how the copy begins; None when it begins with the ledger, or lacks something else."""
        missing = 0 if self._lowest is None else self._lowest.stated.before
        if not missing and (self._lowest is not None or not self._later):
            return None
        streams = sorted((text_of(stream), number) for stream, number in self._later)
        return Beginning(self.first_checkpoint, missing, tuple(StreamBeginning(*stream) for stream in streams))

    def receipts(self, place_of: Callable[[At], str], losers: Mapping[bytes, Set[bytes]]) -> tuple[SeenReceipt, ...]:
        """Return where the record of each receipt was found, and the first checkpoint that covers it."""
        return tuple(self._seen(receipt, place_of, losers) for receipt in self._receipts)

    def _seen(
        self, receipt: KnownReceipt, place_of: Callable[[At], str], losers: Mapping[bytes, Set[bytes]]
    ) -> SeenReceipt:
        stream, digest = key_of(receipt.stream_id)[0], _digest(receipt)
        at = self._found.get((stream, digest))
        # Of several records under one number a checkpoint covers the one that holds it.
        is_holder = at is not None and digest not in losers.get(stream, ())
        return SeenReceipt(
            receipt.record_id,
            receipt.stream_id,
            receipt.number,
            None if at is None else place_of(at),
            self._covering.get((stream, receipt.number)) if is_holder else None,
        )


def name_of(seen: Seen) -> NamedCheckpoint:
    """Return the name of a checkpoint."""
    return NamedCheckpoint(seen.number, seen.hash, seen.time)


def _digest(receipt: KnownReceipt) -> bytes:
    return digest_of(receipt.hash)


def _sealed_ns(row: bytes) -> Iterator[int]:
    unpacked = unpack(row)
    if not unpacked.is_(UNOBSERVED):
        yield unpacked.observed


def _bounds(times_ns: Sequence[int]) -> list[int]:
    return [min(times_ns), max(times_ns)] if times_ns else []

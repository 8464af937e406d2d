"""Steps 7 and 8 of the verification: which checkpoints can be relied on, and whether they run without gaps.

Checkpoints are checked from the last number down, because each one names the hash of the one before it.
"""

from collections.abc import Iterable, Iterator
from itertools import groupby
from typing import Final, NamedTuple

import msgspec

from telemetry.audit.verify.findings import Fault, UnplacedFinding
from telemetry.audit.verify.ledger.key_uses import KeyUses
from telemetry.audit.verify.ledger.keyring import Keyring
from telemetry.audit.verify.record.gathered import NOT_SIGNED, SeenCheckpoint
from telemetry.audit.verify.record.rotation import RawKey
from telemetry.audit.verify.record.rows import DIGEST, noted_at, unpack

_NUMBER: Final = slice(0, 8)
_DECODER: Final = msgspec.msgpack.Decoder(SeenCheckpoint)
_KEY_BYTES: Final = 40


class Seen:
    """One distinct checkpoint record, and the signatures that its copies carry, each with whether it holds."""

    def __init__(self, copies: Iterable[SeenCheckpoint], keys: Keyring) -> None:
        first, *others = copies
        self.stream_id = first.stream_id
        self.row = min([first.row, *(copy.row for copy in others)])
        self.time = first.time
        self.stated = first.stated
        # Empty if every copy's signature was that of a given key.
        self.body = next((copy.body for copy in (first, *others) if copy.body), b"")
        self.certificate = next((copy.certificate for copy in (first, *others) if copy.certificate), "")
        self.signer: RawKey | None = None
        """The key that signed it, as soon as that is known."""
        self.signatures: dict[str, bool] = {}
        for copy in (first, *others):
            if copy.signature is not None and not self.signatures.get(copy.signature):
                signer = self._signer(copy, keys)
                self.signer = self.signer or signer
                self.signatures[copy.signature] = signer is not None
        self.is_trusted = False

    @property
    def number(self) -> int:
        """The number of the checkpoint."""
        return self.stated.number

    @property
    def hash(self) -> str:
        """The record hash."""
        return self.row[DIGEST].hex()

    @property
    def is_signed(self) -> bool:
        """Tell whether a copy carries a signature that holds."""
        return any(self.signatures.values())

    def is_named_by(self, following: "Seen | None") -> bool:
        """Tell whether the next checkpoint names the hash of this one."""
        return following is not None and following.stated.prev_hash == self.hash

    def noted(self, fault: Fault) -> UnplacedFinding:
        """Return a finding on this record."""
        return noted_at(fault, self.stream_id, unpack(self.row))

    def _signer(self, copy: SeenCheckpoint, keys: Keyring) -> RawKey | None:
        if copy.signed_by != NOT_SIGNED:
            return keys.given(copy.signed_by) if keys.may_sign(copy.signed_by, self.number) else None
        return keys.signer(copy.body, copy.signature, self.number) if copy.signature else None


class CheckpointFault(NamedTuple):
    """What is wrong with the checkpoint of this number; `is_before` if that is only what lies before the copy."""

    number: int
    noted: UnplacedFinding
    is_before: bool = False


class CheckpointChain:
    """Goes through the checkpoints and decides which of them hold their numbers and can be relied on.

    `lost` counts those that a restore left out: they are judged like the others, and are not part of what counts.
    """

    def __init__(self, keys: Keyring) -> None:
        self._keys = keys
        self.uses = KeyUses(keys)
        self.faults: list[CheckpointFault] = []
        self.distinct = 0
        self.lost = 0

    def kept(self, entries: Iterable[bytes]) -> Iterator[Seen]:
        """Yield one checkpoint for each number, from the last one down, and collect what is wrong with all of them.

        A checkpoint can be relied on when its signature holds or when one that can be relied on names its hash. One
        that lies between two that follow on each other by a restore is lost, and not among those that are yielded.
        """
        lines: list[Seen] = []
        for _, of_number in groupby(entries, lambda entry: entry[_NUMBER]):
            claims = self._claims(of_number)
            # The first line is the one that counts; each other one was lost by a restore, and ends where it began.
            goes_on = (
                at for at, top in enumerate(lines) if top.stated.before >= claims[0].number or not top.is_trusted
            )
            line = next(goes_on, len(lines))
            holder = self._judge(claims, lines[line] if line < len(lines) else None)
            for lost in lines[line + 1 :]:
                self._check_link(holder, lost)
            lines[line:] = [holder]
            if line == 0:
                yield holder
            else:
                self.lost += 1
        for first in lines:
            self._check_first(first)

    def _judge(self, claims: list[Seen], following: Seen | None) -> Seen:
        """Return the checkpoint that holds a number, after all that claim it were looked at."""
        number = claims[0].number
        adjacent = following if following is not None and following.stated.before == number else None
        for seen in claims:
            seen.is_trusted = self._is_trusted(seen, adjacent)
        claims.sort(key=lambda seen: (not seen.is_trusted, not seen.is_named_by(adjacent), seen.row[DIGEST]))
        holder, *others = claims
        for other in others:
            detail = f"checkpoint {number} is the record with the hash {holder.hash}"
            self._add(other, Fault("checkpoint_number_reused", detail))
        for seen in claims:
            self._check_signatures(seen)
        self._check_named_signature(holder, adjacent)
        if holder.signer is not None:
            self.uses.signed(holder.signer, number)
        if following is not None:
            self._check_link(holder, following)
        return holder

    def _claims(self, entries: Iterable[bytes]) -> list[Seen]:
        claims: list[Seen] = []
        for _, copies in groupby(entries, lambda entry: entry[:_KEY_BYTES]):
            claims.append(Seen((_DECODER.decode(copy[_KEY_BYTES:]) for copy in copies), self._keys))
        self.distinct += len(claims)
        return claims

    def _is_trusted(self, seen: Seen, following: Seen | None) -> bool:
        if not self._keys or seen.is_signed:
            return True
        if following is None:
            return False
        if following.is_trusted and seen.is_named_by(following):
            return True
        named = following.stated.prev_signature
        if named is not None:
            seen.signer = self._keys.signer(seen.body, named, seen.number)
        return seen.signer is not None

    def _check_signatures(self, seen: Seen) -> None:
        # 7. The signatures that copies carry hold.
        for signature, holds in sorted(seen.signatures.items()):
            if self._keys and not holds and not self._was_signed(seen, signature):
                self._refuse(seen, signature)

    def _check_named_signature(self, seen: Seen, following: Seen | None) -> None:
        # 7. For a checkpoint without any signature, the one that the next names holds.
        named = None if following is None else following.stated.prev_signature
        if (
            self._keys
            and named is not None
            and not seen.signatures
            and not self._is_signature(seen, named)
            and not self._was_signed(seen, named)
        ):
            self._refuse(seen, named)

    def _is_signature(self, seen: Seen, signature: str) -> bool:
        seen.signer = seen.signer or self._keys.signer(seen.body, signature, seen.number)
        return seen.signer is not None

    def _was_signed(self, seen: Seen, signature: str) -> bool:
        if not seen.is_trusted:
            return False
        former = self._keys.former_signer(seen.body, signature, seen.number)
        seen.signer = seen.signer or former
        return former is not None

    def _refuse(self, seen: Seen, signature: str) -> None:
        self._add(seen, _signature_fault(signature))
        if signature:
            self.uses.refused(seen.certificate, seen.number)

    def _check_link(self, before: Seen, seen: Seen) -> None:
        # 8. Numbers run from 1 without gaps, and each checkpoint names the one before it.
        stated = seen.stated
        if before.number != stated.before:
            self._add(seen, _gap(before.number + 1, stated.before))
            before_it = None
        else:
            before_it = before
        if stated.prev_hash is None or stated.prev_signature is None:
            self._add(seen, Fault("checkpoint_link", "it does not name the checkpoint before it"))
        elif before_it is not None and not before_it.is_named_by(seen):
            detail = f"the hash that it names for checkpoint {before.number} is not that checkpoint's"
            self._add(seen, Fault("checkpoint_link", detail))
        elif before_it is not None and not self._is_signature_of(before_it, stated.prev_signature):
            detail = f"the signature that it names for checkpoint {before.number} is not that checkpoint's"
            self._add(seen, Fault("checkpoint_link", detail))

    def _check_first(self, seen: Seen) -> None:
        stated = seen.stated
        if stated.before > 0:
            self.faults.append(CheckpointFault(seen.number, seen.noted(_gap(1, stated.before)), is_before=True))
            if stated.prev_hash is None or stated.prev_signature is None:
                self._add(seen, Fault("checkpoint_link", "it does not name the checkpoint before it"))
        elif stated.prev_hash is not None or stated.prev_signature is not None:
            self._add(seen, Fault("checkpoint_link", "the first names one before it"))

    def _is_signature_of(self, seen: Seen, signature: str) -> bool:
        """Tell whether a checkpoint carries `signature`, or would if its copies had not lost theirs."""
        carried = seen.signatures.keys() - {""}
        if not carried or signature in carried:
            return True
        return bool(seen.body) and self._keys.signer(seen.body, signature, seen.number) is not None

    def _add(self, seen: Seen, fault: Fault) -> None:
        self.faults.append(CheckpointFault(seen.number, seen.noted(fault)))


def _gap(first: int, last: int) -> Fault:
    missing = f"checkpoint {first} is" if first == last else f"checkpoints {first} to {last} are"
    return Fault("checkpoint_gap", f"{missing} missing")


def _signature_fault(signature: str) -> Fault:
    made = f"no key that may sign this number made the signature {signature}"
    return Fault("signature", made if signature else "it has no signature")

"""Which key may sign what: the given keys, and those that a rotation by one of them lets sign."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final, NamedTuple

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from telemetry.audit.checkpoint import is_signed
from telemetry.audit.verify.findings import Fault
from telemetry.audit.verify.record.rotation import RawKey, SeenRotation, raw_of

_FOR_EVER: Final = 2**63


class RotationFault(NamedTuple):
    """What is wrong with a rotation."""

    fault: Fault
    seen: SeenRotation


class Keyring:
    """The keys that may sign, each from one checkpoint number to before another."""

    def __init__(self, given: Sequence[Ed25519PublicKey], rotations: Iterable[SeenRotation] = ()) -> None:
        """Take the given keys, and then the rotations that hold, by the number they state.

        A rotation holds when a key signed it that may sign the number it states, and when it has no signature, as in
        a copy of bodies, if both its keys are given. A given key to which such a rotation leads signs from then on.
        """
        self._given = [raw_of(key) for key in given]
        self._spans: defaultdict[RawKey, list[tuple[int, int]]] = defaultdict(list)
        self._former: defaultdict[RawKey, int] = defaultdict(int)
        self._faults: list[RotationFault] = []
        for key in self._given:
            self._spans[key].append((1, _FOR_EVER))
        if given:
            ordered = sorted(rotations, key=lambda seen: (seen.rotation.first, seen.row))
            refused = [seen for seen in _distinct(ordered, self._faults) if not self._apply(seen)]
            # A rotation to a known key tells the key before, which proves nothing: only what a checkpoint names that
            # can be relied on may carry its signature.
            self._faults.extend(
                RotationFault(Fault("signature", "the rotation is not signed by a key that may sign"), seen)
                for seen in reversed(refused)
                if not self._look_back(seen)
            )

    def __bool__(self) -> bool:
        """Tell whether any key was given."""
        return bool(self._given)

    def faults(self) -> Iterator[RotationFault]:
        """Yield the rotations that do not hold."""
        yield from self._faults

    def may_sign(self, given: int, number: int) -> bool:
        """Tell whether the given key of this position may sign the checkpoint of this number."""
        return _covers(self._spans[self._given[given]], number)

    def given(self, position: int) -> RawKey:
        """Return the given key of this position."""
        return self._given[position]

    def known(self) -> Mapping[RawKey, bool]:
        """Return the given keys and those that rotations name beside them, each with whether it was given."""
        named = dict.fromkeys((*self._given, *self._spans, *self._former))
        return {key: key in self._given for key in named}

    def signer(self, body: bytes, signature: str, number: int) -> RawKey | None:
        """Return the key that signed `body`, if there is one that may sign this checkpoint number."""
        return _signer(body, signature, [key for key, spans in self._spans.items() if _covers(spans, number)])

    def former_signer(self, body: bytes, signature: str, number: int) -> RawKey | None:
        """Return the key that signed `body`, if a rotation to a known key says that it signed such numbers before."""
        return _signer(body, signature, [key for key, end in self._former.items() if number < end])

    def _apply(self, seen: SeenRotation) -> bool:
        old, new, first = seen.rotation.old, seen.rotation.new, seen.rotation.first
        spans = self._spans.get(old, [])
        if not spans or spans[-1][1] != _FOR_EVER or spans[-1][0] > first:
            return False
        if not seen.is_signed and (seen.signature is not None or new not in self._given):
            return False
        spans[-1] = (spans[-1][0], first)
        if self._spans[new] == [(1, _FOR_EVER)]:
            self._spans[new] = []
        self._spans[new].append((first, _FOR_EVER))
        return True

    def _look_back(self, seen: SeenRotation) -> bool:
        old, new, first = seen.rotation.old, seen.rotation.new, seen.rotation.first
        is_known = new in self._given or self._former.get(new, 0) > first
        if old in self._spans or not is_known or not (seen.is_signed or seen.signature is None):
            return False
        self._former[old] = max(self._former[old], first)
        return True


def _distinct(rotations: Iterable[SeenRotation], faults: list[RotationFault]) -> list[SeenRotation]:
    """Return one copy of each rotation, a signed one if there is any; a signature that does not hold is a fault."""
    found: dict[bytes, SeenRotation] = {}
    for seen in rotations:
        if seen.signature is not None and not seen.is_signed:
            stated = seen.signature or "a missing signature"
            faults.append(RotationFault(Fault("signature", f"{stated} is not that of the old key"), seen))
            continue
        digest = seen.row[24:56]
        known = found.get(digest)
        if known is None or (seen.is_signed and not known.is_signed):
            found[digest] = seen
    return list(found.values())


def _signer(body: bytes, signature: str, keys: Iterable[RawKey]) -> RawKey | None:
    return next((key for key in keys if is_signed(body, signature, [Ed25519PublicKey.from_public_bytes(key)])), None)


def _covers(spans: Iterable[tuple[int, int]], number: int) -> bool:
    return any(first <= number < end for first, end in spans)

"""Texts that must not be found where they do not belong: each is unique, and says where it may be."""

import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field


@dataclass
class Canaries:
    """Makes canaries, and finds them in what a service wrote, sent and said."""

    allowed: dict[str, tuple[str, frozenset[str]]] = field(default_factory=dict[str, tuple[str, frozenset[str]]])
    """What each canary stands for, and the places where it must be."""
    tolerated: dict[str, frozenset[str]] = field(default_factory=dict[str, frozenset[str]])
    """Where each may be too."""

    def new(self, what: str, *places: str, may: Iterable[str] = ()) -> str:
        """Return a new canary: `what` it stands for, the `places` where it must be found, and where it may be too."""
        text = f"cnry{secrets.token_hex(12)}"
        self.allowed[text] = (what, frozenset(places))
        self.tolerated[text] = frozenset(may)
        return text

    def leaks(self, places: Mapping[str, Iterable[bytes]]) -> list[str]:
        """Return the canaries that are where they must not be."""
        return [f"{what} in {place}" for what, place, may_be in self._found(places) if not may_be]

    def missed(self, places: Mapping[str, Iterable[bytes]]) -> list[str]:
        """Return the canaries that are not where they must be; each shows that the search finds what is there."""
        found = {(what, place) for what, place, _ in self._found(places)}
        wanted = {(what, place) for what, allowed in self.allowed.values() for place in allowed}
        return [f"{what} in {place}" for what, place in sorted(wanted - found)]

    def _found(self, places: Mapping[str, Iterable[bytes]]) -> list[tuple[str, str, bool]]:
        whole = {place: b"\n".join(parts) for place, parts in places.items()}
        return [
            (what, place, place in allowed | self.tolerated.get(text, frozenset()))
            for text, (what, allowed) in self.allowed.items()
            for place, content in whole.items()
            if text.encode() in content
        ]

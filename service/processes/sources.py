"""Counts the connections of each source address, so that one source cannot take the connections of all others."""

from collections import Counter
from collections.abc import Callable

from service.api.throttle import network_of

IsTrusted = Callable[[str], bool]
"""Tells whether an address is that of a trusted proxy, which brings the connections of many clients."""


class Sources:
    """The connections of a process, by source; trusted proxies have no limit of their own."""

    def __init__(self, most: int, is_trusted: IsTrusted) -> None:
        self._most = most
        self._is_trusted = is_trusted
        self._counts: Counter[str] = Counter()

    def add(self, address: str) -> bool:
        """Count a connection; return False if its source has too many with it."""
        source = network_of(address)
        self._counts[source] += 1
        return self._counts[source] <= self._most or self._is_trusted(address)

    def remove(self, address: str) -> None:
        """Forget a connection that was counted."""
        self._counts -= Counter([network_of(address)])

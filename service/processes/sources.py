"""Counts the connections of each source address, so that one source cannot take the connections of all others."""

import ipaddress
from collections import Counter
from collections.abc import Callable

IsTrusted = Callable[[str], bool]
"""Tells whether an address is that of a trusted proxy, which brings the connections of many clients."""


def source_of(address: str) -> str:
    """Return what counts as one source: an address of IPv4, or a network of IPv6 that one client gets (/64).

    Example:
        >>> source_of("192.0.2.7"), source_of("::ffff:192.0.2.7")
        ('192.0.2.7', '192.0.2.7')
        >>> source_of("2001:db8::1") == source_of("2001:db8::2")
        True
    """
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv4Address):
        return str(parsed)
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(ipaddress.ip_network((parsed, 64), strict=False))


class Sources:
    """The connections of a process, by source; trusted proxies have no limit of their own."""

    def __init__(self, most: int, is_trusted: IsTrusted) -> None:
        self._most = most
        self._is_trusted = is_trusted
        self._counts: Counter[str] = Counter()

    def add(self, address: str) -> bool:
        """Count a connection; return False if its source has too many with it."""
        source = source_of(address)
        self._counts[source] += 1
        return self._counts[source] <= self._most or self._is_trusted(address)

    def remove(self, address: str) -> None:
        """Forget a connection that was counted."""
        self._counts -= Counter([source_of(address)])

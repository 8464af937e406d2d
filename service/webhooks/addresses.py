"""Decides which addresses a webhook may connect to: public ones, and those that the operator allows.

Source: IANA IPv4 and IPv6 Special-Purpose Address Registries, as the standard library knows them; RFC 4291, section
2.5.5.2 (IPv4-mapped); RFC 6052 (NAT64); RFC 7526 (6to4 is deprecated).
"""

import socket
from collections.abc import Callable, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final, TypeAlias

Address: TypeAlias = IPv4Address | IPv6Address
Networks: TypeAlias = tuple[IPv4Network | IPv6Network, ...]

Resolve: TypeAlias = Callable[[str, int], Sequence[str]]
"""Returns all addresses of a host name, or of an address itself; raises OSError when there are none."""

PRIVATE: Final[Networks] = tuple(
    ip_network(text)
    for text in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "127.0.0.0/8", "::1/128", "fc00::/7")
)
"""What `allow_private = true` allows. Link-local addresses are not among them: clouds have their metadata there."""

_NAT64: Final = IPv6Network("64:ff9b::/96")
# Not public, but global for this or an earlier version of the standard library.
_SPECIAL: Final[Networks] = tuple(
    ip_network(text)
    for text in (
        *("192.0.0.0/24", "192.88.99.0/24", "64:ff9b:1::/48", "100::/64", "2001::/23", "2002::/16", "3fff::/20"),
        *("5f00::/16", "fec0::/10"),
    )
)


def refusal_of(text: str, allowed: Networks) -> str | None:
    """Return why a webhook must not connect to an address; None when it may.

    Example:
        >>> refusal_of("::ffff:10.0.0.1", ())
        '::ffff:10.0.0.1 is not a public address'
        >>> refusal_of("::ffff:10.0.0.1", PRIVATE) is None
        True
    """
    address = _meant(ip_address(text))
    if _is_public(address) or any(address in network for network in allowed):
        return None
    return f"{text} is not a public address"


def is_loopback(text: str) -> bool:
    """Tell whether an address is of this machine only."""
    return _meant(ip_address(text)).is_loopback


def literal(host: str) -> str | None:
    """Return the host if it is an address and no name; None otherwise."""
    try:
        return str(ip_address(host))
    except ValueError:
        return None


def resolve(host: str, port: int) -> Sequence[str]:
    """Ask the system for the addresses of a host, each once, in the order in which to try them."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP)
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


def _meant(address: Address) -> Address:
    """Return the IPv4 address that an IPv6 address leads to, if it is one of those."""
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped is not None:
            return address.ipv4_mapped
        if address in _NAT64:
            return IPv4Address(int(address) & 0xFFFF_FFFF)
    return address


def _is_public(address: Address) -> bool:
    # For the standard library some multicast addresses are global.
    is_special = (
        address.is_multicast
        or address.is_reserved
        or address.is_loopback
        or address.is_link_local
        or address.is_unspecified
        or any(address in network for network in _SPECIAL)
    )
    return address.is_global and not is_special

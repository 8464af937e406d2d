"""The settings of proxies in front of the API, apart from the code that uses them."""

import re
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final, TypeAlias

import msgspec

ProxyNetwork: TypeAlias = IPv4Network | IPv6Network

_HEADER: Final = re.compile(r"[!#$%&'*+.^_`|~0-9a-z-]+")
# Headers that say something else, to this service or to what stands in front of it.
_TAKEN: Final = re.compile(
    r"authorization|proxy-.*|cookie|host|forwarded|x-forwarded-(for|host|proto|port)|x-request-id|traceparent|tracestate"
    r"|user-agent|connection|keep-alive|te|trailer|transfer-encoding|upgrade|expect|range|date|via|idempotency-key"
    r"|last-event-id|if-.*|accept.*|content-.*"
)


class ProxySettings(msgspec.Struct, frozen=True, kw_only=True):
    """Which addresses are proxies, and the headers in which they say who sends a request; names in lower case."""

    trusted: tuple[ProxyNetwork, ...] = ()
    identity_header: str | None = None
    """None: no proxy may say who sends a request."""
    roles_header: str | None = None
    tenant_header: str | None = None
    """None: the tenant is `default`."""

    @property
    def headers(self) -> tuple[str, ...]:
        """The headers that only a trusted proxy may send."""
        return tuple(name for name in (self.identity_header, self.roles_header, self.tenant_header) if name)

    def trusts(self, address: str | None) -> bool:
        """Return whether this is the address of a trusted proxy."""
        try:
            return address is not None and self.is_proxy(plain_address(address.partition("%")[0]))
        except ValueError:
            return False

    def is_proxy(self, address: IPv4Address | IPv6Address) -> bool:
        """Return whether this is the address of a trusted proxy."""
        return any(address in network for network in self.trusted)


def plain_address(text: str) -> IPv4Address | IPv6Address:
    """Return the address; an IPv4 address that is written as an IPv6 one is the IPv4 address.

    Raises:
        ValueError: it is no address, or has a zone.
    """
    if "%" in text:
        raise ValueError("an address with a zone")
    address = ip_address(text)
    return getattr(address, "ipv4_mapped", None) or address


def trusted_proxies(text: str) -> tuple[ProxyNetwork, ...]:
    """Return the addresses and networks that are listed with commas or blanks between them.

    Raises:
        ValueError: one is no address or network, or is every address.
    """
    networks: tuple[ProxyNetwork, ...] = tuple(map(ip_network, text.replace(",", " ").split()))
    for network in networks:
        if network.prefixlen == 0:
            raise ValueError(f"{network} is every address: then anybody could say where and who he is")
        if isinstance(network, IPv6Network) and network.network_address.ipv4_mapped is not None:
            raise ValueError(f"{network} is a network of IPv4: write it as one")
    return networks


def header_name(text: str) -> str:
    """Return the name of a header in lower case.

    Raises:
        ValueError: it is no name of a header, or one that has another meaning.
    """
    name = text.lower()
    if _HEADER.fullmatch(name) is None:
        raise ValueError(f"{text} is no name of a header")
    if _TAKEN.fullmatch(name):
        raise ValueError(f"{text} has another meaning: name a header that only your proxy sets")
    return name

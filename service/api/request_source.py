"""Finds out from which address a request comes, also behind proxies.

`Forwarded` and `X-Forwarded-For` are claims. They are believed only as far as trusted proxies wrote them: from the
right, up to the first address that is no trusted proxy. What stands left of it may be made up.

Source: RFC 7239 (`Forwarded`, 4; identifiers of nodes, 6).
"""

import re
from collections.abc import Iterator, Sequence
from ipaddress import IPv4Address, IPv6Address
from typing import Final

import msgspec
from litestar.datastructures import Headers

from service.api.proxy_settings import ProxySettings, plain_address
from service.api.texts import shown

_WORD: Final = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_PAIR: Final = re.compile(
    rf"""[ \t]*+(?:(?P<name>{_WORD})=(?:(?P<token>{_WORD})|"(?P<quoted>(?:[^"\\\x00-\x1f\x7f]|\\[ -~])*)"))?"""
    r"[ \t]*(?P<end>[;,]|\Z)"
)
_PORT: Final = r"(?::(?:[0-9]{1,5}|_[A-Za-z0-9._-]+))?"
_NODE: Final = re.compile(
    rf"(?:(?P<four>[0-9.]+)|\[(?P<six>[0-9A-Fa-f:.]+)\]|unknown|_[A-Za-z0-9._-]+){_PORT}", re.IGNORECASE
)
_BARE_SIX: Final = re.compile(r"[0-9A-Fa-f]*+:[0-9A-Fa-f.]*+:[0-9A-Fa-f:.]*+")


class RequestSource(msgspec.Struct, frozen=True):
    """Where a request comes from.

    `address` is that of the client, as far as it is known; `peer` that of the connection, if a proxy spoke for the
    client. `problem` says why the headers of the proxies cannot be used; `address` is then that of the connection.
    """

    address: str | None
    peer: str | None = None
    problem: str | None = None


def source_of(connected: str | None, headers: Headers, proxies: ProxySettings) -> RequestSource:
    """Return where a request comes from.

    Args:
        connected: the address of the connection.
        headers: of the request; ignored unless the connection comes from a trusted proxy.
        proxies: the trusted proxies.
    """
    peer = shown(connected) if connected else None
    given = [name for name in ("forwarded", "x-forwarded-for") if name in headers]
    if not given or connected is None or not proxies.trusts(connected):
        return RequestSource(peer)
    try:
        found = {_client(_nodes(name, headers.getall(name)), connected, proxies) for name in given}
    except ValueError as error:
        return RequestSource(peer, problem=f"the header {' or '.join(given)} cannot be used: {error}")
    if len(found) > 1:
        # A proxy that sets one of them passes on the other one as it came from outside.
        return RequestSource(peer, problem="the headers forwarded and x-forwarded-for name different clients")
    (client,) = found
    return RequestSource(client, peer) if client != peer else RequestSource(peer)


def _client(nodes: Sequence[str], connected: str, proxies: ProxySettings) -> str:
    """Return the first address from the right that is no proxy; else the last one that is known."""
    client = connected
    for node in reversed(nodes):
        address = _address(node)
        if address is None:
            # A trusted proxy does not tell or does not know from where it got the request.
            break
        client = str(address)
        if not proxies.is_proxy(address):
            break
    return client


def _nodes(name: str, values: Sequence[str]) -> Sequence[str]:
    """Return the nodes that a header names, the nearest last."""
    if name == "forwarded":
        return list(_forwarded(",".join(values)))
    listed = [each.strip(" \t") for each in ",".join(values).split(",")]
    return [f"[{each}]" if _BARE_SIX.fullmatch(each) else each for each in listed if each]


def _forwarded(text: str) -> Iterator[str]:
    place, node = 0, "unknown"
    names: set[str] = set()
    while True:
        pair = _PAIR.match(text, place)
        if pair is None:
            raise ValueError("it is not of the form of RFC 7239")
        name = (pair["name"] or "").lower()
        if name in names:
            raise ValueError("an element has a parameter twice")
        if name:
            names.add(name)
        if name == "for":
            node = pair["token"] or re.sub(r"\\(.)", r"\1", pair["quoted"] or "")
        if pair["end"] != ";":
            # An empty element is none (RFC 9110, 5.6.1).
            if names:
                yield node
            names.clear()
            node = "unknown"
        if not pair["end"]:
            return
        place = pair.end()


def _address(node: str) -> IPv4Address | IPv6Address | None:
    """Return the address of a node; None if it is `unknown` or has an obfuscated name."""
    found = _NODE.fullmatch(node)
    if found is None:
        raise ValueError("it names a node that is no address")
    text = found["four"] or found["six"]
    try:
        return None if text is None else plain_address(text)
    except ValueError as error:
        raise ValueError("it names a node that is no address") from error

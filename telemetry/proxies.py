"""Finds the proxy of a request by the same rules for every exporter and library.

The libraries that send requests read the proxy variables differently, and some raise on values that others accept. So
the variables are read here, and each library gets the result.

Source: curl's manual, "ENVIRONMENT" (`http_proxy`, `https_proxy`, `all_proxy`, `no_proxy`); gRPC's documentation,
"Environment Variables" (`grpc_proxy`, `no_grpc_proxy`).
"""

import re
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Final
from urllib.parse import quote, unquote, urlsplit

import msgspec

from telemetry.errors import TelemetrySettingsError

_PORTS: Final[Mapping[str, int]] = {"http": 80, "https": 443, "socks5": 1080, "socks5h": 1080}
"""The schemes of proxies, with their default ports."""

_OF_GRPC: Final = ("grpc_proxy", "https_proxy", "http_proxy", "all_proxy")
_SCHEME: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*")
_HOST_AND_PORT: Final = re.compile(r"(\[[^\]]*\]|[^:\[\]]*)(?::([0-9]{1,5}))?")
_HOST_NAME: Final = re.compile(r"[^\s:/\\@\[\]?#]+")


class Destination(msgspec.Struct, frozen=True):
    """A host and port that a request is sent to."""

    host: str
    port: int


def http_proxy(environment: Mapping[str, str], url: str) -> str | None:
    """Return the URL of the proxy for requests to an `http` or `https` URL; None when they need no proxy.

    The URL names a port, and may hold credentials. A `socks5` or `socks5h` proxy resolves the names of hosts itself.

    Raises:
        TelemetrySettingsError: lists what is wrong with the proxy variables; no credentials are shown.
    """
    parts = urlsplit(url)
    target = Destination(parts.hostname or "", parts.port or _PORTS[parts.scheme])
    return _proxy(environment, target, (f"{parts.scheme}_proxy", "all_proxy"), ("no_proxy",), is_grpc=False)


def grpc_proxy(environment: Mapping[str, str], address: str) -> str | None:
    """Return the URL of the proxy for calls to a gRPC `host:port`; None when they need no proxy.

    Raises:
        TelemetrySettingsError: as for `http_proxy`, and for a kind of proxy that gRPC cannot use.
    """
    try:
        parts = urlsplit(f"//{address}")
        target = Destination(parts.hostname or "", parts.port or 443)
    except ValueError:
        target = Destination("", 0)
    if not target.host:
        # This is a local socket, or an address that gRPC itself refuses.
        return None
    return _proxy(environment, target, _OF_GRPC, ("no_grpc_proxy", "no_proxy"), is_grpc=True)


def grpc_options(proxy: str | None) -> Sequence[tuple[str, int | str]]:
    """Return the channel options that make gRPC use this proxy; for None, no proxy."""
    return [("grpc.enable_http_proxy", 0)] if proxy is None else [("grpc.http_proxy", proxy)]


def _proxy(
    environment: Mapping[str, str],
    target: Destination,
    names: Sequence[str],
    exempting: Sequence[str],
    *,
    is_grpc: bool,
) -> str | None:
    found = _first(environment, names)
    if found is None:
        return None
    problems: list[str] = []
    exempt = _first(environment, exempting)
    if exempt is not None and _is_exempt(target, *exempt, problems):
        return None
    proxy = _normalized(*found, problems)
    if proxy is not None and is_grpc and not proxy.startswith("http://"):
        scheme = proxy.partition(":")[0]
        problems.append(
            f"{found[0]}: gRPC takes http:// proxies only, and this is a {scheme}:// one: set grpc_proxy, name "
            f"{target.host} in no_grpc_proxy, or send over HTTP"
        )
    if problems:
        raise TelemetrySettingsError(*problems)
    return proxy


def _first(environment: Mapping[str, str], names: Sequence[str]) -> tuple[str, str] | None:
    """Return name and value of the first variable that is set; lower case comes before upper case."""
    for name in names:
        # An empty variable in lower case switches off the one in upper case, as in curl.
        written = name if name in environment else name.upper()
        value = environment.get(written, "").strip()
        if value:
            return written, value
    return None


def _normalized(name: str, text: str, problems: list[str]) -> str | None:
    scheme, separator, _ = text.partition("://")
    if separator and scheme.lower() not in _PORTS:
        # Only a text in the form of a scheme is shown, because the rest may hold credentials.
        shown = f"{scheme}:// is none of" if _SCHEME.fullmatch(scheme) else "its scheme must be one of"
        problems.append(f"{name}: {shown} {', '.join(f'{known}://' for known in _PORTS)}")
        return None
    try:
        parts = urlsplit(text if separator else f"http://{text}")
        host, port = parts.hostname or "", parts.port or _PORTS[parts.scheme]
    except ValueError:
        parts, host, port = urlsplit(""), "", 0
    is_host = _address(host) is not None or _HOST_NAME.fullmatch(host) is not None
    if not is_host or not text.isprintable() or " " in text:
        problems.append(f"{name}: must be the URL of a proxy, such as http://proxy:3128 or socks5://proxy:1080")
        return None
    credentials = ""
    if parts.username is not None:
        pair = (parts.username, parts.password or "")
        credentials = ":".join(quote(unquote(part), safe="") for part in pair) + "@"
    return f"{parts.scheme}://{credentials}{f'[{host}]' if ':' in host else host}:{port}"


def _is_exempt(target: Destination, name: str, text: str, problems: list[str]) -> bool:
    """Return whether an entry (separated by commas or blanks) matches the target; wrong entries become problems."""
    matches = False
    for entry in filter(None, re.split(r"[,\s]+", text)):
        try:
            matches = _matches(target, entry) or matches
        except ValueError:
            problems.append(
                f"{name}: {entry!r} is no host, domain, address or network: "
                "write example.com, .example.com, 10.0.0.1, ::1, 10.0.0.0/8 or *, with :PORT where need be"
            )
    return matches


def _matches(target: Destination, entry: str) -> bool:
    address = _address(target.host)
    if "/" in entry:
        network = ip_network(entry.replace("[", "").replace("]", ""), strict=False)
        return address is not None and address in network
    named = _address(entry)
    if named is not None:
        return named == address
    form = _HOST_AND_PORT.fullmatch(entry)
    if form is None:
        raise ValueError(entry)
    host, port = form[1], form[2]
    if port is not None and int(port) != target.port:
        return False
    if host.startswith("["):
        return ip_address(host[1:-1]) == address
    named = _address(host)
    if named is not None:
        return named == address
    if not _HOST_NAME.fullmatch(host):
        raise ValueError(entry)
    domain, own = host.strip(".").lower(), target.host.rstrip(".").lower()
    if "*" in host:
        return fnmatchcase(own, host.lower())
    return own == domain or own.endswith(f".{domain}")


def _address(text: str) -> IPv4Address | IPv6Address | None:
    try:
        return ip_address(text)
    except ValueError:
        return None

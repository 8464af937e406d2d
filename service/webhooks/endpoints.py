"""The endpoints of webhooks, as `webhooks.toml` declares them (docs/webhooks.md)."""

import re
from collections.abc import Callable, Mapping, Sequence
from ipaddress import ip_network
from pathlib import Path
from typing import Final
from urllib.parse import SplitResult, urlsplit

import msgspec

from service.errors import SettingsError
from service.jobs.model import DEFAULT_TENANT
from service.jobs.tables import Table
from service.ports import RecordFilter
from service.units import parse_duration_ms
from service.webhooks.addresses import PRIVATE, Networks, is_loopback, literal, refusal_of
from service.webhooks.filters import filter_of

_NAME: Final = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
_HOST: Final = re.compile(r"[A-Za-z0-9._-]+|[0-9A-Fa-f:.]+")
_PORTS: Final[Mapping[str, int]] = {"https": 443, "http": 80}
KEYS: Final = (
    *("url", "secret_file", "tenant", "filter", "from_start", "timeout", "allow_private", "allow_http", "ca_file"),
)


class WebhookEndpoint(msgspec.Struct, frozen=True, kw_only=True):
    """One endpoint. Files are named and not read, because they may change while the process runs."""

    name: str
    scheme: str
    host: str
    """A name, or an address without brackets."""
    port: int
    target: str
    """Path and query."""
    secret_file: Path
    where: RecordFilter
    """It names a tenant: an endpoint gets records of one tenant only."""
    from_start: bool = False
    timeout_s: float = 20.0
    allowed: Networks = ()
    """Networks whose addresses may be connected to although they are not public."""
    may_be_plain: bool = False
    """Whether `http` may lead to another machine."""
    ca_file: Path | None = None
    """The authorities that may have signed the endpoint's certificate; None is the authorities of the system."""

    @property
    def authority(self) -> str:
        """Host and port, as URLs and the header `host` have them."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _PORTS[self.scheme] else f"{host}:{self.port}"

    @property
    def address(self) -> str:
        """Name and place for people; without the path, because that may hold a secret."""
        return f"webhook {self.name} ({self.scheme}://{self.authority})"

    @property
    def files(self) -> Sequence[Path]:
        """Every file that it names."""
        return [self.secret_file, *([] if self.ca_file is None else [self.ca_file])]


def endpoints_of(
    content: Mapping[str, object], folder: Path, examine: Callable[[WebhookEndpoint], Sequence[str]]
) -> Sequence[WebhookEndpoint]:
    """Return the endpoints of the content of the file.

    Args:
        content: of the file.
        folder: relative paths in the file begin here.
        examine: returns what is wrong with the files that an endpoint names.

    Raises:
        SettingsError: lists every problem, each with its place.
    """
    problems: list[str] = []
    top = Table("the file", content, problems)
    top.allow(("endpoints",))
    declared = Table.of("endpoints", content.get("endpoints", {}), problems)
    found: list[WebhookEndpoint] = []
    for name in declared.names:
        before = len(problems)
        if not _NAME.fullmatch(name):
            declared.complain(name, "a name has 1 to 64 small letters, digits, hyphens and underscores")
        found.append(_endpoint_of(name, Table.of(f"endpoints.{name}", declared.raw(name), problems), folder))
        if len(problems) == before:
            problems += [f"endpoints.{name}: {problem}" for problem in examine(found[-1])]
    if problems:
        raise SettingsError(problems)
    return found


def _endpoint_of(name: str, table: Table, folder: Path) -> WebhookEndpoint:
    table.allow(KEYS)
    allowed = _allowed(table)
    may_be_plain = table.take("allow_http", bool, default=False)
    url = _url_of(table, may_be_plain=may_be_plain)
    host = (url.hostname or "") if url else ""
    address = literal(host)
    refusal = refusal_of(address, allowed) if address else None
    if refusal is not None:
        table.complain("url", f"{refusal}: allow_private = true, or a list of networks, allows it")
    tenant = table.take("tenant", str, DEFAULT_TENANT)
    if not tenant:
        table.complain("tenant", "must not be empty")
    ca_file = table.take("ca_file", str, "")
    scheme = url.scheme if url else "https"
    return WebhookEndpoint(
        name=name,
        scheme=scheme,
        host=host,
        port=(url.port if url else None) or _PORTS[scheme],
        target=f"{(url.path or '/') if url else '/'}{f'?{url.query}' if url and url.query else ''}",
        secret_file=folder / table.require("secret_file", str, ""),
        where=filter_of(table.table("filter"), tenant),
        from_start=table.take("from_start", bool, default=False),
        timeout_s=table.parsed("timeout", "20s", parse_duration_ms, 1_000, 120_000) / 1000,
        allowed=allowed,
        may_be_plain=may_be_plain,
        ca_file=folder / ca_file if ca_file else None,
    )


def _url_of(table: Table, *, may_be_plain: bool) -> SplitResult | None:
    """Return the parts of the URL; None when it is wrong."""
    text = table.require("url", str, "")
    if not text:
        return None
    try:
        url = urlsplit(text)
        is_port = url.port is None or url.port > 0
    except ValueError:
        is_port, url = False, urlsplit("")
    if not (
        is_port and text.isascii() and text.isprintable() and " " not in text and _HOST.fullmatch(url.hostname or "")
    ):
        table.complain("url", "must be a URL such as https://hooks.example.com/auditrace, in ASCII")
        return None
    if url.username is not None or url.fragment:
        table.complain("url", "must hold no user, password or fragment: webhooks are signed instead")
    if url.scheme not in _PORTS:
        table.complain("url", f"must begin with https://, not {url.scheme}://")
        return None
    if url.scheme == "http" and not may_be_plain and not _may_be_loopback(url.hostname or ""):
        table.complain("url", "must begin with https://: http:// is for this machine only, unless allow_http = true")
    return url


def _may_be_loopback(host: str) -> bool:
    address = literal(host)
    return is_loopback(address) if address else host.lower() == "localhost"


def _allowed(table: Table) -> Networks:
    given = table.raw("allow_private")
    if given is None or isinstance(given, bool):
        return PRIVATE if given else ()
    try:
        return tuple(ip_network(text) for text in msgspec.convert(given, list[str]))
    except (ValueError, msgspec.ValidationError) as error:
        table.complain("allow_private", f"must be true or a list of networks such as 10.0.0.0/8: {error}")
        return ()

"""Reads the key set of an identity provider, and tells which of its keys may sign tokens here.

Source: RFC 7517 (key sets), RFC 7518 (3.3: RSA keys have at least 2048 bits), RFC 8725 (algorithms are fixed here).
"""

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final, cast

import httpx
import jwt
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from jwt import PyJWK

from service.api.strict_json import strict_object
from service.errors import SettingsError
from telemetry.errors import TelemetrySettingsError
from telemetry.files import cannot_be_read, read_regular
from telemetry.proxies import http_proxy
from telemetry.urls import shown

FETCH_WITHIN_S: Final = 5.0
"""How long a fetch may take in all: connect, headers and body."""
MAX_BYTES: Final = 1024 * 1024
MAX_KEYS: Final = 100

_KINDS: Final = {
    ("RSA", "RS256"): RSAPublicKey,
    ("EC", "ES256"): EllipticCurvePublicKey,
    ("OKP", "EdDSA"): Ed25519PublicKey,
}
# Larger keys make each check slow.
_RSA_BITS: Final = range(2048, 8192 + 1)
_LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "::1"})

FetchKeys = Callable[[], bytes]
"""Returns a JWK set as JSON; blocks."""


def fetch_from(
    jwks: str, environment: Mapping[str, str] | None = None, *, within_s: float = FETCH_WITHIN_S
) -> FetchKeys:
    """Return how to read a JWK set from a file, an `https://` URL, or an `http://` URL of this machine.

    No redirect is followed, no more than 1 MiB is read, and nothing is decompressed.

    Args:
        jwks: the file or URL.
        environment: for the proxy variables; None to connect to the provider itself.
        within_s: how long a fetch from a URL may take in all.

    Raises:
        SettingsError: the file holds no key set; the URL is another, over which a third party could add a key and act
            as anybody; or a proxy variable is wrong.
    """
    if "://" not in jwks:
        path = Path(jwks)
        _check_file(path)
        return lambda: _read(path)
    try:
        url = httpx.URL(jwks)
    except httpx.InvalidURL as error:
        raise SettingsError(["AUDITRACE_JWT_JWKS is no https:// URL"]) from error
    if url.userinfo:
        raise SettingsError(["AUDITRACE_JWT_JWKS: credentials do not belong into the URL"])
    if url.scheme != "https" and not (url.scheme == "http" and url.host in _LOOPBACK):
        raise SettingsError([f"AUDITRACE_JWT_JWKS is {shown(jwks)}; expected a file or an https:// URL"])
    try:
        proxy = http_proxy(environment or {}, jwks)
    except TelemetrySettingsError as error:
        raise SettingsError(error.problems) from error
    # An event loop of its own: only there one time limit covers the connection, the headers and the body.
    return lambda: asyncio.run(_download(jwks, proxy, within_s))


def signing_keys(key_set: bytes) -> Sequence[PyJWK]:
    """Return the public keys of a JWK set that may sign tokens here.

    Left out are secrets, private keys, keys for another use, keys of other algorithms, and RSA keys that are too short.

    Raises:
        ValueError: it is no JWK set, has more than 100 keys, or none that may sign tokens here.
    """
    given = strict_object(key_set).get("keys")
    entries = cast("list[object]", given) if isinstance(given, list) else []
    if len(entries) > MAX_KEYS:
        raise ValueError(f"it has more than {MAX_KEYS} keys")
    usable = list(_usable(entries))
    if not usable:
        raise ValueError(f"it has no key for {', '.join(algorithm for _, algorithm in _KINDS)}")
    return usable


def _usable(entries: Sequence[object]) -> Iterator[PyJWK]:
    for entry in entries:
        if not isinstance(entry, dict):
            continue
        members = cast("dict[str, object]", entry)
        try:
            key = PyJWK(members)
        except (jwt.PyJWTError, ValueError, TypeError, AttributeError, KeyError, NotImplementedError):
            # Others may use this key; here it cannot.
            continue
        if _may_sign(key, members):
            yield key


def _may_sign(key: PyJWK, members: Mapping[str, object]) -> bool:
    kind = _KINDS.get((str(members.get("kty")), key.algorithm_name))
    operations = members.get("key_ops", ["verify"])
    if (
        kind is None
        or not isinstance(key.key, kind)
        or members.get("use", "sig") != "sig"
        or not isinstance(operations, list)
        or "verify" not in operations
        or not isinstance(members.get("kid", ""), str)
    ):
        return False
    if isinstance(key.key, EllipticCurvePublicKey):
        return isinstance(key.key.curve, SECP256R1)
    return not isinstance(key.key, RSAPublicKey) or key.key.key_size in _RSA_BITS


def _check_file(path: Path) -> None:
    try:
        signing_keys(_read(path))
    except OSError as error:
        found = cannot_be_read(path, error)
        # It may be a URL that is malformed.
        why = found.why.replace(str(path), shown(str(path)))
        raise SettingsError([f"AUDITRACE_JWT_JWKS: {why}"], is_unread=not found.is_missing) from error
    except ValueError as error:
        raise SettingsError([f"AUDITRACE_JWT_JWKS: {path} is no set of keys that sign tokens: {error}"]) from error


def _read(path: Path) -> bytes:
    return _within_limit(read_regular(path))


async def _download(url: str, proxy: str | None, within_s: float) -> bytes:
    # With a transport of its own the client reads no proxy variables itself.
    transport = httpx.AsyncHTTPTransport(proxy=proxy)
    body = b""
    async with (
        asyncio.timeout(within_s),
        httpx.AsyncClient(transport=transport, timeout=within_s, follow_redirects=False) as client,
        client.stream("GET", url, headers={"Accept-Encoding": "identity"}) as answer,
    ):
        answer.raise_for_status()
        if answer.headers.get("content-encoding", "identity").lower() != "identity":
            raise ValueError("the key set is compressed")
        async for part in answer.aiter_raw():
            body = _within_limit(body + part)
    return body


def _within_limit(body: bytes) -> bytes:
    if len(body) > MAX_BYTES:
        raise ValueError(f"the key set has more than {MAX_BYTES} bytes")
    return body

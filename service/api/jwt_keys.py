"""The public keys of an identity provider: how they are fetched, how long they are used, and which may sign tokens.

Source: RFC 7517 (key sets), RFC 8725 (algorithms are fixed here).
"""

import asyncio
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

import httpx
import jwt
from jwt import PyJWK, PyJWKSet

from service.errors import SettingsError, TryLaterError
from service.ports import Clock
from telemetry.errors import TelemetrySettingsError
from telemetry.files import cannot_be_read, read_regular
from telemetry.proxies import http_proxy
from telemetry.urls import shown

_log = logging.getLogger(__name__)

ALGORITHMS: Final = ("RS256", "ES256", "EdDSA")

_SECOND_NS: Final = 1_000_000_000
_FRESH_NS: Final = 600 * _SECOND_NS
_REFETCH_NS: Final = 30 * _SECOND_NS
_FETCH_TIMEOUT_S: Final = 5.0

_LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "::1"})

FetchKeys = Callable[[], bytes]
"""Returns a JWK set as JSON; blocks."""


class KeySet:
    """The provider's public keys; fetched when first needed, when stale, and when a token names an unknown one.

    A key that is taken out of the set is used for ten more minutes at most, while the set can be fetched. Unknown key
    ids cause at most one fetch in 30 s, so that forged tokens cannot make this service flood the provider. While the
    provider cannot be reached, the known keys stay in use.
    """

    def __init__(self, fetch: FetchKeys, clock: Clock) -> None:
        self._fetch = fetch
        self._clock = clock
        self._keys: Mapping[str | None, PyJWK] = {}
        self._fetched_ns: int | None = None
        self._tried_ns: int | None = None
        self._lock = asyncio.Lock()

    async def key(self, key_id: str | None) -> PyJWK | None:
        """Return the key of this id; without an id, the only key there is.

        Raises:
            TryLaterError: no keys could be fetched yet.
        """
        known = self._keys.get(key_id)
        if known is not None and self._lock.locked():
            # Requests with a known key do not wait for a fetch from a slow provider.
            return known
        async with self._lock:
            now_ns = self._clock()
            is_stale = self._fetched_ns is None or now_ns - self._fetched_ns > _FRESH_NS
            is_patient = self._tried_ns is not None and now_ns - self._tried_ns < _REFETCH_NS
            if (is_stale or key_id not in self._keys) and not is_patient:
                self._tried_ns = now_ns
                await self._refresh(now_ns)
            if self._fetched_ns is None:
                raise TryLaterError("the keys of the identity provider cannot be fetched", retry_after_s=30)
            return self._keys.get(key_id)

    def expire(self) -> None:
        """Fetch the keys again for the next token; from any thread. The known keys stay in use until then."""
        self._tried_ns = None
        if self._fetched_ns is not None:
            self._fetched_ns = 0

    async def _refresh(self, now_ns: int) -> None:
        try:
            keys = _usable((await asyncio.to_thread(self._fetch)).decode())
        except (OSError, ValueError, TypeError, AttributeError, httpx.HTTPError, jwt.PyJWTError):
            _log.warning("the keys of the identity provider could not be fetched", exc_info=True)
            return
        self._keys = {key.key_id: key for key in keys}
        if len(keys) == 1:
            self._keys = {**self._keys, None: keys[0]}
        self._fetched_ns = now_ns


def fetch_from(jwks: str, environment: Mapping[str, str] | None = None) -> FetchKeys:
    """Return how to read a JWK set from a file, an `https://` URL, or an `http://` URL of this machine.

    Args:
        jwks: the file or URL.
        environment: for the proxy variables; None to connect to the provider itself.

    Raises:
        SettingsError: the file holds no key set; the URL is another, over which a third party could add a key and act
            as anybody; or a proxy variable is wrong.
    """
    if "://" not in jwks:
        path = Path(jwks)
        _check_file(path)
        return lambda: read_regular(path)
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

    def fetch() -> bytes:
        # With a transport of its own the client reads no proxy variables itself.
        with httpx.Client(transport=httpx.HTTPTransport(proxy=proxy), timeout=_FETCH_TIMEOUT_S) as client:
            return client.get(jwks).raise_for_status().content

    return fetch


def _check_file(path: Path) -> None:
    try:
        _usable(read_regular(path).decode())
    except OSError as error:
        found = cannot_be_read(path, error)
        # It may be a URL that is malformed.
        why = found.why.replace(str(path), shown(str(path)))
        raise SettingsError([f"AUDITRACE_JWT_JWKS: {why}"], is_unread=not found.is_missing) from error
    except (ValueError, TypeError, AttributeError, jwt.PyJWTError) as error:
        raise SettingsError([f"AUDITRACE_JWT_JWKS: {path} is no set of keys that sign tokens: {error}"]) from error


def _usable(key_set: str) -> list[PyJWK]:
    """Return the public keys of a JWK set that may sign tokens here, never secrets or encryption keys."""
    keys = PyJWKSet.from_json(key_set).keys
    usable = [key for key in keys if key.algorithm_name in ALGORITHMS and key.public_key_use in {None, "sig"}]
    if not usable:
        raise ValueError(f"the key set holds no key for {', '.join(ALGORITHMS)}")
    return usable

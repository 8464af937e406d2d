"""JSON Web Tokens of an identity provider as credentials: signature, issuer, audience, time, roles and tenant.

Source: RFC 7519 (claims), RFC 8725 (algorithms are fixed here, never taken from the token), RFC 7517 (key sets).
"""

import asyncio
import logging
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, cast

import httpx
import jwt
from jwt import PyJWK, PyJWKSet

from service.api.auth import Credential
from service.api.jwt_settings import JwtSettings
from service.api.texts import is_plain
from service.errors import SettingsError, TryLaterError, UnauthenticatedError
from service.identifiers import MAX_CHARACTERS, as_seen, check_identifier
from service.jobs.model import DEFAULT_TENANT, TenantId
from service.operations.keys import COMMAND_ACTORS, RESERVED_ACTORS
from service.ports import Clock
from service.roles import ROLES
from telemetry.audit.record import Actor
from telemetry.errors import TelemetrySettingsError
from telemetry.files import cannot_be_read
from telemetry.proxies import http_proxy

_log = logging.getLogger(__name__)

ALGORITHMS: Final = ("RS256", "ES256", "EdDSA")
LEEWAY_S: Final = 30

_SECOND_NS: Final = 1_000_000_000
_FRESH_NS: Final = 600 * _SECOND_NS
_REFETCH_NS: Final = 30 * _SECOND_NS
_FETCH_TIMEOUT_S: Final = 5.0
# The last second of the year 9999: RFC 3339 writes no later time.
_LAST_S: Final = 253_402_300_799

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


class JwtAuthenticator:
    """Checks tokens against the provider's keys. The actor is the subject, a `user` of the provider."""

    def __init__(self, settings: JwtSettings, keys: KeySet, clock: Clock) -> None:
        self._settings = settings
        self._keys = keys
        self._clock = clock

    async def authenticate(self, token: str) -> Credential:
        """Return the credential of `token`.

        Raises:
            UnauthenticatedError: it is malformed, expired, of another issuer or audience, or not signed by the keys.
            TryLaterError: the keys cannot be fetched.
        """
        try:
            header = jwt.get_unverified_header(token)
            key = await self._keys.key(cast("str | None", header.get("kid")))
            if key is None:
                raise UnauthenticatedError("the token is signed by a key that is not known")
            claims = self._claims(token, key)
        except (jwt.PyJWTError, ValueError, TypeError) as error:
            raise UnauthenticatedError("the token does not hold: signature, issuer, audience or form") from error
        self._require_time(claims)
        # The leeway is for differing clocks; it does not make the token valid for longer.
        expires_ns = min(int(claims["exp"]), _LAST_S) * _SECOND_NS
        actor = Actor(self._subject(claims), "user", self._settings.issuer)
        return Credential(
            actor,
            self._tenant(claims),
            self._roles(claims),
            "jwt",
            expires_ns,
            self._id(claims),
            self._person(claims),
        )

    def _claims(self, token: str, key: PyJWK) -> Mapping[str, Any]:
        # Times are checked here by the service's clock, not by PyJWT's.
        options = {
            "require": ["exp", "iss", "aud", "sub"],
            "verify_exp": False,
            "verify_nbf": False,
            "verify_iat": False,
            "enforce_minimum_key_length": True,
        }
        return jwt.decode(
            token,
            key,
            algorithms=[key.algorithm_name],
            audience=self._settings.audience,
            issuer=self._settings.issuer,
            options=cast("Any", options),
        )

    def _require_time(self, claims: Mapping[str, Any]) -> None:
        now_s = self._clock() / _SECOND_NS
        not_before, expires = claims.get("nbf", 0), claims["exp"]
        if not _is_time(expires) or not _is_time(not_before):
            raise UnauthenticatedError("the token's times are not numbers")
        if expires + LEEWAY_S <= now_s:
            raise UnauthenticatedError("the token has expired: sign in again")
        if not_before - LEEWAY_S > now_s:
            raise UnauthenticatedError("the token is not valid yet")

    def _subject(self, claims: Mapping[str, Any]) -> str:
        # The subjects of a provider may begin with `node-`, like the ids of workers: the issuer tells them apart.
        subject = _identifier(claims, "sub")
        if subject is None or as_seen(subject) in RESERVED_ACTORS or as_seen(subject).startswith(COMMAND_ACTORS):
            raise UnauthenticatedError("the token's sub cannot be an actor: the service uses it itself")
        return subject

    def _person(self, claims: Mapping[str, Any]) -> str | None:
        return None if self._settings.person_claim is None else _identifier(claims, self._settings.person_claim)

    def _id(self, claims: Mapping[str, Any]) -> str | None:
        token_id: object = claims.get("jti")
        if token_id is not None and not (
            isinstance(token_id, str) and 0 < len(token_id) <= MAX_CHARACTERS and is_plain(token_id)
        ):
            raise UnauthenticatedError(f"the token's jti is not a text of 1 to {MAX_CHARACTERS} characters")
        return token_id

    def _tenant(self, claims: Mapping[str, Any]) -> TenantId:
        if self._settings.tenant_claim is None:
            return DEFAULT_TENANT
        tenant = _identifier(claims, self._settings.tenant_claim)
        if tenant is None:
            raise UnauthenticatedError("the token names no tenant")
        return TenantId(tenant)

    def _roles(self, claims: Mapping[str, Any]) -> frozenset[str]:
        stated: object = claims.get(self._settings.roles_claim, ())
        if isinstance(stated, str):
            stated = stated.split()
        given = cast("list[object]", stated) if isinstance(stated, list) else []
        return frozenset(role for role in ROLES if role in given)


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
        return path.read_bytes
    try:
        url = httpx.URL(jwks)
    except httpx.InvalidURL as error:
        raise SettingsError([f"AUDITRACE_JWT_JWKS is no https:// URL: {error}"]) from error
    if url.userinfo:
        raise SettingsError(["AUDITRACE_JWT_JWKS: credentials do not belong into the URL"])
    if url.scheme != "https" and not (url.scheme == "http" and url.host in _LOOPBACK):
        raise SettingsError([f"AUDITRACE_JWT_JWKS is {jwks}; expected a file or an https:// URL"])
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
        _usable(path.read_text("utf-8"))
    except OSError as error:
        found = cannot_be_read(path, error)
        raise SettingsError([f"AUDITRACE_JWT_JWKS: {found.why}"], is_unread=not found.is_missing) from error
    except (ValueError, TypeError, AttributeError, jwt.PyJWTError) as error:
        raise SettingsError([f"AUDITRACE_JWT_JWKS: {path} is no set of keys that sign tokens: {error}"]) from error


def _usable(key_set: str) -> list[PyJWK]:
    """Return the public keys of a JWK set that may sign tokens here, never secrets or encryption keys."""
    keys = PyJWKSet.from_json(key_set).keys
    usable = [key for key in keys if key.algorithm_name in ALGORITHMS and key.public_key_use in {None, "sig"}]
    if not usable:
        raise ValueError(f"the key set holds no key for {', '.join(ALGORITHMS)}")
    return usable


def _is_time(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _identifier(claims: Mapping[str, Any], claim: str) -> str | None:
    """Return the identifier that a claim holds; None if the token has no such claim."""
    text: object = claims.get(claim)
    if text is None:
        return None
    if not isinstance(text, str):
        raise UnauthenticatedError(f"the token's {claim} cannot be used: it is no text")
    try:
        return check_identifier(text)
    except ValueError as error:
        raise UnauthenticatedError(f"the token's {claim} cannot be used: {error}") from error

"""JSON Web Tokens of an identity provider as credentials: signature, issuer, audience, time, roles and tenant.

Source: RFC 7519 (claims), RFC 8725 (algorithms are those of the keys, never taken from the token), RFC 9068 (`at+jwt`).
"""

import base64
import re
from collections.abc import Mapping
from typing import Any, Final, cast

import jwt
from jwt import PyJWK

from service.api.auth import Credential, is_reserved
from service.api.jwt_keys import KeySet
from service.api.jwt_settings import JwtSettings
from service.api.strict_json import strict_object
from service.api.texts import is_plain
from service.errors import UnauthenticatedError
from service.identifiers import MAX_CHARACTERS, check_identifier
from service.jobs.model import DEFAULT_TENANT, TenantId
from service.ports import Clock
from service.roles import ROLES
from telemetry.audit.record import Actor

LEEWAY_S: Final = 30

_SECOND_NS: Final = 1_000_000_000
# The last second of the year 9999: RFC 3339 writes no later time.
_LAST_S: Final = 253_402_300_799
_FORM: Final = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+")
_MAX_HEAD_CHARACTERS: Final = 4096
_TYPES: Final = frozenset({"jwt", "at+jwt"})


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
            key = await self._keys.key(_key_id(token))
            if key is None:
                raise UnauthenticatedError("the token is signed by a key that is not known")
            claims = self._claims(token, key)
        except (jwt.PyJWTError, ValueError, TypeError) as error:
            raise UnauthenticatedError("the token does not hold: signature, issuer, audience or form") from error
        self._require_time(claims)
        # The leeway is for differing clocks; it does not make the token valid for longer.
        expires_ns = int(claims["exp"]) * _SECOND_NS
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
        # PyJWT would use the last one of two members of one name.
        strict_object(_decoded(token.split(".")[1]))
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
        times = {name: claims[name] for name in ("exp", "nbf", "iat") if name in claims}
        if not all(_is_time(time) for time in times.values()):
            raise UnauthenticatedError("the token's times are no numbers from 1970 to 9999")
        expires, issued = times["exp"], times.get("iat", now_s)
        if expires + LEEWAY_S <= now_s:
            raise UnauthenticatedError("the token has expired: sign in again")
        if max(times.get("nbf", 0), issued) - LEEWAY_S > now_s:
            raise UnauthenticatedError("the token is not valid yet")
        if expires - issued > self._settings.max_life_s:
            raise UnauthenticatedError(f"the token is valid for longer than {self._settings.max_life_s} s")

    def _subject(self, claims: Mapping[str, Any]) -> str:
        # The subjects of a provider may begin with `node-`, like the ids of workers: the issuer tells them apart.
        subject = _identifier(claims, "sub")
        if subject is None or is_reserved(subject):
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


def _key_id(token: str) -> str | None:
    """Return the id of the key that signed the token, by its head, which is not verified yet.

    Raises:
        ValueError: the form of the token, or a member of its head, is not accepted.
    """
    head, _, _ = token.partition(".")
    if _FORM.fullmatch(token) is None or len(head) > _MAX_HEAD_CHARACTERS:
        raise ValueError("it is not three texts of base64url without padding, or its head is too long")
    members = strict_object(_decoded(head))
    kind, key_id = members.get("typ", "jwt"), members.get("kid")
    if not isinstance(kind, str) or kind.lower().removeprefix("application/") not in _TYPES:
        raise ValueError("its typ is neither JWT nor at+jwt")
    if "crit" in members or "b64" in members:
        # RFC 7515, 4.1.11: what is not understood must be refused. Nothing of this is understood.
        raise ValueError("it has a critical extension")
    if key_id is not None and not isinstance(key_id, str):
        raise ValueError("its kid is no text")
    return key_id


def _decoded(segment: str) -> bytes:
    return base64.urlsafe_b64decode(segment + "=" * (-len(segment) % 4))


def _is_time(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= _LAST_S


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

"""JSON Web Tokens of an identity provider as credentials: signature, issuer, audience, time, roles and tenant.

Source: RFC 7519 (claims), RFC 8725 (algorithms are those of the keys, never taken from the token).
"""

import math
from collections.abc import Mapping
from typing import Any, Final, cast

import jwt
from jwt import PyJWK

from service.api.auth import Credential
from service.api.jwt_keys import KeySet
from service.api.jwt_settings import JwtSettings
from service.api.texts import is_plain
from service.errors import UnauthenticatedError
from service.identifiers import MAX_CHARACTERS, as_seen, check_identifier
from service.jobs.model import DEFAULT_TENANT, TenantId
from service.operations.key_names import COMMAND_ACTORS, RESERVED_ACTORS
from service.ports import Clock
from service.roles import ROLES
from telemetry.audit.record import Actor

LEEWAY_S: Final = 30

_SECOND_NS: Final = 1_000_000_000
# The last second of the year 9999: RFC 3339 writes no later time.
_LAST_S: Final = 253_402_300_799


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

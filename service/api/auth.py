"""Turns the bearer token of a request into a credential, or refuses the request as unauthenticated.

The actor of an API key is its name; the actor type is `service` when its only role is `emitter` (a program that sends
its records), else `user`. The actor comes from the token alone.
"""

import asyncio
import hashlib
from collections.abc import Sequence
from typing import Final, Literal, Protocol, TypeAlias

import msgspec

from service.api.key_uses import ApiKeyUses
from service.errors import UnauthenticatedError
from service.identifiers import as_seen
from service.jobs.model import TenantId
from service.operations.budgets import Owner
from service.operations.covered_keys import CoveredKeys
from service.operations.key_names import COMMAND_ACTORS, RESERVED_ACTORS
from service.ports import ApiKey, Clock
from service.roles import EMITTER
from telemetry.audit.chain import rfc3339_nanos
from telemetry.audit.record import KEY_ISSUER, Actor

KEY_PREFIX: Final = "atk_"
_MAX_TOKEN_CHARACTERS: Final = 8192


CredentialKind: TypeAlias = Literal["none", "api_key", "jwt", "proxy"]


class Credential(msgspec.Struct, frozen=True):
    """The actor, tenant and roles of a request. `expires_ns` None means no end, unless the key is revoked.

    `credential_id` is the id of the API key, or the `jti` of the token if it has one. `person` is whose key or token it
    is, None if not known.
    """

    actor: Actor
    tenant_id: TenantId
    roles: frozenset[str]
    kind: CredentialKind
    expires_ns: int | None = None
    credential_id: str | None = None
    person: str | None = None

    @property
    def owner(self) -> Owner:
        """Whose credential it is."""
        return self.tenant_id, self.actor.issuer or "", self.actor.id


class Authenticator(Protocol):
    """Turns a bearer token into a credential."""

    async def authenticate(self, token: str) -> Credential:
        """Return the credential of `token`.

        Raises:
            UnauthenticatedError: it is not valid, or no longer.
            TryLaterError: it cannot be checked now.
        """
        ...


class ApiKeyAuthenticator:
    """Checks `atk_<id>_<secret>` against the stored hash, and the stored key against the ledger.

    The key is read for each request, so one that was revoked is refused from the next request on.
    """

    def __init__(self, keys: CoveredKeys, uses: ApiKeyUses, clock: Clock) -> None:
        self._keys = keys
        self._uses = uses
        self._clock = clock

    async def authenticate(self, token: str) -> Credential:
        """Return the credential of an API key."""
        key_id, _, secret = token.removeprefix(KEY_PREFIX).partition("_")
        key = await asyncio.to_thread(self._keys.find, key_id) if key_id.isalnum() else None
        given = hashlib.sha256(secret.encode(errors="surrogatepass")).hexdigest()
        key = self._accepted(key, given)
        if not self._keys.is_checked(key):
            # It may have changed meanwhile.
            key = self._accepted(await asyncio.to_thread(self._keys.check, key_id), given)
        self._uses.note(key_id)
        return credential_of(key)

    def _accepted(self, key: ApiKey | None, given: str) -> ApiKey:
        now_ns = self._clock()
        if key is None or not key.accepts(given, now_ns):
            if key is not None and key.is_replaced(given):
                raise UnauthenticatedError("the API key was rotated, and this secret of it is no longer accepted")
            raise UnauthenticatedError("the API key is not known: check that it was copied whole")
        if key.revoked_ns is not None:
            raise UnauthenticatedError("the API key was revoked")
        if key.expires_ns is not None and key.expires_ns <= now_ns:
            ended = rfc3339_nanos(key.expires_ns)
            raise UnauthenticatedError(f"the API key expired at {ended}: ask an administrator for another")
        return key


class BearerAuthenticator:
    """Tells API keys and JSON Web Tokens apart by their form; without `tokens`, it accepts API keys only."""

    def __init__(self, keys: Authenticator, tokens: Authenticator | None = None) -> None:
        self._keys = keys
        self._tokens = tokens

    async def authenticate(self, token: str) -> Credential:
        """Return the credential of an API key or a JSON Web Token."""
        if token.startswith(KEY_PREFIX):
            return await self._keys.authenticate(token)
        if self._tokens is not None and token.count(".") == 2:
            return await self._tokens.authenticate(token)
        raise UnauthenticatedError(
            "the bearer token is neither an API key (atk_…) nor a JSON Web Token that is accepted here"
        )


def is_reserved(actor_id: str) -> bool:
    """Return whether people could take this for an actor that the service itself names, or for one of a command."""
    seen = as_seen(actor_id)
    return seen in RESERVED_ACTORS or seen.startswith(COMMAND_ACTORS)


def credential_of(key: ApiKey) -> Credential:
    """Return the credential of an API key."""
    actor = Actor(key.name, "service" if key.roles == (EMITTER,) else "user", KEY_ISSUER)
    return Credential(actor, key.tenant_id, frozenset(key.roles), "api_key", key.expires_ns, key.key_id, key.person)


def bearer_token(authorizations: Sequence[str]) -> str:
    """Return the token of the `Authorization` headers of a request (RFC 6750, 2.1).

    Raises:
        UnauthenticatedError: there is none, more than one, or one of another scheme.
    """
    if not authorizations:
        raise UnauthenticatedError("this needs an API key or token: Authorization: Bearer …")
    if len(authorizations) > 1:
        raise UnauthenticatedError("the Authorization header is given twice")
    scheme, _, token = authorizations[0].partition(" ")
    token = token.strip()
    if scheme.lower() != "bearer" or not token or len(token) > _MAX_TOKEN_CHARACTERS:
        raise UnauthenticatedError("the Authorization header is not of the form: Bearer …")
    return token

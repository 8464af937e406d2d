"""The operations of operators on API keys: create a key, which is shown once, and revoke a key."""

import hashlib
import re
import secrets
from collections.abc import Sequence
from typing import Final

import msgspec

from service.errors import ConflictError, InvalidRequestError, NotFoundError
from service.identifiers import as_seen, check_identifier
from service.jobs.model import TenantId
from service.operations.base import Committed, Operation
from service.operations.steps import Decision, Step
from service.ports import ApiKey, PutKey, RevokeKey, Transaction
from service.records import Fact, change
from service.roles import ADMIN, ROLES, require
from telemetry import names
from telemetry.audit.chain import rfc3339_nanos
from telemetry.audit.record import Result, Target

_SECRET_BYTES: Final = 32
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")
_TENANT: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
# The actor ids of requests without a credential, and of the service itself.
RESERVED_ACTORS: Final = frozenset({"anonymous", "auditrace"})
# Those of people who give commands begin so; no name of a key can.
COMMAND_ACTORS: Final = "os:"
_WORKERS: Final = "node-"


class NewKey(msgspec.Struct, frozen=True, kw_only=True):
    """A new key, as it is shown once. `key` is the whole token; only a hash of its secret is stored."""

    id: str
    name: str
    key: str
    roles: tuple[str, ...]
    tenant: str


class KeyOperations(Operation):
    """The key operations of one command. Each blocks, and returns after its record is committed.

    Raises (each method):
        RefusedError: refused; the record of the refusal is committed.
        TryLaterError: nothing was committed.
    """

    def create(
        self,
        name: str,
        roles: Sequence[str],
        tenant_id: TenantId,
        expires_ns: int | None = None,
        person: str | None = None,
    ) -> Committed[NewKey]:
        """Create a key. `name` becomes the actor id. No other key of the tenant can ever get it, in whatever case.

        Args:
            name: the name of the key.
            roles: the roles of the actor.
            tenant_id: the tenant of the actor.
            expires_ns: the time from which the key is refused, in nanoseconds since 1970; None is never.
            person: whose key it is, for the four-eyes rule; None if that is not known.
        """
        key_id = self.services.new_id().replace("-", "")
        secret = secrets.token_urlsafe(_SECRET_BYTES)
        target = _target(name)

        def decide(transaction: Transaction, now_ns: int) -> Decision[NewKey]:
            require(self.context.roles, ADMIN)
            ordered = _checked(name, roles, tenant_id, person)
            _require_unlike(transaction.keys(), name, tenant_id)
            key = ApiKey(
                key_id=key_id,
                name=name,
                tenant_id=tenant_id,
                roles=ordered,
                secret_sha256=hashlib.sha256(secret.encode()).hexdigest(),
                created_ns=now_ns,
                expires_ns=expires_ns,
                person=person,
            )
            changes = {"id": change(None, key_id), "roles": change(None, ordered), "tenant": change(None, tenant_id)}
            if expires_ns is not None:
                changes["expires_at"] = change(None, rfc3339_nanos(expires_ns))
            if person is not None:
                changes["person"] = change(None, person)
            fact = Fact(event_name=names.EVENT_KEY_CREATE, target=target, result=Result.SUCCESS, changes=changes)
            shown = NewKey(id=key_id, name=name, key=f"atk_{key_id}_{secret}", roles=ordered, tenant=tenant_id)
            return Decision([Step(fact=fact, writes=(PutKey(key),))], shown)

        return self.attempt_now(names.EVENT_KEY_CREATE, target, decide)

    def revoke(self, name: str, tenant_id: TenantId) -> Committed[ApiKey]:
        """Revoke a key by its name; it is refused from the next request on. A second revocation is a no-op."""
        target = _target(name)

        def decide(transaction: Transaction, now_ns: int) -> Decision[ApiKey]:
            require(self.context.roles, ADMIN)
            is_named = _NAME.fullmatch(name) and _TENANT.fullmatch(tenant_id)
            key = transaction.key_named(tenant_id, name) if is_named else None
            if key is None:
                raise NotFoundError(f"there is no key named {name!a} in this tenant")
            if key.revoked_ns is not None:
                noop = Fact(event_name=names.EVENT_KEY_REVOKE, target=target, result=Result.NOOP)
                return Decision([Step(fact=noop)], key)
            changes = {
                "id": change(key.key_id, None),
                "roles": change(key.roles, None),
                "tenant": change(tenant_id, None),
            }
            fact = Fact(event_name=names.EVENT_KEY_REVOKE, target=target, result=Result.SUCCESS, changes=changes)
            step = Step(fact=fact, writes=(RevokeKey(key.key_id, now_ns),))
            return Decision([step], msgspec.structs.replace(key, revoked_ns=now_ns))

        return self.attempt_now(names.EVENT_KEY_REVOKE, target, decide)


def _target(name: str) -> Target:
    # A command line can hold bytes that are not text; a record cannot.
    return Target("key", name.encode(errors="replace").decode())


def _checked(name: str, roles: Sequence[str], tenant_id: str, person: str | None) -> tuple[str, ...]:
    is_reserved = as_seen(name) in RESERVED_ACTORS or as_seen(name).startswith(_WORKERS)
    if _NAME.fullmatch(name) is None or is_reserved:
        raise InvalidRequestError(
            "a key's name is 1 to 64 of A-Z a-z 0-9 . _ @ -, neither anonymous nor auditrace, and does not begin with "
            "node- as those of workers do"
        )
    if _TENANT.fullmatch(tenant_id) is None:
        raise InvalidRequestError("a tenant is 1 to 64 of A-Z a-z 0-9 . _ -")
    try:
        check_identifier("-" if person is None else person)
    except ValueError as error:
        raise InvalidRequestError(f"the person of a key cannot have this name: {error}") from error
    unknown = sorted(set(roles) - set(ROLES))
    if unknown or not roles:
        given = ", ".join(map(ascii, unknown)) or "none"
        raise InvalidRequestError(f"roles are {', '.join(ROLES)}; given: {given}")
    return tuple(role for role in ROLES if role in roles)


def _require_unlike(keys: Sequence[ApiKey], name: str, tenant_id: TenantId) -> None:
    """Require a name that looks like no other one of the tenant, and a tenant that looks like no other one.

    What looked alike before this was checked continues to work.
    """
    alike = [key for key in keys if as_seen(key.tenant_id) == as_seen(tenant_id)]
    tenants = {key.tenant_id for key in alike}
    if tenants and tenant_id not in tenants:
        raise ConflictError(f"the tenant {tenant_id} looks like the tenant {min(tenants)}: use that, or another name")
    taken = [key.name for key in alike if key.tenant_id == tenant_id and as_seen(key.name) == as_seen(name)]
    if taken:
        which = f"the name {name!r}" if name in taken else f"the name {name!r}, which looks like {taken[0]!r},"
        raise ConflictError(f"{which} is taken in this tenant: names of keys are never given again")

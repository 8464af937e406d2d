"""The operations on API keys: create a key, which is shown once, give it a new secret, and revoke it."""

import hashlib
import re
import secrets
from collections.abc import Callable, Sequence
from typing import Final, Generic, TypeVar

import msgspec

from service.errors import ConflictError, InvalidRequestError, NotFoundError
from service.jobs.model import TenantId
from service.key_coverage import SECRET_SHA256
from service.operations.base import Committed, Operation
from service.operations.idempotency import done_before, remembering
from service.operations.key_names import NAME, TENANT, checked_roles, key_target, require_unlike
from service.operations.steps import Decision, Step
from service.ports import ApiKey, KeySecret, PutKey, PutKeySecret, RevokeKey, Transaction
from service.records import Fact, change
from service.roles import ADMIN, require
from telemetry import names
from telemetry.audit.chain import rfc3339_nanos
from telemetry.audit.record import Result, Target

T = TypeVar("T")

DEFAULT_OVERLAP_MS: Final = 3_600_000
MAX_OVERLAP_MS: Final = 7 * 86_400_000
"""How long the secret before a rotation is accepted."""

_SECRET_BYTES: Final = 32
_NS_PER_MS: Final = 1_000_000
_MS_PER_DAY: Final = 86_400_000
_KEY_ID: Final = re.compile(r"[0-9A-Za-z]{1,64}", re.ASCII)


class IssuedKey(msgspec.Struct, frozen=True):
    """A key with the token of its new secret, which is shown once; only a hash of the secret is stored.

    `token` is None in the answer to a repeated request, because nobody knows it any more.
    """

    stored: ApiKey
    token: str | None

    @property
    def id(self) -> str:
        """The id of the key."""
        return self.stored.key_id

    @property
    def key(self) -> str:
        """The token.

        Raises:
            ValueError: it is not known any more.
        """
        if self.token is None:
            raise ValueError("the key was shown once, to the request that is repeated")
        return self.token


class Attempt(msgspec.Struct, Generic[T], frozen=True):
    """What `Operation.attempt` carries out: the event, the target that a refusal names, and the decision."""

    event_name: str
    target: Target
    decide: Callable[[Transaction, int], Decision[T]]


class KeyChoice(msgspec.Struct, frozen=True):
    """Which key of a tenant is meant: the one with this `name`, or else with this `key_id`."""

    tenant_id: TenantId
    name: str | None = None
    key_id: str | None = None

    @property
    def target(self) -> Target:
        """The target of a refusal."""
        return key_target(self.name or self.key_id or "")

    def find(self, transaction: Transaction) -> ApiKey:
        """Return it, and keep others from changing it until the transaction ends.

        Raises:
            NotFoundError: the tenant has no such key.
        """
        transaction.one_changes_keys()
        key = None
        if self.name is not None and NAME.fullmatch(self.name) and TENANT.fullmatch(self.tenant_id):
            key = transaction.key_named(self.tenant_id, self.name)
        elif self.key_id is not None and _KEY_ID.fullmatch(self.key_id):
            key = transaction.key(self.key_id)
        if key is None or key.tenant_id != self.tenant_id:
            raise NotFoundError(
                "there is no such key in this tenant"
                if self.name is None
                else f"there is no key named {self.name!a} in this tenant"
            )
        return key


class KeyOperations(Operation):
    """The key operations of one command or request, each as an attempt; the methods for commands carry it out.

    Raises (each method for commands; it blocks, and returns after the record is committed):
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
    ) -> Committed[IssuedKey]:
        """Create a key, as `creating` says."""
        return self.carry_out(self.creating(name, roles, tenant_id, expires_ns, person))

    def rotate(self, name: str, tenant_id: TenantId, overlap_ms: int = DEFAULT_OVERLAP_MS) -> Committed[IssuedKey]:
        """Give a key a new secret, as `rotating` says."""
        return self.carry_out(self.rotating(KeyChoice(tenant_id, name), overlap_ms))

    def revoke(self, name: str, tenant_id: TenantId) -> Committed[ApiKey]:
        """Revoke a key, as `revoking` says."""
        return self.carry_out(self.revoking(KeyChoice(tenant_id, name)))

    def carry_out(self, attempt: Attempt[T]) -> Committed[T]:
        """Carry out an attempt in a thread that may block."""
        return self.attempt_now(attempt.event_name, attempt.target, attempt.decide)

    async def carry_out_for_client(self, attempt: Attempt[T]) -> Committed[T]:
        """Carry out an attempt for a request."""
        return await self.attempt(attempt.event_name, attempt.target, attempt.decide)

    def creating(
        self,
        name: str,
        roles: Sequence[str],
        tenant_id: TenantId,
        expires_ns: int | None = None,
        person: str | None = None,
    ) -> Attempt[IssuedKey]:
        """Create a key. `name` becomes the actor id. No other key of the tenant can ever get it, in whatever case.

        Args:
            name: the name of the key.
            roles: the roles of the actor.
            tenant_id: the tenant of the actor.
            expires_ns: the time from which the key is refused, in nanoseconds since 1970; None is never.
            person: whose key it is, for the four-eyes rule; None if that is not known.
        """
        key_id = self.services.new_id().replace("-", "")
        record_id = self.services.new_id()
        token, secret_sha256 = _new_secret(key_id)
        target = key_target(name)

        def decide(transaction: Transaction, now_ns: int) -> Decision[IssuedKey]:
            require(self.context.roles, ADMIN)
            made_before = done_before(transaction, self.context, None)
            if made_before is not None:
                return _replay(transaction, names.EVENT_KEY_CREATE, made_before)
            ordered = checked_roles(name, roles, tenant_id, person)
            require_unlike(transaction.keys(), name, tenant_id)
            key = ApiKey(
                key_id=key_id,
                name=name,
                tenant_id=tenant_id,
                roles=ordered,
                secret_sha256=secret_sha256,
                created_ns=now_ns,
                expires_ns=expires_ns,
                person=person,
                secret=KeySecret(number=1, secret_sha256=secret_sha256, made_ns=now_ns, record_id=record_id),
            ).authenticated(self.services.secret)
            changes = {
                "id": change(None, key_id),
                "roles": change(None, ordered),
                "tenant": change(None, tenant_id),
                SECRET_SHA256: change(None, secret_sha256),
            }
            if expires_ns is not None:
                changes["expires_at"] = change(None, rfc3339_nanos(expires_ns))
            if person is not None:
                changes["person"] = change(None, person)
            fact = Fact(event_name=names.EVENT_KEY_CREATE, target=target, result=Result.SUCCESS, changes=changes)
            step = Step(fact=fact, writes=(PutKey(key),), record_id=record_id)
            return remembering(Decision([step], IssuedKey(key, token)), key_id, self.context, now_ns)

        return Attempt(names.EVENT_KEY_CREATE, target, decide)

    def rotating(self, choice: KeyChoice, overlap_ms: int) -> Attempt[IssuedKey]:
        """Give a key a new secret. The secret before is accepted for `overlap_ms` more, and those before it no more.

        Name, roles, person and end of the key stay as they are.
        """
        record_id = self.services.new_id()

        def decide(transaction: Transaction, now_ns: int) -> Decision[IssuedKey]:
            require(self.context.roles, ADMIN)
            done = done_before(transaction, self.context, choice.key_id)
            if done is not None:
                return _replay(transaction, names.EVENT_KEY_ROTATE, done)
            if not 0 <= overlap_ms <= MAX_OVERLAP_MS:
                raise InvalidRequestError(f"the overlap is at most {MAX_OVERLAP_MS // _MS_PER_DAY}d")
            key = choice.find(transaction)
            _require_in_use(key, now_ns)
            if key.secret is None or not key.is_authentic(self.services.secret):
                raise ConflictError(
                    "the ledger does not cover this key: use it once if an older version made it, else make another one"
                )
            token, secret_sha256 = _new_secret(key.key_id)
            until_ns = now_ns + overlap_ms * _NS_PER_MS
            present = KeySecret(
                number=key.secret.number + 1,
                secret_sha256=secret_sha256,
                made_ns=now_ns,
                previous_sha256=key.secret.secret_sha256,
                previous_until_ns=until_ns,
                record_id=record_id,
            )
            rotated = msgspec.structs.replace(key, secret=present).authenticated(self.services.secret)
            changes = {
                "id": change(key.key_id, key.key_id),
                "tenant": change(key.tenant_id, key.tenant_id),
                SECRET_SHA256: change(key.secret.secret_sha256, secret_sha256),
                "overlap_until": change(None, rfc3339_nanos(until_ns)),
            }
            fact = Fact(
                event_name=names.EVENT_KEY_ROTATE, target=key_target(key.name), result=Result.SUCCESS, changes=changes
            )
            step = Step(fact=fact, writes=(PutKeySecret(rotated),), record_id=record_id)
            return remembering(Decision([step], IssuedKey(rotated, token)), key.key_id, self.context, now_ns)

        return Attempt(names.EVENT_KEY_ROTATE, choice.target, decide)

    def revoking(self, choice: KeyChoice) -> Attempt[ApiKey]:
        """Revoke a key; it is refused from the next request on. A second revocation is a no-op."""

        def decide(transaction: Transaction, now_ns: int) -> Decision[ApiKey]:
            require(self.context.roles, ADMIN)
            key = choice.find(transaction)
            target = key_target(key.name)
            if key.revoked_ns is not None:
                noop = Fact(event_name=names.EVENT_KEY_REVOKE, target=target, result=Result.NOOP)
                return Decision([Step(fact=noop)], key)
            changes = {
                "id": change(key.key_id, None),
                "roles": change(key.roles, None),
                "tenant": change(key.tenant_id, None),
            }
            fact = Fact(event_name=names.EVENT_KEY_REVOKE, target=target, result=Result.SUCCESS, changes=changes)
            step = Step(fact=fact, writes=(RevokeKey(key.key_id, now_ns),))
            return Decision([step], msgspec.structs.replace(key, revoked_ns=now_ns))

        return Attempt(names.EVENT_KEY_REVOKE, choice.target, decide)


def _new_secret(key_id: str) -> tuple[str, str]:
    """Return the token with a new secret, and the hash of the secret."""
    secret = secrets.token_urlsafe(_SECRET_BYTES)
    return f"atk_{key_id}_{secret}", hashlib.sha256(secret.encode()).hexdigest()


def _replay(transaction: Transaction, event_name: str, key_id: str) -> Decision[IssuedKey]:
    key = transaction.key(key_id)
    if key is None:
        raise NotFoundError("the key of the request that is repeated is not there")
    fact = Fact(event_name=event_name, target=key_target(key.name), result=Result.NOOP)
    return Decision([Step(fact=fact)], IssuedKey(key, None), is_replay=True)


def _require_in_use(key: ApiKey, now_ns: int) -> None:
    if key.revoked_ns is not None:
        raise ConflictError("the key was revoked: make another one")
    if key.expires_ns is not None and key.expires_ns <= now_ns:
        raise ConflictError("the key has expired: make another one")

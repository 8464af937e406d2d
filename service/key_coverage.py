"""Tells whether an API key is what the ledger says: the MAC shows who stored it, and the records that it is the newest.

Whoever can only write the database cannot make the MAC, so no key can be made and none changed. An older state of the
key has a good MAC too, so the records decide: they state each secret and the revocation. A record that is removed
breaks the chain of hashes, which verification finds.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from service.ports import ApiKey, KeyRecord
from service.secrets import DeploymentSecret
from telemetry import names
from telemetry.audit.chain import rfc3339_nanos

SECRET_SHA256: Final = "secret_sha256"  # noqa: S105 - the name of a change in a record
_OF_SECRETS: Final = (names.EVENT_KEY_CREATE, names.EVENT_KEY_ADOPT, names.EVENT_KEY_ROTATE)


class KeyCoverage(msgspec.Struct, frozen=True):
    """Whether the ledger covers a key: it does when there is no `problem`, and nothing is awaited.

    `awaits` is the record by which an older version made the key: if that record is genuine, the key can be adopted.
    """

    problem: str | None = None
    awaits: KeyRecord | None = None


class _Attributes(msgspec.Struct, frozen=True):
    changes: Mapping[str, Mapping[str, Any]] = msgspec.field(
        name=names.AUDITRACE_CHANGES, default_factory=dict[str, Mapping[str, Any]]
    )


class _Body(msgspec.Struct, frozen=True):
    attributes: _Attributes


class _Said(msgspec.Struct, frozen=True):
    record: KeyRecord
    changes: Mapping[str, Mapping[str, Any]]

    def states(self, name: str, side: str = "to") -> Any:
        return self.changes.get(name, {}).get(side)


def coverage_of(key: ApiKey, records: Sequence[KeyRecord], secret: DeploymentSecret) -> KeyCoverage:
    """Return whether the ledger covers a key, given all records of changes whose target has its name."""
    said = [one for one in map(_said, records) if _is_of(one, key)]
    made = [one for one in said if one.record.event_name == names.EVENT_KEY_CREATE]
    if not made:
        return KeyCoverage("no record states that it was made")
    as_made = [one for one in made if _difference(key, one) is None]
    if not as_made:
        return KeyCoverage(f"record {made[0].record.record_id} states {_difference(key, made[0])}")
    is_revoked = any(one.record.event_name == names.EVENT_KEY_REVOKE for one in said)
    if is_revoked != (key.revoked_ns is not None):
        return KeyCoverage(
            "a record states that it was revoked" if is_revoked else "no record states that it was revoked"
        )
    stating = {
        one.record.record_id: one
        for one in said
        if one.record.event_name in _OF_SECRETS and one.states(SECRET_SHA256) is not None
    }
    present = key.secret
    if present is None:
        if stating:
            return KeyCoverage("records state its secret, and what was stored of that is gone")
        return KeyCoverage(awaits=None if is_revoked else as_made[0].record)
    if not key.is_authentic(secret):
        return KeyCoverage("it was not stored by a process of this deployment")
    last = stating.get(present.record_id)
    if last is None or last.states(SECRET_SHA256) != present.secret_sha256:
        return KeyCoverage("no record states its secret")
    if len(stating) != present.number:
        return KeyCoverage(
            f"records state {len(stating)} secrets of it, and its present one is number {present.number}"
        )
    return KeyCoverage()


def shown(key: ApiKey) -> str:
    """Name a key, in ASCII whatever its row holds."""
    return f"API key {key.name!a} of tenant {key.tenant_id!a}"


def named_by(record: KeyRecord) -> str:
    """Name the key that a record states, in ASCII."""
    said = _said(record)
    return f"API key {said.states('id')!a} of tenant {said.states('tenant')!a}"


def _said(record: KeyRecord) -> _Said:
    try:
        return _Said(record, msgspec.json.decode(record.body, type=_Body).attributes.changes)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        # The verification reports it; here it states nothing.
        return _Said(record, {})


def _is_of(said: _Said, key: ApiKey) -> bool:
    ids = {said.states("id", side) for side in ("from", "to")} - {None}
    tenants = {said.states("tenant", side) for side in ("from", "to")} - {None}
    # The first versions stated no id. A name is given once in a tenant.
    return tenants == {key.tenant_id} and ids <= {key.key_id}


def _difference(key: ApiKey, made: _Said) -> str | None:
    """Return what of the key is not as it was made; the oldest secret is stated since there are rotations."""
    expires_at = None if key.expires_ns is None else rfc3339_nanos(key.expires_ns)
    expected = {"roles": list(key.roles), "expires_at": expires_at, "person": key.person}
    if made.states(SECRET_SHA256) is not None:
        expected[SECRET_SHA256] = key.secret_sha256
    differing = [name for name, value in expected.items() if made.states(name) != value]
    return f"another {differing[0]}" if differing else None

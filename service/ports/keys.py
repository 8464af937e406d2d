"""API keys as they are stored: their secrets, and the MAC by which a process knows that one of this deployment did."""

import hmac
from collections.abc import Sequence

import msgspec

from service.jobs.model import TenantId
from service.secrets import DeploymentSecret


class KeySecret(msgspec.Struct, frozen=True, kw_only=True):
    """The secret of a key that is in force: the first one has `number` 1, and each rotation the next number.

    The secret before it is accepted until `previous_until_ns`. `record_id` is the record that states this secret.
    """

    number: int
    secret_sha256: str
    made_ns: int
    previous_sha256: str | None = None
    previous_until_ns: int | None = None
    record_id: str
    mac: str = ""


class ApiKey(msgspec.Struct, frozen=True, kw_only=True):
    """An API key as stored: `name` is the actor id, unique in its tenant and never reused.

    `secret_sha256` is the hash of the secret with which it was made. `person` is the person whose key it is; None if
    not known. `secret` is None as long as only an older version, which stored no MAC, knows the key.
    """

    key_id: str
    name: str
    tenant_id: TenantId
    roles: tuple[str, ...]
    secret_sha256: str
    created_ns: int
    revoked_ns: int | None = None
    expires_ns: int | None = None
    person: str | None = None
    secret: KeySecret | None = None

    @property
    def rotated_ns(self) -> int | None:
        """When it got its present secret; None if that is the first one."""
        return self.secret.made_ns if self.secret is not None and self.secret.number > 1 else None

    @property
    def previous_until_ns(self) -> int | None:
        """Until when the secret before the present one is accepted; None if there is none."""
        return None if self.secret is None else self.secret.previous_until_ns

    def authenticated(self, secret: DeploymentSecret) -> "ApiKey":
        """Return it with the MAC of its present secret, which is over everything but the revocation."""
        present = self.secret
        if present is None:
            return self
        roles = " ".join(self.roles)
        made = (self.key_id, self.tenant_id, self.name, roles, self.secret_sha256, self.created_ns)
        issued = (present.number, present.secret_sha256, present.made_ns, present.record_id)
        before = (present.previous_sha256, present.previous_until_ns)
        mac = secret.api_key_mac(*made, self.expires_ns, self.person, *issued, *before)
        return msgspec.structs.replace(self, secret=msgspec.structs.replace(present, mac=mac))

    def is_authentic(self, secret: DeploymentSecret) -> bool:
        """Tell whether a process of this deployment stored it as it is."""
        if self.secret is None:
            return False
        expected = self.authenticated(secret).secret
        return expected is not None and is_same(expected.mac, self.secret.mac)

    def accepts(self, sha256: str, now_ns: int) -> bool:
        """Tell whether this is the hash of its secret, or of the one before it, as long as that is accepted."""
        if self.secret is None:
            return is_same(sha256, self.secret_sha256)
        is_present = is_same(sha256, self.secret.secret_sha256)
        return is_present or (self.is_replaced(sha256) and now_ns < (self.secret.previous_until_ns or 0))

    def is_replaced(self, sha256: str) -> bool:
        """Tell whether this is the hash of the secret before the present one, accepted or not."""
        return self.secret is not None and is_same(sha256, self.secret.previous_sha256 or "")


class KeyRecord(msgspec.Struct, frozen=True):
    """A record of a change of API keys that was carried out."""

    record_id: str
    event_name: str
    body: str


class KeyOnRecord(msgspec.Struct, frozen=True):
    """A key, and the records whose target has its name: of this tenant and of others, all of one snapshot."""

    key: ApiKey
    records: Sequence[KeyRecord]


def is_same(one: str, other: str) -> bool:
    """Compare two texts in a time that tells nothing about them."""
    return hmac.compare_digest(one.encode(errors="replace"), other.encode(errors="replace"))

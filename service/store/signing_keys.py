"""The public keys of the ledger as the database stores them: which key signs, from which checkpoint on."""

from collections.abc import Callable, Sequence

import msgspec

from service.errors import BrokenLedgerError, SettingsError
from service.ports import RegisteredKey
from service.secrets import DeploymentSecret
from service.store.anchors import last_stored
from service.store.queries import Execute
from telemetry.audit.signer import Signer


class _Row(msgspec.Struct, frozen=True):
    number: int
    fingerprint: str
    public_key: str
    first_checkpoint: int
    rotation: str | None
    mac: str

    def is_authentic(self, secret: DeploymentSecret) -> bool:
        """Tell whether a process of this deployment stored it."""
        return self.mac == _mac(secret, self.number, self.public_key, self.first_checkpoint, self.rotation)


def registered_keys(execute: Execute, secret: DeploymentSecret) -> Sequence[RegisteredKey]:
    """Return all keys in the order of their registration; the last one signs now.

    Raises:
        SettingsError: the ledger secret of this process is not that of the database.
        BrokenLedgerError: one of them was stored without the secret.
    """
    rows = [_Row(*row) for row in execute("signing_keys", {})]
    forged = [row for row in rows if not row.is_authentic(secret)]
    # All MACs are wrong if all keys are forged, or if this process has another secret: the last checkpoint tells which.
    last = last_stored(execute) if forged else None
    if rows and len(forged) == len(rows) and not (last and last.is_authentic(secret)):
        raise SettingsError(["the ledger secret is not the one that this database was begun with: restore its file"])
    if forged:
        raise BrokenLedgerError(
            f"signing key {forged[0].fingerprint} was not registered by a process of this deployment"
        )
    return [_key(row) for row in rows]


def keys_and_forged(execute: Execute, secret: DeploymentSecret) -> tuple[Sequence[RegisteredKey], Sequence[str]]:
    """Return the keys that processes of this deployment stored, and the fingerprints of all others; for `doctor`."""
    rows = [_Row(*row) for row in execute("signing_keys", {})]
    held = [row for row in rows if row.is_authentic(secret)]
    return [_key(row) for row in held], [row.fingerprint for row in rows if row not in held]


def keys_of_begun(execute: Execute, secret: DeploymentSecret) -> Sequence[RegisteredKey]:
    """Return the keys of a ledger that has begun.

    Raises:
        SettingsError, BrokenLedgerError: as `registered_keys` does; the second also if there is no key.
    """
    keys = registered_keys(execute, secret)
    if not keys:
        raise BrokenLedgerError("no signing key is registered, though the ledger has begun")
    return keys


def signer_of(keys: Sequence[RegisteredKey], private_key: Callable[[str], Signer | None]) -> Signer:
    """Return the private key that signs now.

    Raises:
        SettingsError: this process does not hold it.
    """
    wanted = keys[-1].fingerprint
    signer = private_key(wanted)
    if signer is None:
        lacks = f"checkpoints are signed with the key {wanted}, whose private key this process lacks"
        raise SettingsError([f"{lacks}: put its file where AUDITRACE_SIGNING_KEY names it"])
    return signer


def register(
    execute: Execute,
    secret: DeploymentSecret,
    signer: Signer,
    *,
    number: int,
    first_checkpoint: int,
    now_ns: int,
    rotation: str | None = None,
) -> None:
    """Let a key sign from `first_checkpoint` on; `rotation` is the id of its record, None for the first key."""
    values = {
        "number": number,
        "fingerprint": signer.fingerprint,
        "public_key": signer.public_pem,
        "first_checkpoint": first_checkpoint,
        "now_ns": now_ns,
        "rotation": rotation,
        "mac": _mac(secret, number, signer.public_pem, first_checkpoint, rotation),
    }
    execute("register_key", values)


def _key(row: _Row) -> RegisteredKey:
    return RegisteredKey(row.fingerprint, row.public_key, row.first_checkpoint)


def _mac(secret: DeploymentSecret, number: int, public_key: str, first_checkpoint: int, rotation: str | None) -> str:
    return secret.key_mac(number, public_key, first_checkpoint, rotation or "")

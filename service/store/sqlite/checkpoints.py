"""Writes checkpoints into the ledger, in the transactions of a lane (docs/audit-format.md, section 6)."""

import sqlite3
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import msgspec

from service.errors import BrokenLedgerError, FencedError, LedgerBusyError, SettingsError
from service.ports import Checkpointed, Clock, LastCheckpoint, RefusedStream, RegisteredKey, Transition
from service.secrets import DeploymentSecret
from service.store.anchors import StoredCheckpoint, last_stored, last_to_follow, store
from service.store.restoring import first_after_restore, restore_record
from service.store.signing_keys import register, registered_keys
from service.store.sqlite.connection import connect, translated
from service.store.sqlite.lane import SqliteLane
from service.store.sqlite.owners import OwnerLocks
from service.store.sqlite.restore import end_streams
from service.store.sqlite.stream import LEASE_NS, SystemRecord, is_leased
from service.store.sqlite.transaction import SQL, SqliteTransaction, executing
from service.store.survey import Hashed, StreamState, Survey, survey
from telemetry import names
from telemetry.audit.canonical import Value
from telemetry.audit.checkpoint import Checkpoint, Tip, leaves
from telemetry.audit.record import AuditRecord
from telemetry.audit.signer import Signer

CHECKPOINT_LEASE: Final = "checkpoint"
MAX_TIPS: Final = 200


class CheckpointSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What checkpoints are written with."""

    path: Path
    lane: SqliteLane
    locks: OwnerLocks
    secret: DeploymentSecret
    clock: Clock
    system_record: SystemRecord
    private_key: Callable[[str], Signer | None]
    """Returns the private key with this fingerprint, None when this process does not hold it."""


class SqliteCheckpoints:
    """Implements `service.ports.CheckpointWriter` for one process."""

    def __init__(self, settings: CheckpointSettings) -> None:
        self._settings = settings
        self._connection = connect(settings.path)
        self._reading = connect(settings.path, read_only=True)
        self._newest: LastCheckpoint | None = None

    def close(self) -> None:
        """Close the connections."""
        # The last connection puts what is in the WAL into the database file, which one that only reads cannot.
        self._reading.close()
        self._connection.close()

    def hold(self) -> bool:
        """Take or renew the lease; False while another process that is alive holds it."""
        self._connection.require_in_place()
        with translated(), _writing(self._connection):
            # Without the key the lease would only keep others from writing.
            self._signer(self._keys(self._connection))
            return self._take_lease(self._connection)

    def release(self) -> None:
        """Give the lease back."""
        with translated():
            self._release(self._connection)

    def write(self) -> Checkpointed | None:
        """Close orphaned streams and sign the tips of all streams that changed; None without the lease.

        Most is hashed before the transaction, so that writers wait for what came in meanwhile only.
        """
        last = self.last()
        if self._newest is not None and (last is None or last.number < self._newest.number):
            raise BrokenLedgerError(
                f"checkpoint {self._newest.number} was there, and is gone: the database was set back"
            )
        self._newest = last
        known = {state.stream_id: hashed for state, hashed in self.look().sound}
        return self._settings.lane.submit(lambda transaction: self._write(transaction, known)).result()

    def write_last(self, transaction: SqliteTransaction) -> Checkpointed | None:
        """Write the checkpoints of a clean shutdown, behind the close of the lane's stream, and give the lease back."""
        written = self._write(transaction, {})
        self._release(transaction.connection)
        return written

    def look(self) -> Survey:
        """Look at the committed streams as the next checkpoint would, and change nothing."""
        with translated():
            self._reading.execute("BEGIN")
            try:
                return survey(executing(self._reading), self._settings.secret)
            finally:
                self._reading.execute("ROLLBACK")

    def last(self) -> LastCheckpoint | None:
        """Return the last checkpoint, whoever wrote it; None before the first."""
        with translated():
            last = last_stored(executing(self._reading))
        return None if last is None else LastCheckpoint(last.number, last.observed_ns)

    def refused(self) -> Sequence[RefusedStream]:
        """Return the streams that the last checkpoint, whoever wrote it, refused."""
        with translated():
            return [RefusedStream(*row) for row in self._reading.execute(SQL["refused_streams"]).fetchall()]

    def registered(self) -> Sequence[RegisteredKey]:
        """Return the public keys of the ledger in the order of their registration; the last one signs now."""
        with translated():
            return registered_keys(executing(self._reading), self._settings.secret)

    def register(self, signer: Signer) -> None:
        """Register the public key on a ledger that knows none and holds no checkpoint yet.

        Raises:
            SettingsError: the ledger knows a key, and was begun with another ledger secret than this process has.
        """
        with translated(), _writing(self._connection):
            (has_signed,) = self._connection.execute(SQL["has_signed"]).fetchone()
            if has_signed:
                self._keys(self._connection)
            else:
                now_ns, secret = self._settings.clock(), self._settings.secret
                register(executing(self._connection), secret, signer, number=1, first_checkpoint=1, now_ns=now_ns)

    def rotate(self, new: Signer) -> int:
        """Let `new` sign from the next checkpoint on, and return that checkpoint's number.

        Raises:
            SettingsError: this process does not hold the private key that signs now, or `new` has signed before.
        """
        return self._settings.lane.submit(lambda transaction: self._rotate(transaction, new)).result()

    def restore(self) -> Checkpointed:
        """Close every stream of a database that was set back, and go on behind numbers that may have been used.

        Raises:
            LedgerBusyError: processes work on the database.
        """
        return self._settings.lane.submit(self._restore).result()

    def _restore(self, transaction: SqliteTransaction) -> Checkpointed:
        execute, secret = executing(transaction.connection), self._settings.secret
        last = last_to_follow(execute, secret, self._keys(transaction.connection))
        closed = end_streams(transaction, self._settings.locks)
        first = first_after_restore(last, self._settings.clock())
        record = self._settings.system_record(names.EVENT_AUDIT_RESTORE)
        transaction.save(Transition(record=restore_record(record, last, first, len(closed))))
        written = self._write(transaction, {}, first)
        if written is None:
            raise LedgerBusyError("another process writes checkpoints: stop every process first")
        return Checkpointed(written.numbers, closed, written.refused)

    def _write(
        self, transaction: SqliteTransaction, known: Mapping[str, Hashed], first: int | None = None
    ) -> Checkpointed | None:
        connection = transaction.connection
        if not self._take_lease(connection):
            return None
        keys = self._keys(connection)
        signer = self._signer(keys)
        last = last_to_follow(executing(connection), self._settings.secret, keys)
        found = survey(executing(connection), self._settings.secret, own=transaction.tip, known=known)
        for one in found.refused:
            if one.stream_id == transaction.tip.stream_id:
                # The checkpoint goes into another stream, which it can sign over.
                raise FencedError(one.reason)
        closed = [state.stream_id for state, _ in found.sound if self._is_orphaned(state, transaction)]
        for state, _ in found.sound:
            if state.stream_id in closed:
                connection.execute(SQL["close_stream"], {"stream_id": state.stream_id, "epoch": state.epoch})
        changed = [
            (state, _tip(state, hashed, is_closed=state.closed == 1 or state.stream_id in closed))
            for state, hashed in found.sound
        ]
        changed = [(state, tip) for state, tip in changed if _is_news(state, tip)]
        transaction.certify(signer.fingerprint)
        numbers: list[int] = []
        for at in range(0, max(1, len(changed)), MAX_TIPS):
            last = self._add(transaction, signer, last, changed[at : at + MAX_TIPS], first)
            first = None
            numbers.append(last.number)
        self._note_refused(connection, found.refused)
        return Checkpointed(numbers, closed, found.refused)

    def _add(
        self,
        transaction: SqliteTransaction,
        signer: Signer,
        last: StoredCheckpoint | None,
        changed: Sequence[tuple[StreamState, Tip]],
        number: int | None = None,
    ) -> StoredCheckpoint:
        """Write one checkpoint behind `last`, and move the anchors of the streams that it names.

        After a restore it has another `number` than the one that follows.
        """
        before = last.number if last else 0
        stated = Checkpoint(
            number=number or before + 1,
            prev_number=None if number is None else before,
            tips=tuple(tip for _, tip in changed),
            streams=(last.streams if last else 0) + sum(state.anchor_number is None for state, _ in changed),
            records=(last.records if last else 0)
            + sum(tip.number - (state.anchor_number or 0) for state, tip in changed),
            prev_hash=last.hash if last else None,
            prev_signature=last.signature if last else None,
        )
        record = _stating(self._settings.system_record(names.EVENT_AUDIT_CHECKPOINT), stated.attributes())
        signature = transaction.save_signed(record, signer)
        return store(
            executing(transaction.connection),
            self._settings.secret,
            stated,
            record=transaction.tip,
            signature=signature,
            fingerprint=signer.fingerprint,
        )

    def _rotate(self, transaction: SqliteTransaction, new: Signer) -> int:
        connection, secret = transaction.connection, self._settings.secret
        keys = self._keys(connection)
        old = self._signer(keys)
        if new.fingerprint in {key.fingerprint for key in keys}:
            raise SettingsError([f"the key {new.fingerprint} signs or has signed: rotation needs one that never has"])
        last = last_to_follow(executing(connection), secret, keys)
        first = last.number + 1 if last else 1
        changes: dict[str, Value] = {
            "public_key": {"from": old.public_pem, "to": new.public_pem},
            "first_checkpoint": {"to": first},
        }
        attributes: dict[str, Value] = {
            names.AUDIT_TARGET_TYPE: "key",
            names.AUDIT_TARGET_ID: new.fingerprint,
            names.AUDITRACE_CHANGES: changes,
        }
        transaction.certify(old.fingerprint)
        transaction.save_signed(_stating(self._settings.system_record(names.EVENT_AUDIT_KEY_ROTATE), attributes), old)
        register(
            executing(connection),
            secret,
            new,
            number=len(keys) + 1,
            first_checkpoint=first,
            now_ns=self._settings.clock(),
            rotation=transaction.tip.record_id,
        )
        transaction.certify(new.fingerprint)
        return first

    def _take_lease(self, connection: sqlite3.Connection) -> bool:
        locks, now_ns = self._settings.locks, self._settings.clock()
        row = connection.execute(SQL["lease"], {"name": CHECKPOINT_LEASE}).fetchone()
        if row is not None:
            owner, until_ns = row
            if owner != locks.owner and is_leased(until_ns, now_ns) and locks.is_alive(owner):
                return False
        values = {"name": CHECKPOINT_LEASE, "owner": locks.owner, "until_ns": now_ns + LEASE_NS}
        connection.execute(SQL["put_lease"], values)
        return True

    def _release(self, connection: sqlite3.Connection) -> None:
        connection.execute(SQL["release_lease"], {"name": CHECKPOINT_LEASE, "owner": self._settings.locks.owner})

    def _keys(self, connection: sqlite3.Connection) -> Sequence[RegisteredKey]:
        keys = registered_keys(executing(connection), self._settings.secret)
        if not keys:
            raise BrokenLedgerError("no signing key is registered, though the ledger has begun")
        return keys

    def _signer(self, keys: Sequence[RegisteredKey]) -> Signer:
        wanted = keys[-1].fingerprint
        signer = self._settings.private_key(wanted)
        if signer is None:
            raise SettingsError([f"checkpoints are signed with the key {wanted}, whose private key this process lacks"])
        return signer

    def _is_orphaned(self, state: StreamState, transaction: SqliteTransaction) -> bool:
        """Tell whether nobody answers for an open stream; holding the database's only writer lock, we may close it."""
        if state.closed or state.stream_id == transaction.tip.stream_id:
            return False
        is_renewed = is_leased(state.alive_until_ns, self._settings.clock())
        return not is_renewed or not self._settings.locks.is_alive(state.owner)

    def _note_refused(self, connection: sqlite3.Connection, refused: Sequence[RefusedStream]) -> None:
        now_refused = {one.stream_id for one in refused}
        for stream_id, _ in connection.execute(SQL["refused_streams"]).fetchall():
            if stream_id not in now_refused:
                connection.execute(SQL["forget_refused"], {"stream_id": stream_id})
        for one in refused:
            values = {"stream_id": one.stream_id, "reason": one.reason, "since_ns": self._settings.clock()}
            connection.execute(SQL["put_refused"], values)


@contextmanager
def _writing(connection: sqlite3.Connection) -> Generator[None]:
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _tip(state: StreamState, hashed: Hashed, *, is_closed: bool) -> Tip:
    return Tip(
        stream_id=state.stream_id,
        first=state.first,
        number=state.number,
        hash=state.hash,
        leaves=leaves(hashed.hashes),
        closed=is_closed,
    )


def _is_news(state: StreamState, tip: Tip) -> bool:
    return tip.number >= tip.first or tip.closed != (state.anchor_closed == 1)


def _stating(record: AuditRecord, attributes: Mapping[str, Value]) -> AuditRecord:
    return msgspec.structs.replace(record, attributes={**record.attributes, **attributes})

"""Writes checkpoints into the ledger, in the transactions of a lane (docs/audit-format.md, section 6)."""

import sqlite3
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import msgspec

from service.errors import FencedError, LedgerBusyError, SettingsError
from service.ports import Checkpointed, Clock, LastCheckpoint, RefusedStream, RegisteredKey, Transition
from service.secrets import DeploymentSecret
from service.store.anchors import StoredCheckpoint, last_stored, last_to_follow, store
from service.store.checkpointing import (
    CHECKPOINT_LEASE,
    Named,
    Written,
    keys_of_begun,
    signer_of,
    stated_behind,
    stating,
    stating_rotation,
    to_name,
)
from service.store.restoring import first_after_restore, restore_record
from service.store.signing_keys import register, registered_keys
from service.store.sqlite.connection import FileConnection, connect
from service.store.sqlite.lane import SqliteLane
from service.store.sqlite.owners import OwnerLocks
from service.store.sqlite.restore import end_streams
from service.store.sqlite.stream import LEASE_NS, SystemRecord, is_leased
from service.store.sqlite.transaction import SQL, SqliteTransaction, executing
from service.store.survey import Hashed, Survey, survey
from telemetry import names
from telemetry.audit.signer import Signer


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
        self._witness = settings.lane.witness

    def close(self) -> None:
        """Close the connections."""
        # The last connection puts what is in the WAL into the database file, which one that only reads cannot.
        self._reading.close()
        self._connection.close()

    def hold(self) -> bool:
        """Take or renew the lease; False while another process that is alive holds it."""
        with _writing(self._connection):
            # Without the key the lease would only keep others from writing.
            self._signer(self._keys(self._connection))
            return self._take_lease(self._connection)

    def release(self) -> None:
        """Give the lease back."""
        with self._connection.in_place() as connection:
            self._release(connection)

    def write(self) -> Checkpointed | None:
        """Close orphaned streams and sign the tips of all streams that changed; None without the lease.

        Most is hashed before the transaction, so that writers wait for what came in meanwhile only.
        """
        # Before anything is hashed: raises when the database was set back.
        self.last()
        known = {state.stream_id: hashed for state, hashed in self.look().sound}
        return self._saw(self._settings.lane.submit(lambda transaction: self._write(transaction, known)).result())

    def write_last(self, transaction: SqliteTransaction) -> Checkpointed | None:
        """Write the checkpoints of a clean shutdown, behind the close of the lane's stream, and give the lease back."""
        written = self._write(transaction, {})
        self._release(transaction.connection)
        return written.done if written else None

    def look(self) -> Survey:
        """Look at the committed streams as the next checkpoint would, and change nothing."""
        with self._reading.in_place() as reading:
            reading.execute("BEGIN")
            try:
                return survey(executing(reading), self._settings.secret)
            finally:
                reading.execute("ROLLBACK")

    def last(self) -> LastCheckpoint | None:
        """Return the last checkpoint, whoever wrote it; None before the first.

        Raises:
            BrokenLedgerError: something that this process saw committed is gone.
        """
        with self._reading.in_place() as reading:
            self._witness.require_all(executing(reading))
            last = last_stored(executing(reading))
        self._witness.saw_checkpoint(last)
        return None if last is None else LastCheckpoint(last.number, last.observed_ns)

    def refused(self) -> Sequence[RefusedStream]:
        """Return the streams that the last checkpoint, whoever wrote it, refused."""
        with self._reading.in_place() as reading:
            return [RefusedStream(*row) for row in reading.execute(SQL["refused_streams"]).fetchall()]

    def registered(self) -> Sequence[RegisteredKey]:
        """Return the public keys of the ledger in the order of their registration; the last one signs now."""
        with self._reading.in_place() as reading:
            return registered_keys(executing(reading), self._settings.secret)

    def register(self, signer: Signer) -> None:
        """Register the public key on a ledger that knows none and holds no checkpoint yet.

        Raises:
            SettingsError: the ledger knows a key, and was begun with another ledger secret than this process has.
        """
        with _writing(self._connection):
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
        written = self._settings.lane.submit(self._restore).result()
        self._saw(written)
        return written.done

    def _saw(self, written: Written | None) -> Checkpointed | None:
        if written is None:
            return None
        self._witness.saw_checkpoint(written.last)
        return written.done

    def _restore(self, transaction: SqliteTransaction) -> Written:
        execute, secret = executing(transaction.connection), self._settings.secret
        last = last_to_follow(execute, secret, self._keys(transaction.connection))
        closed = end_streams(transaction, self._settings.locks)
        first = first_after_restore(last, self._settings.clock())
        record = self._settings.system_record(names.EVENT_AUDIT_RESTORE)
        transaction.save(Transition(record=restore_record(record, last, first, len(closed))))
        written = self._write(transaction, {}, first)
        if written is None:
            raise LedgerBusyError("another process writes checkpoints: stop every process first")
        done = Checkpointed(written.done.numbers, closed, written.done.refused)
        return Written(done, written.last)

    def _write(
        self, transaction: SqliteTransaction, known: Mapping[str, Hashed], first: int | None = None
    ) -> Written | None:
        connection = transaction.connection
        if not self._take_lease(connection):
            return None
        execute = executing(connection)
        # Also at a clean stop, which is what an operator does who was told that the database was set back.
        self._witness.require_all(execute)
        keys = self._keys(connection)
        signer = self._signer(keys)
        last = last_to_follow(execute, self._settings.secret, keys)
        closed = self._close_orphans(transaction)
        found = survey(execute, self._settings.secret, own=transaction.tip, known=known)
        for one in found.refused:
            if one.stream_id == transaction.tip.stream_id:
                # The checkpoint goes into another stream, which it can sign over.
                raise FencedError(one.reason)
        transaction.certify(signer.fingerprint)
        added: list[StoredCheckpoint] = []
        for named in to_name(found):
            last = self._add(transaction, signer, last, named, first)
            first = None
            added.append(last)
        self._note_refused(connection, found.refused)
        return Written(Checkpointed([one.number for one in added], closed, found.refused), added[-1])

    def _add(
        self,
        transaction: SqliteTransaction,
        signer: Signer,
        last: StoredCheckpoint | None,
        named: Sequence[Named],
        number: int | None = None,
    ) -> StoredCheckpoint:
        """Write one checkpoint behind `last`, and move the anchors of the streams that it names.

        After a restore it has another `number` than the one that follows.
        """
        stated = stated_behind(last, named, number)
        record = stating(self._settings.system_record(names.EVENT_AUDIT_CHECKPOINT), stated.attributes())
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
        self._witness.require_all(executing(connection))
        keys = self._keys(connection)
        old = self._signer(keys)
        if new.fingerprint in {key.fingerprint for key in keys}:
            raise SettingsError([f"the key {new.fingerprint} signs or has signed: rotation needs one that never has"])
        last = last_to_follow(executing(connection), secret, keys)
        first = last.number + 1 if last else 1
        transaction.certify(old.fingerprint)
        record = self._settings.system_record(names.EVENT_AUDIT_KEY_ROTATE)
        transaction.save_signed(stating_rotation(record, old, new, first), old)
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
        return keys_of_begun(executing(connection), self._settings.secret)

    def _signer(self, keys: Sequence[RegisteredKey]) -> Signer:
        return signer_of(keys, self._settings.private_key)

    def _close_orphans(self, transaction: SqliteTransaction) -> Sequence[str]:
        """Close the streams that nobody answers for, which whoever holds the only writer lock may; returns them."""
        connection, now_ns = transaction.connection, self._settings.clock()
        closed: list[str] = []
        own = {"own": transaction.tip.stream_id}
        for stream_id, owner, epoch, alive_until_ns in connection.execute(SQL["open_streams"], own).fetchall():
            if not is_leased(alive_until_ns, now_ns) or not self._settings.locks.is_alive(owner):
                connection.execute(SQL["close_stream"], {"stream_id": stream_id, "epoch": epoch})
                closed.append(stream_id)
        return closed

    def _note_refused(self, connection: sqlite3.Connection, refused: Sequence[RefusedStream]) -> None:
        now_refused = {one.stream_id for one in refused}
        for stream_id, _ in connection.execute(SQL["refused_streams"]).fetchall():
            if stream_id not in now_refused:
                connection.execute(SQL["forget_refused"], {"stream_id": stream_id})
        for one in refused:
            values = {"stream_id": one.stream_id, "reason": one.reason, "since_ns": self._settings.clock()}
            connection.execute(SQL["put_refused"], values)


@contextmanager
def _writing(connection: FileConnection) -> Generator[None]:
    with connection.in_place():
        connection.execute("BEGIN IMMEDIATE")
        try:
            yield
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise

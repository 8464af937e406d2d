"""Writes checkpoints into the ledger, in the transactions of a lane (docs/audit-format.md, section 6)."""

from collections.abc import Callable, Mapping, Sequence

import msgspec
from psycopg import IsolationLevel

from service.errors import FencedError, LedgerBusyError, SettingsError
from service.ports import Checkpointed, LastCheckpoint, RefusedStream, RegisteredKey, Transition
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
from service.store.postgres.connection import Session
from service.store.postgres.lanes import PostgresLanes
from service.store.postgres.pool import SessionPool
from service.store.postgres.restore import end_streams
from service.store.postgres.statements import SQL, executing
from service.store.postgres.stream import LEASE_NS, SystemRecord
from service.store.postgres.transaction import PostgresTransaction
from service.store.queries import Execute
from service.store.restoring import first_after_restore, restore_record
from service.store.signing_keys import register, registered_keys
from service.store.survey import Hashed, Survey, survey
from telemetry import names
from telemetry.audit.signer import Signer


class CheckpointSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What checkpoints are written with."""

    url: str
    lanes: PostgresLanes
    owner: str
    secret: DeploymentSecret
    system_record: SystemRecord
    private_key: Callable[[str], Signer | None]
    """Returns the private key with this fingerprint, None when this process does not hold it."""


class PostgresCheckpoints:
    """Implements `service.ports.CheckpointWriter` for one process."""

    def __init__(self, settings: CheckpointSettings) -> None:
        self._settings = settings
        self._writing = SessionPool(settings.url, read_only=False, size=1)
        self._reading = SessionPool(settings.url, read_only=True, size=1)
        self._witness = settings.lanes.witness

    def close(self) -> None:
        """Close the sessions."""
        self._writing.close()
        self._reading.close()

    def hold(self) -> bool:
        """Take or renew the lease; False while another process holds it."""

        def hold(session: Session) -> bool:
            # Without the key the lease would only keep others from writing.
            self._signer(self._keys(executing(session)))
            return session.execute(SQL["take_lease"], self._lease()).rowcount == 1

        return self._writing.run(hold)

    def release(self) -> None:
        """Give the lease back."""
        self._writing.run(lambda session: session.execute(SQL["release_lease"], self._lease()))

    def write(self) -> Checkpointed | None:
        """Close orphaned streams and sign the tips of all streams that changed; None without the lease.

        Most is hashed before the transaction, so that the lane's other work waits for what came in meanwhile only.
        """
        # Before anything is hashed: raises when the database was set back.
        self.last()
        known = {state.stream_id: hashed for state, hashed in self.look().sound}
        return self._saw(self._settings.lanes.submit(lambda transaction: self._write(transaction, known)).result())

    def write_last(self, transaction: PostgresTransaction) -> Checkpointed | None:
        """Write the checkpoints of a clean shutdown, behind the close of the lanes, and give the lease back."""
        written = self._write(transaction, {})
        transaction.execute("release_lease", self._lease())
        return written.done if written else None

    def look(self) -> Survey:
        """Look at the committed streams as the next checkpoint would, and change nothing."""

        def look(session: Session) -> Survey:
            session.isolation_level = IsolationLevel.REPEATABLE_READ
            with session.transaction():
                return survey(executing(session), self._settings.secret)

        return self._reading.run(look)

    def last(self) -> LastCheckpoint | None:
        """Return the last checkpoint, whoever wrote it; None before the first.

        Raises:
            BrokenLedgerError: something that this process saw committed is gone.
        """

        def look(session: Session) -> StoredCheckpoint | None:
            self._witness.require_all(executing(session))
            return last_stored(executing(session))

        last = self._reading.run(look)
        self._witness.saw_checkpoint(last)
        return None if last is None else LastCheckpoint(last.number, last.observed_ns)

    def refused(self) -> Sequence[RefusedStream]:
        """Return the streams that the last checkpoint, whoever wrote it, refused."""
        rows = self._reading.run(lambda session: session.execute(SQL["refused_streams"]).fetchall())
        return [RefusedStream(*row) for row in rows]

    def registered(self) -> Sequence[RegisteredKey]:
        """Return the public keys of the ledger in the order of their registration; the last one signs now."""
        return self._reading.run(lambda session: registered_keys(executing(session), self._settings.secret))

    def register(self, signer: Signer) -> None:
        """Register the public key on a ledger that knows none and holds no checkpoint yet.

        Raises:
            SettingsError: the ledger knows a key, and was begun with another ledger secret than this process has.
        """

        def register_first(session: Session) -> None:
            execute = executing(session)
            with session.transaction():
                session.execute(SQL["one_at_a_time"])
                ((has_signed,),) = execute("has_signed", {})
                if has_signed:
                    self._keys(execute)
                else:
                    ((now_ns,),) = execute("now", {})
                    register(execute, self._settings.secret, signer, number=1, first_checkpoint=1, now_ns=now_ns)

        self._writing.run(register_first)

    def rotate(self, new: Signer) -> int:
        """Let `new` sign from the next checkpoint on, and return that checkpoint's number.

        Raises:
            SettingsError: this process does not hold the private key that signs now, or `new` has signed before.
        """
        return self._settings.lanes.submit(lambda transaction: self._rotate(transaction, new)).result()

    def restore(self) -> Checkpointed:
        """Close every stream of a database that was set back, and go on behind numbers that may have been used.

        Raises:
            LedgerBusyError: processes work on the database.
        """
        written = self._settings.lanes.submit(self._restore).result()
        self._saw(written)
        return written.done

    def _saw(self, written: Written | None) -> Checkpointed | None:
        if written is None:
            return None
        self._witness.saw_checkpoint(written.last)
        return written.done

    def _restore(self, transaction: PostgresTransaction) -> Written:
        transaction.execute("one_at_a_time")
        execute, secret = transaction.executing, self._settings.secret
        last = last_to_follow(execute, secret, self._keys(execute))
        closed = end_streams(transaction)
        first = first_after_restore(last, transaction.now_ns)
        record = self._settings.system_record(names.EVENT_AUDIT_RESTORE)
        transaction.save(Transition(record=restore_record(record, last, first, len(closed))))
        written = self._write(transaction, {}, first)
        if written is None:
            raise LedgerBusyError("another process writes checkpoints: stop every process, and try again in 10 s")
        done = Checkpointed(written.done.numbers, closed, written.done.refused)
        return Written(done, written.last)

    def _write(
        self, transaction: PostgresTransaction, known: Mapping[str, Hashed], first: int | None = None
    ) -> Written | None:
        transaction.execute("one_at_a_time")
        if transaction.execute("take_lease", self._lease()).rowcount != 1:
            return None
        execute = transaction.executing
        # Also at a clean stop, which is what an operator does who was told that the database was set back.
        self._witness.require_all(execute)
        keys = self._keys(execute)
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
        self._note_refused(transaction, found.refused)
        return Written(Checkpointed([one.number for one in added], closed, found.refused), added[-1])

    def _add(
        self,
        transaction: PostgresTransaction,
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
            transaction.executing,
            self._settings.secret,
            stated,
            record=transaction.tip,
            signature=signature,
            fingerprint=signer.fingerprint,
        )

    def _rotate(self, transaction: PostgresTransaction, new: Signer) -> int:
        transaction.execute("one_at_a_time")
        execute, secret = transaction.executing, self._settings.secret
        self._witness.require_all(execute)
        keys = self._keys(execute)
        old = self._signer(keys)
        if new.fingerprint in {key.fingerprint for key in keys}:
            raise SettingsError([f"the key {new.fingerprint} signs or has signed: rotation needs one that never has"])
        last = last_to_follow(execute, secret, keys)
        first = last.number + 1 if last else 1
        transaction.certify(old.fingerprint)
        record = self._settings.system_record(names.EVENT_AUDIT_KEY_ROTATE)
        transaction.save_signed(stating_rotation(record, old, new, first), old)
        register(
            execute,
            secret,
            new,
            number=len(keys) + 1,
            first_checkpoint=first,
            now_ns=transaction.now_ns,
            rotation=transaction.tip.record_id,
        )
        transaction.certify(new.fingerprint)
        return first

    def _close_orphans(self, transaction: PostgresTransaction) -> Sequence[str]:
        """Close the streams that nobody answers for, each locked first; returns those that are closed now.

        One whose lane holds the lock is in the middle of a commit: a session that has not got through with it after
        its lease is stuck, and is ended. What it had not committed, its process does again in another stream.
        """
        closed: list[str] = []
        own = {"own": transaction.tip.stream_id, "lease_ns": LEASE_NS}
        for stream_id, session in transaction.execute("orphaned_streams", own).fetchall():
            values = {"stream_id": stream_id, "lease_ns": LEASE_NS}
            if transaction.execute("close_orphan", values).rowcount != 1:
                transaction.execute("end_session", {"session": session})
                if transaction.execute("close_orphan", values).rowcount != 1:
                    # Closed or renewed meanwhile, or locked by somebody else: the next checkpoint sees to it.
                    continue
            closed.append(stream_id)
        return closed

    def _lease(self) -> dict[str, object]:
        return {"name": CHECKPOINT_LEASE, "owner": self._settings.owner, "lease_ns": LEASE_NS}

    def _keys(self, execute: Execute) -> Sequence[RegisteredKey]:
        return keys_of_begun(execute, self._settings.secret)

    def _signer(self, keys: Sequence[RegisteredKey]) -> Signer:
        return signer_of(keys, self._settings.private_key)

    def _note_refused(self, transaction: PostgresTransaction, refused: Sequence[RefusedStream]) -> None:
        now_refused = {one.stream_id for one in refused}
        for stream_id, _ in transaction.execute("refused_streams").fetchall():
            if stream_id not in now_refused:
                transaction.execute("forget_refused", {"stream_id": stream_id})
        for one in refused:
            transaction.execute("put_refused", {"stream_id": one.stream_id, "reason": one.reason})

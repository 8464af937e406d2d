"""Writes checkpoints into the ledger, in the transactions of a lane (docs/audit-format.md, section 6)."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from hashlib import sha256
from typing import Final, Generic, TypeVar

import msgspec

from service.errors import FencedError, LedgerBusyError, SettingsError
from service.ports import Checkpointed, LastCheckpoint, RecordRow, RefusedStream, RegisteredKey, Transition
from service.store.anchors import StoredCheckpoint, last_stored, last_to_follow, store
from service.store.checkpoint_records import NamedTip, stated_behind, stating, stating_rotation, to_name
from service.store.connections import Transactions
from service.store.lanes import Lanes
from service.store.queries import Execute
from service.store.restoring import first_after_restore, restore_record
from service.store.signing_keys import keys_of_begun, register, registered_keys, signer_of
from service.store.survey import RehashedRecords, Survey, survey
from service.store.writing import LedgerTransaction
from telemetry import names
from telemetry.audit.signer import Signer

CHECKPOINT_LEASE: Final = "checkpoint"

T = TypeVar("T", bound=LedgerTransaction)


class _Written(msgspec.Struct, frozen=True):
    """What one transaction wrote, and its last checkpoint, which the rollback guard remembers after the commit."""

    done: Checkpointed
    last: StoredCheckpoint


class Checkpoints(ABC, Generic[T]):
    """Implements `service.ports.CheckpointWriter` for one process; subclasses add what differs between databases."""

    def __init__(
        self,
        lanes: Lanes[T],
        private_key: Callable[[str], Signer | None],
        reading: Transactions,
        writing: Transactions,
    ) -> None:
        """Write in the transactions of these lanes.

        Args:
            lanes: the lanes of this process.
            private_key: returns the private key with a fingerprint, None if this process does not hold it.
            reading: reads what is committed; `close` closes it.
            writing: takes leases and registers keys, outside of the lanes; `close` closes it.
        """
        self._reading = reading
        self._writing = writing
        self._lanes = lanes
        self._settings = lanes.settings
        self._private_key = private_key
        self._rollback_guard = lanes.rollback_guard

    @abstractmethod
    def _take_lease(self, execute: Execute) -> bool:
        """Take or renew the lease; False while another living process holds it."""

    @abstractmethod
    def _close_orphans(self, transaction: T) -> Iterator[str]:
        """Close the streams whose processes are dead, and yield each stream that was closed."""

    @abstractmethod
    def _at_work(self, transaction: T) -> str:
        """Return what else is at work on the database, beside this transaction; an empty text if nothing is."""

    def close(self) -> None:
        """Close the connections."""
        # In SQLite, the last connection moves the WAL into the database file; a connection that only reads cannot.
        self._reading.close()
        self._writing.close()

    def hold(self) -> bool:
        """Take or renew the lease; False while another living process holds it."""

        def hold(execute: Execute) -> bool:
            # A process without the key cannot sign, and with the lease it would keep others from signing.
            self._signer(self._keys(execute))
            return self._take_lease(execute)

        return self._writing.write(hold)

    def release(self) -> None:
        """Give the lease back."""
        self._writing.write(self._release)

    def write(self) -> Checkpointed | None:
        """Close orphaned streams and sign the tips of all changed streams; None without the lease.

        Most records are hashed before the transaction, so that writers wait only for the hashing of newer ones.
        """
        # This raises if the database was set back, so it comes before the hashing.
        self.last()
        known = {state.stream_id: hashed for state, hashed in self.look().sound}
        return self._saw(self._lanes.submit(lambda transaction: self._write(transaction, known)).result())

    def write_last(self, transaction: T) -> Checkpointed | None:
        """Write the checkpoints of a clean stop, after the streams are closed, and give the lease back."""
        written = self._write(transaction, {})
        self._release(transaction.execute)
        return written.done if written else None

    def look(self) -> Survey:
        """Survey the committed streams as the next checkpoint would; nothing is changed."""
        return self._reading.read(lambda execute: survey(execute, self._settings.secret))

    def holds(self, record: RecordRow) -> bool:
        """Tell whether a lane of this deployment committed this record after the last checkpoint of its stream."""
        for state, hashed in self.look().sound:
            if state.stream_id == record.stream_id and hashed.first <= record.sequence_number <= hashed.last:
                return hashed.hashes[record.sequence_number - hashed.first] == sha256(record.body.encode()).digest()
        return False

    def last(self) -> LastCheckpoint | None:
        """Return the last checkpoint of any process; None before the first.

        Raises:
            BrokenLedgerError: something that this process saw committed is gone.
        """

        def look(execute: Execute) -> StoredCheckpoint | None:
            self._rollback_guard.require_all(execute)
            return last_stored(execute)

        last = self._reading.read(look)
        self._rollback_guard.saw_checkpoint(last)
        return None if last is None else LastCheckpoint(last.number, last.observed_ns)

    def refused(self) -> Sequence[RefusedStream]:
        """Return the streams that the last checkpoint of any process refused."""
        return self._reading.read(lambda execute: [RefusedStream(*row) for row in execute("refused_streams", {})])

    def registered(self) -> Sequence[RegisteredKey]:
        """Return the public keys of the ledger in the order of their registration; the last one signs now."""
        return self._reading.read(lambda execute: registered_keys(execute, self._settings.secret))

    def register(self, signer: Signer) -> None:
        """Register the public key if the ledger has no key and no checkpoint yet.

        Raises:
            SettingsError: the ledger has a key, and was begun with another ledger secret than this process has.
        """
        secret, now_ns = self._settings.secret, self._settings.clock()

        def register_first(execute: Execute) -> None:
            execute("one_at_a_time", {})
            ((has_signed,),) = execute("has_signed", {})
            if has_signed:
                self._keys(execute)
            else:
                register(execute, secret, signer, number=1, first_checkpoint=1, now_ns=now_ns)

        self._writing.write(register_first)

    def rotate(self, new: Signer) -> int:
        """Make `new` the key that signs from the next checkpoint on, and return that checkpoint's number.

        Raises:
            SettingsError: this process does not hold the private key that signs now, or `new` has signed before.
        """
        return self._lanes.submit(lambda transaction: self._rotate(transaction, new)).result()

    def restore(self) -> Checkpointed:
        """Close every stream of a database that was set back, and continue above all numbers that may have been used.

        Raises:
            LedgerBusyError: processes work on the database.
        """
        written = self._lanes.submit(self._restore).result()
        self._saw(written)
        return written.done

    def _saw(self, written: _Written | None) -> Checkpointed | None:
        if written is None:
            return None
        self._rollback_guard.saw_checkpoint(written.last)
        return written.done

    def _restore(self, transaction: T) -> _Written:
        execute, secret = transaction.execute, self._settings.secret
        execute("one_at_a_time", {})
        last = last_to_follow(execute, secret, self._keys(execute))
        at_work = self._at_work(transaction)
        if at_work:
            raise LedgerBusyError(f"{at_work}: stop every process that works on the database, and try again in 10 s")
        own = {"own": transaction.tip.stream_id}
        # Each stream is closed at its stored tip.
        closed = [stream_id for (stream_id,) in execute("end_streams", own)]
        first = first_after_restore(last, transaction.now_ns)
        record = self._settings.operator_record(names.EVENT_AUDIT_RESTORE)
        transaction.save(Transition(record=restore_record(record, last, first, len(closed))))
        written = self._write(transaction, {}, first)
        if written is None:
            raise LedgerBusyError("another process writes checkpoints: stop every process, and try again in 10 s")
        done = Checkpointed(written.done.numbers, closed, written.done.refused)
        return _Written(done, written.last)

    def _write(self, transaction: T, known: Mapping[str, RehashedRecords], first: int | None = None) -> _Written | None:
        execute, secret = transaction.execute, self._settings.secret
        execute("one_at_a_time", {})
        if not self._take_lease(execute):
            return None
        # Also at a clean stop: operators stop the process when it reports that the database was set back.
        self._rollback_guard.require_all(execute)
        keys = self._keys(execute)
        signer = self._signer(keys)
        last = last_to_follow(execute, secret, keys)
        closed = list(self._close_orphans(transaction))
        found = survey(execute, secret, own=transaction.tip, known=known)
        for refused in found.refused:
            if refused.stream_id == transaction.tip.stream_id:
                # A checkpoint has to be in a stream that it can sign over, so the lane opens another one.
                raise FencedError(refused.reason)
        transaction.certify(signer.fingerprint)
        added: list[StoredCheckpoint] = []
        for named in to_name(found):
            last = self._add(transaction, signer, last, named, first)
            first = None
            added.append(last)
        self._note_refused(execute, found.refused)
        return _Written(Checkpointed([checkpoint.number for checkpoint in added], closed, found.refused), added[-1])

    def _add(
        self,
        transaction: T,
        signer: Signer,
        last: StoredCheckpoint | None,
        named: Sequence[NamedTip],
        number: int | None = None,
    ) -> StoredCheckpoint:
        """Write one checkpoint behind `last`, and move the anchors of the streams that it names.

        `number` is given after a restore only; None means the number after that of `last`.
        """
        stated = stated_behind(last, named, number)
        record = stating(self._settings.system_record(names.EVENT_AUDIT_CHECKPOINT), stated.attributes())
        sealed = transaction.save_signed(record, signer)
        return store(
            transaction.execute,
            self._settings.secret,
            stated,
            record=sealed.tip,
            signature=sealed.signature or "",
            fingerprint=signer.fingerprint,
        )

    def _rotate(self, transaction: T, new: Signer) -> int:
        execute, secret = transaction.execute, self._settings.secret
        execute("one_at_a_time", {})
        self._rollback_guard.require_all(execute)
        keys = self._keys(execute)
        old = self._signer(keys)
        if new.fingerprint in {key.fingerprint for key in keys}:
            raise SettingsError([f"the key {new.fingerprint} signs or has signed: rotation needs one that never has"])
        last = last_to_follow(execute, secret, keys)
        first = last.number + 1 if last else 1
        transaction.certify(old.fingerprint)
        record = self._settings.operator_record(names.EVENT_AUDIT_KEY_ROTATE)
        sealed = transaction.save_signed(stating_rotation(record, old, new, first), old)
        register(
            execute,
            secret,
            new,
            number=len(keys) + 1,
            first_checkpoint=first,
            now_ns=transaction.now_ns,
            rotation=sealed.tip.record_id,
        )
        transaction.certify(new.fingerprint)
        return first

    def _release(self, execute: Execute) -> None:
        execute("release_lease", {"name": CHECKPOINT_LEASE, "owner": self._settings.owner})

    def _keys(self, execute: Execute) -> Sequence[RegisteredKey]:
        return keys_of_begun(execute, self._settings.secret)

    def _signer(self, keys: Sequence[RegisteredKey]) -> Signer:
        return signer_of(keys, self._private_key)

    def _note_refused(self, execute: Execute, refused: Sequence[RefusedStream]) -> None:
        now_refused = {stream.stream_id for stream in refused}
        for stream_id, _ in list(execute("refused_streams", {})):
            if stream_id not in now_refused:
                execute("forget_refused", {"stream_id": stream_id})
        for stream in refused:
            values = {"stream_id": stream.stream_id, "reason": stream.reason, "now_ns": self._settings.clock()}
            execute("put_refused", values)

"""Puts the secret of a key that an older version made on record, so that from then on the ledger covers it.

An older version stored no MAC of a key, and its record does not state the secret. The key is taken as it is, once: if
the record of its making is genuine (a checkpoint covers it, or the MAC of its stream's tip), states the same key, and
no record states a secret of it.
"""

from collections.abc import Callable, Sequence

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from service.key_coverage import SECRET_SHA256
from service.operations.base import Operation, Saved, Services
from service.operations.key_names import key_target
from service.operations.proofs import is_signed_over, proof_of
from service.operations.steps import Decision, Step
from service.ports import ApiKey, KeyRecord, KeySecret, PutKeySecret, Reads, RecordRow, Transaction
from service.records import AuditContext, Fact, change
from telemetry import names
from telemetry.audit.record import SERVICE_ISSUER, Actor, Result


class KeyAdoption:
    """Adopts keys in the name of the service. Each method blocks."""

    def __init__(
        self,
        services: Services,
        reads: Reads,
        public_keys: Callable[[], Sequence[Ed25519PublicKey]],
        holds: Callable[[RecordRow], bool],
    ) -> None:
        """Adopt keys in the ledger of `services`.

        Args:
            services: those of the service itself.
            reads: the same ledger.
            public_keys: returns the keys that sign its checkpoints.
            holds: `service.ports.CheckpointWriter.holds`.
        """
        self._services = services
        self._reads = reads
        self._public_keys = public_keys
        self._holds = holds

    def adopt(self, key: ApiKey, made: KeyRecord) -> str | None:
        """Adopt a key unless it has changed meanwhile; return why it cannot be, None if it can.

        Raises:
            TryLaterError: nothing was committed.
        """
        record = self._reads.record(made.record_id, None)
        if record is None or record.body != made.body or not self._is_genuine(record):
            return f"record {made.record_id}, which states that it was made, was not committed by this deployment"
        context = AuditContext(
            actor=Actor("auditrace", "system", SERVICE_ISSUER), tenant_id=key.tenant_id, source="api"
        )
        span = self._services.tracing.root(names.EVENT_KEY_ADOPT)
        operation = Operation(self._services, context, span)

        def work(transaction: Transaction) -> Saved[None] | None:
            transaction.one_changes_keys()
            if transaction.key(key.key_id) != key:
                # Another process adopted it, or somebody changed it.
                return None
            return operation.save(transaction, self._decision(key), self._services.clock())

        try:
            saved = self._services.ledger.submit(work).result()
            if saved is not None:
                operation.conclude(saved)
        finally:
            span.end()
        return None

    def _decision(self, key: ApiKey) -> Decision[None]:
        record_id = self._services.new_id()
        present = KeySecret(number=1, secret_sha256=key.secret_sha256, made_ns=key.created_ns, record_id=record_id)
        adopted = msgspec.structs.replace(key, secret=present).authenticated(self._services.secret)
        changes = {
            "id": change(key.key_id, key.key_id),
            "tenant": change(key.tenant_id, key.tenant_id),
            SECRET_SHA256: change(None, key.secret_sha256),
        }
        fact = Fact(
            event_name=names.EVENT_KEY_ADOPT, target=key_target(key.name), result=Result.SUCCESS, changes=changes
        )
        return Decision([Step(fact=fact, writes=(PutKeySecret(adopted),), record_id=record_id)], None)

    def _is_genuine(self, record: RecordRow) -> bool:
        # Twice: a checkpoint may cover it in between.
        return self._is_covered(record) or self._holds(record) or self._is_covered(record)

    def _is_covered(self, record: RecordRow) -> bool:
        return is_signed_over(proof_of(record, self._reads), self._public_keys())

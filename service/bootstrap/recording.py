"""Commits single records of a person's acts to a ledger that exists: nothing is made, migrated or signed for it.

It needs the database and the ledger secret, and no signing key: the next checkpoint of the service covers the records.
It writes no checkpoint on purpose. A database that was set back may be used before `migrate --after-restore` repairs
it, and a checkpoint would then use a number that a lost one may have.
"""

import secrets
import time
import uuid
from collections.abc import Generator, Sequence
from contextlib import contextmanager

from service.bootstrap.database import Database, LedgerParts
from service.bootstrap.invocation import context_of
from service.bootstrap.ledger_records import LedgerRecords, service_context
from service.bootstrap.node import VERSION
from service.config import Settings
from service.errors import SettingsError
from service.ids import new_id_from
from service.keyfiles import deployment_secret
from service.ports import Transition
from service.records import Fact, Invocation, record_of
from telemetry.audit.ledger import AuditLogger
from telemetry.setup import Telemetry, set_up
from telemetry.tracing import Tracing


class Recorder:
    """Commits records of one person's command. Between two records nothing is open in the database.

    Raises (on opening):
        SettingsError: there is no ledger, its schema is not the newest, or the ledger secret is not at hand.
        TryLaterError: the database cannot be used now.
    """

    def __init__(self, settings: Settings, database: Database, invocation: Invocation, telemetry: Telemetry) -> None:
        database.require()
        if database.unapplied():
            raise SettingsError([f"the schema of {database.place} is not that of this version: run auditrace migrate"])
        self._secret = deployment_secret(settings.ledger_secret, may_create=False)
        keys = database.keys(self._secret)
        if not keys:
            raise SettingsError([f"no signing key is registered in {database.place}: start the service once"])
        self._fingerprint = keys[-1].fingerprint
        self._database = database
        self._context = context_of(invocation)
        self._telemetry = telemetry
        self._tracing = Tracing(telemetry.tracer)
        self._clock = time.time_ns
        self._new_id = new_id_from(self._clock, secrets.randbits)

    def record(self, fact: Fact) -> None:
        """Commit the record of a fact, in a stream of its own that is closed behind it, and in a trace of its own.

        Raises:
            TryLaterError: nothing was committed, unless the text says that this is unknown.
            BrokenLedgerError: the ledger refuses it; nothing was committed.
        """
        opened = self._database.open(self._parts())
        span = self._tracing.root(fact.event_name)
        try:
            record = record_of(fact, self._context, span.ref, self._new_id(), self._clock())
            opened.ledger.submit(lambda transaction: transaction.save(Transition(record=record))).result()
            span.mark(record)
        finally:
            span.end()
            opened.close_unsigned()

    def _parts(self) -> LedgerParts:
        records = LedgerRecords(
            tracing=self._tracing,
            new_id=self._new_id,
            clock=self._clock,
            service=service_context("cli"),
            operator=self._context,
        )
        return LedgerParts(
            owner=f"node-{uuid.uuid4()}",
            audit_log=AuditLogger(self._telemetry.audit_resource, VERSION).certified(self._fingerprint),
            secret=self._secret,
            clock=self._clock,
            new_stream_id=lambda: str(uuid.uuid4()),
            system_record=records.of_service,
            operator_record=records.of_operator,
            on_commit=self._on_commit,
            on_hint=lambda: None,
            private_key=lambda _fingerprint: None,
            lanes=1,
        )

    def _on_commit(self, outcomes: Sequence[str]) -> None:
        for outcome in outcomes:
            self._telemetry.instruments.record_committed(outcome)


@contextmanager
def recorder(settings: Settings, database: Database, invocation: Invocation) -> Generator[Recorder]:
    """Open a recorder for a command that has no telemetry of its own.

    Raises:
        SettingsError, TryLaterError: as `Recorder` does.
        TelemetrySettingsError: the `OTEL_*` variables are wrong.
    """
    telemetry = set_up(
        settings.environment, instance_id=str(uuid.uuid4()), version=VERSION, certificate="", is_daemon=False
    )
    try:
        yield Recorder(settings, database, invocation, telemetry)
    finally:
        telemetry.shutdown()

"""Records what differs between the configuration of a process and the one that the ledger knows, before it applies."""

import logging
from collections.abc import Mapping, Sequence

import msgspec

from service.operations.base import Committed, Operation, Saved
from service.operations.steps import Decision, Step
from service.ports import Configuration, StoredConfiguration, Transaction
from service.records import Fact, change
from telemetry import names
from telemetry.audit.canonical import Value
from telemetry.audit.record import Result, Target

_log = logging.getLogger(__name__)

HASH = "configuration"
"""The change of the whole configuration, by its SHA-256."""


class Configured(msgspec.Struct, frozen=True):
    """What was recorded: the names of the settings and of the templates that differ."""

    settings: Sequence[str]
    templates: Sequence[str]
    waits: bool
    """True if only relays of other processes bring the records to a sink, because this process offers them to none."""


class Configuring(Operation):
    """Configures the processes of one source on one host."""

    def configure(self, host: str, now: Configuration, texts: Mapping[str, str]) -> Committed[Configured] | None:
        """Record the configuration of this process, and store it in the same transaction; return after the commit.

        Each template that differs has a record of its own. The last record is that of the service.

        What the ledger knows is the newest configuration of this source on this host, or if there is none, on any host.
        Nothing is recorded if the configuration is that one. If it is only the newest one of another host, it is
        stored for this host, and the record of the other host counts: processes on many hosts make one record.

        Args:
            host: the host of this process.
            now: what it is about to apply.
            texts: the texts of its templates, by name.

        Returns:
            What was recorded; None if nothing was.

        Raises:
            TryLaterError: nothing was committed.
        """

        def work(transaction: Transaction) -> Saved[Configured] | None:
            transaction.one_configures()
            own = self._authentic(transaction.configuration(source=self.context.source, host=host))
            anywhere = self._authentic(transaction.configuration(source=self.context.source))
            if own is not None and own.document == now.document:
                return None
            if anywhere is not None and anywhere.document == now.document:
                self._store(transaction, host, now, anywhere.record_id, None)
                return None
            known = own or anywhere
            delivering = self._last_delivering(transaction)
            # A process that delivers nothing may not reach the sink.
            reached = delivering if now.sink else None
            before = known if known is not None and known.delivers else reached
            record_id = self.services.new_id()
            waits = before is None and delivering is not None
            decision = _decision(known, now, texts, host, record_id, waits=waits)
            saved = self.save(transaction, decision, self.services.clock())
            self._store(transaction, host, now, record_id, before)
            return saved

        saved = self.services.ledger.submit(work).result()
        return None if saved is None else self.conclude(saved)

    def _last_delivering(self, transaction: Transaction) -> StoredConfiguration | None:
        """Return the newest authentic configuration of processes that deliver: a forged one hides no sink."""
        stored = transaction.configuration(delivers=True)
        while stored is not None and self._authentic(stored) is None:
            _log.error(
                "configuration %d was not stored by a process of this deployment: see `auditrace doctor --ledger`",
                stored.number,
            )
            stored = transaction.configuration(delivers=True, below=stored.number)
        return stored

    def _authentic(self, stored: StoredConfiguration | None) -> StoredConfiguration | None:
        # A forged one counts as none, so that all of the present one is recorded.
        return stored if stored is not None and stored.is_authentic(self.services.secret) else None

    def _store(
        self,
        transaction: Transaction,
        host: str,
        now: Configuration,
        record_id: str,
        before: StoredConfiguration | None,
    ) -> None:
        newest = transaction.configuration()
        stored = StoredConfiguration(
            number=1 if newest is None else newest.number + 1,
            source=self.context.source,
            host=host,
            document=now.document,
            delivers=int(bool(now.sink)),
            record_id=record_id,
            before=None if before is None else before.number,
        )
        transaction.put_configuration(stored.authenticated(self.services.secret))


def _decision(
    known: StoredConfiguration | None,
    now: Configuration,
    texts: Mapping[str, str],
    host: str,
    record_id: str,
    *,
    waits: bool,
) -> Decision[Configured]:
    before = Configuration({}, {}) if known is None else known.configuration
    settings = _differing(before.settings, now.settings)
    templates = _differing(before.templates, now.templates)
    whole = {HASH: change(None if known is None else before.sha256, now.sha256)}
    steps = [
        Step(fact=_fact(Target("template", name), {"sha256": differs, "text": change(None, texts.get(name))}))
        for name, differs in templates.items()
    ]
    # Behind those of the templates: whoever has it has all of them.
    steps.append(Step(fact=_fact(Target("service", host), {**whole, **settings}), record_id=record_id))
    return Decision(steps, Configured(list(settings), list(templates), waits))


def _differing(known: Mapping[str, Value], now: Mapping[str, Value]) -> dict[str, Value]:
    return {
        name: change(known.get(name), now.get(name))
        for name in sorted({*known, *now})
        if known.get(name) != now.get(name)
    }


def _fact(target: Target, changes: Mapping[str, Value]) -> Fact:
    return Fact(
        event_name=names.EVENT_SERVICE_CONFIGURE,
        target=target,
        result=Result.SUCCESS,
        changes={name: value for name, value in changes.items() if value},
    )

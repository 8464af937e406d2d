"""The parts of a process beside its main thread: worker, relay, checkpoints and verification."""

import logging
from collections.abc import Mapping

from service.api.parts import FAILED, READY
from service.bootstrap.configuration import ConfiguredPart
from service.bootstrap.isolating import confinement_of, described
from service.bootstrap.node import Node
from service.bootstrap.relaying import relay_of
from service.bootstrap.webhooks import load_webhooks
from service.checkpointer import Checkpointer
from service.errors import AuditraceError, TryLaterError
from service.execution.preparation import RunSurroundings
from service.operations.covered_keys import CoveredKeys
from service.processes.gauges import observe
from service.processes.stopping import (
    DELIVERIES_KEEP,
    KILL_SHARE,
    LEAST_TELEMETRY_S,
    RUNS_KEEP,
    WEBHOOKS_SHARE,
    Grace,
    Say,
    left_of,
    tell,
)
from service.selfcheck import KeyCheck, SelfCheck
from service.worker.worker import Worker, WorkerSettings

_log = logging.getLogger(__name__)


class Parts:
    """The parts of a process over its node; worker and relay may be left out; webhooks belong to the relay.

    A clean stop has an order in which nothing is lost: claims end and the ends of runs are recorded, the stream is
    closed and the last checkpoint written, then the relay delivers as much as the sink takes within the grace.
    """

    def __init__(self, node: Node, say: Say, *, with_worker: bool, with_relay: bool) -> None:
        self._node = node
        self._say = say
        self._is_retired = False
        has = {
            ConfiguredPart.API: node.source == "api",
            ConfiguredPart.WORKER: with_worker,
            ConfiguredPart.RELAY: with_relay,
        }
        self.configured = frozenset({ConfiguredPart.LEDGER, *(part for part, is_there in has.items() if is_there)})
        """What this process has, by the settings that it applies."""
        self.grace = Grace(node.settings.shutdown_grace_ms / 1000, node.monotonic)
        self._checkpointer = Checkpointer(
            node.checkpoints, node.settings.checkpoint_interval_ms / 1000, node.clock, node.monotonic
        )
        self._selfcheck = SelfCheck(
            node.reads,
            node.committed_records,
            node.registered_keys,
            lambda: self._checkpointer.state().is_writer,
            node.settings.self_check_interval_ms / 1000,
            node.monotonic,
        )
        self._worker = _worker(node) if with_worker else None
        self._relay = relay_of(node.settings, node.opened.outbox(), node.telemetry.instruments) if with_relay else None
        self.endpoints = load_webhooks(node.settings.webhooks) if with_relay else ()
        """The endpoints of the webhooks that it delivers."""
        self._webhooks = node.webhooks(self.endpoints)
        node.committed += [part.wake for part in (self._worker, self._relay, self._webhooks) if part is not None]
        for part in (self._worker, self._relay, self._webhooks):
            if part is not None:
                self.grace.at_hurry(part.hurry)
        self.keys = node.covered_keys() if node.source == "api" else None
        """The API keys that authenticate requests of this process; None if it takes none."""
        interval_s = node.settings.self_check_interval_ms / 1000
        self._key_check = None if self.keys is None else KeyCheck(self.keys.check_all, interval_s)
        observe(node, self._checkpointer, self._selfcheck, self.keys, self._worker)

    def start(self) -> None:
        """Start them; they also deliver earlier records, and close streams and runs of processes that died."""
        self._checkpointer.start()
        self._selfcheck.start()
        if self._key_check is not None:
            self._key_check.start()
        if self._relay is not None:
            self._relay.start()
        if self._webhooks is not None:
            self._webhooks.start()
        if self._worker is not None:
            self._worker.start()

    def retire(self) -> None:
        """Claim no run from now on, and print which runs are waited for; a second call does nothing."""
        if self._is_retired:
            return
        self._is_retired = True
        self.grace.begin()
        runs = self._worker.retire() if self._worker is not None else ()
        if runs:
            tell(
                self._say,
                f"auditrace stops: it waits up to {self.grace.left_s(kept=RUNS_KEEP):.0f} s for {', '.join(runs)}; "
                "ask again (Ctrl-C) to hand back what still runs, and stop now",
            )

    def stop(self) -> None:
        """Stop them in order within the grace, close the node, and print what is left in the outbox."""
        self.retire()
        if self._worker is not None:
            self._worker.stop(self.grace.left_s(kept=RUNS_KEEP), self.grace.seconds * KILL_SHARE)
        self._selfcheck.stop()
        if self._key_check is not None:
            self._key_check.stop()
        self._checkpointer.stop()
        self._node.opened.close_ledger()
        if self._webhooks is not None:
            # At the same time as the relay, and no longer than its share: what is left is for the next start.
            self._webhooks.retire(min(self.grace.seconds * WEBHOOKS_SHARE, self.grace.left_s(kept=DELIVERIES_KEEP)))
        if self._relay is not None:
            self._relay.stop(self.grace.left_s(kept=DELIVERIES_KEEP))
        if self._webhooks is not None:
            self._webhooks.stop()
        left = self._left()
        if self._relay is not None:
            self._relay.close()
        if self._webhooks is not None:
            self._webhooks.close()
        self._node.close(max(LEAST_TELEMETRY_S, self.grace.left_s()))
        tell(self._say, f"auditrace stopped: {left}")

    def _left(self) -> str:
        try:
            count = self._node.reads.outbox().depth
        except AuditraceError:
            count = None
        return left_of(count, None if self._relay is None else self._relay.state().error)

    def ready(self) -> Mapping[str, str]:
        """Return the state of each part; only a ledger that cannot be read or written makes the process unready."""
        checks = {
            "ledger": self._ledger(),
            "writes": self._writes(),
            "checkpoints": self._checkpoints(),
            "verification": self._verification(),
        }
        if self.keys is not None and self._key_check is not None:
            checks["keys"] = _of_keys(self.keys, self._key_check)
        if self._worker is not None:
            checks["worker"] = self._worker.problem or READY
        if self._relay is not None:
            checks["delivery"] = self._relay.state().text or READY
        if self._webhooks is not None:
            checks["webhooks"] = self._webhooks.text or READY
        return checks

    def _ledger(self) -> str:
        try:
            self._node.reads.outbox()
        except TryLaterError as error:
            return f"{FAILED}: {error.detail}"
        except AuditraceError as error:
            return f"{FAILED}: {error}"
        watermark = self._node.watermark
        problem = watermark.problem() if watermark is not None else None
        return READY if problem is None else f"{FAILED}: {problem}"

    def _writes(self) -> str:
        problem = self._node.writes.problem()
        return READY if problem is None else f"{FAILED}: {problem}; the log has what the database said"

    def _checkpoints(self) -> str:
        state = self._checkpointer.state()
        problems = [f"stream {one.stream_id} is not signed over: {one.reason}" for one in state.refused]
        if state.error is not None:
            problems.insert(0, f"held up: {state.error}")
        return "; ".join(problems) or READY

    def _verification(self) -> str:
        state = self._selfcheck.state()
        problems = [f"held up: {state.error}"] if state.error is not None else []
        if state.findings:
            findings = "1 finding" if state.findings == 1 else f"{state.findings} findings"
            problems.append(f"{findings}, first {state.first}: run `{state.command}`")
        return "; ".join(problems) or READY


def _of_keys(keys: CoveredKeys, check: KeyCheck) -> str:
    texts = [f"held up: {check.error}"] if check.error is not None else []
    problems = keys.problems
    if problems:
        name, problem = next(iter(problems.items()))
        count = "1 is" if len(problems) == 1 else f"{len(problems)} are"
        texts.append(f"{count} not what the ledger says, first {name}: {problem}: run `auditrace doctor --ledger`")
    return "; ".join(texts) or READY


def _worker(node: Node) -> Worker:
    settings = node.settings
    confinement = confinement_of(settings)
    if confinement.missing is not None:
        _log.warning("isolation of runs: %s", described(confinement))
    around = RunSurroundings(
        environment=settings.environment,
        work_folder=settings.work_folder,
        max_artifact_bytes=settings.max_input_bytes,
        owner_descriptor=node.opened.owner_descriptor,
        confinement=confinement,
    )
    return Worker(
        node.run_operations(lambda plan: confinement.of(plan).value),
        node.reads,
        node.secret,
        WorkerSettings(slots=settings.worker_slots, renew_s=settings.run_renew_ms / 1000, around=around),
        node.telemetry.instruments,
        node.clock,
    )

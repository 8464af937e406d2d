"""The gauges of a process's parts, read whenever its metrics are collected."""

from collections.abc import Callable, Mapping

from service.bootstrap.node import Node
from service.checkpointer import Checkpointer
from service.jobs.model import Status
from service.operations.covered_keys import CoveredKeys
from service.selfcheck import SelfCheck
from service.worker.worker import Worker
from telemetry import names


def observe(
    node: Node,
    checkpointer: Checkpointer,
    selfcheck: SelfCheck,
    keys: CoveredKeys | None,
    worker: Worker | None,
) -> None:
    """Register the gauges of outbox, jobs, checkpoints, verification, API keys, refused runs and disk; call it once."""

    def outbox() -> tuple[int, float]:
        state = node.reads.outbox()
        age_ns = 0 if state.oldest_ns is None else max(0, node.clock() - state.oldest_ns)
        return state.depth, age_ns / 1e9

    def jobs() -> Mapping[str, int]:
        counts = node.reads.job_counts()
        # Zeros too, because a status that is left out would keep its last value.
        return {status.value: counts.get(status, 0) for status in Status}

    readings: dict[str, Callable[[], float | None]] = {
        names.METRIC_AUDITRACE_AUDIT_OUTBOX_PARKED: lambda: node.reads.outbox().parked,
        names.METRIC_AUDITRACE_AUDIT_CHECKPOINT_NUMBER: lambda: checkpointer.state().number,
        names.METRIC_AUDITRACE_AUDIT_CHECKPOINT_AGE: lambda: checkpointer.state().age_s,
        names.METRIC_AUDITRACE_AUDIT_CHECKPOINT_REFUSED: lambda: len(checkpointer.state().refused),
        names.METRIC_AUDITRACE_AUDIT_VERIFICATION_FINDINGS: lambda: selfcheck.state().findings,
        names.METRIC_AUDITRACE_AUDIT_VERIFICATION_AGE: lambda: selfcheck.state().age_s,
    }
    if keys is not None:
        readings[names.METRIC_AUDITRACE_KEYS_UNCOVERED] = lambda: len(keys.problems)
    if worker is not None:
        readings[names.METRIC_AUDITRACE_JOB_RUN_REFUSED] = lambda: len(worker.refused)
    watermark = node.watermark
    if watermark is not None:
        readings[names.METRIC_AUDITRACE_LEDGER_DISK_FREE] = watermark.free_bytes
    node.telemetry.instruments.observe(outbox, jobs)
    node.telemetry.instruments.observe_each(readings)

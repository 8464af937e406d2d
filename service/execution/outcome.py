"""Derives the result of a run from the supervisor's report and the collected files; pure."""

import signal
from collections.abc import Sequence
from enum import StrEnum
from typing import Final

import msgspec

from service.execution.artifacts import Collected
from service.execution.control import SupervisorReport
from service.execution.excerpt import EXCERPT_BYTES
from service.jobs.model import Limits

# The messages of the C library, C++, Python, Go and Java for a refused allocation. They only decide how a failure is
# named.
_OUT_OF_MEMORY: Final = (b"Cannot allocate memory", b"std::bad_alloc", b"MemoryError", b"out of memory", b"OutOfMemory")


class Reason(StrEnum):
    """Why a run ended."""

    SUCCESS = "success"
    EXIT = "exit"
    SIGNAL = "signal"
    TIMEOUT = "timeout"
    CANCELLED = "cancelled"
    MEMORY = "memory"
    CPU = "cpu"
    OUTPUT_LIMIT = "output_limit"
    PROCESSES = "processes"
    FOLDER_LIMIT = "folder_limit"
    LEASE_LOST = "lease_lost"
    START_FAILED = "start_failed"
    SUPERVISOR_LOST = "supervisor_lost"


class RunResult(msgspec.Struct, frozen=True, kw_only=True):
    """How a run ended. None of its processes is alive, and its folder is removed.

    `error_type` is None after a success, the reason given to `cancel` after a cancellation, else `reason`.
    `detail` is one sentence, or None. `exit_code` and `signal` are the command's; both are None when it did not start
    or its end was not seen. `stderr_end` is the end of standard error as written, sensitive values included.
    The sizes of the streams are those before they were cut. The sizes and `peak_memory_bytes` are None when the
    supervisor reported no end.
    """

    reason: Reason
    error_type: str | None
    detail: str | None
    exit_code: int | None = None
    signal: int | None = None
    duration_ms: int = 0
    stdout_bytes: int | None = None
    stderr_bytes: int | None = None
    peak_memory_bytes: int | None = None
    artifacts: Sequence[tuple[str, bytes]] = ()
    stderr_end: bytes = b""


def start_failed(detail: str) -> RunResult:
    """Return the result of a run whose command was never executed."""
    return RunResult(reason=Reason.START_FAILED, error_type=Reason.START_FAILED.value, detail=detail)


def result_of(
    report: SupervisorReport, collected: Collected, limits: Limits, *, timeout_ms: int, cancelled_for: str
) -> RunResult:
    """Return the result of a run that was supervised to its end.

    Args:
        report: the supervisor's last line.
        collected: the files that the run left.
        limits: the limits of its plan.
        timeout_ms: the timeout of its plan.
        cancelled_for: the reason given to `cancel`. It is used only if the supervisor stopped the run because of it.
    """
    if "start_failed" in report:
        return start_failed(report["start_failed"])
    reason, detail = _reason(report, collected, limits, timeout_ms, cancelled_for)
    said = [*([detail] if detail else []), *collected.notes]
    return RunResult(
        reason=reason,
        error_type=None if reason is Reason.SUCCESS else cancelled_for if reason is Reason.CANCELLED else reason.value,
        detail="; ".join(said) or None,
        exit_code=report.get("exit_code"),
        signal=report.get("signal"),
        duration_ms=report.get("duration_ms", 0),
        stdout_bytes=collected.stdout_bytes,
        stderr_bytes=collected.stderr_bytes,
        peak_memory_bytes=report.get("peak_memory_bytes"),
        artifacts=collected.artifacts,
        stderr_end=collected.stderr_end,
    )


def _reason(
    report: SupervisorReport, collected: Collected, limits: Limits, timeout_ms: int, cancelled_for: str
) -> tuple[Reason, str | None]:
    stopped, code, number = report.get("stopped"), report.get("exit_code"), report.get("signal")
    used_cpu = report.get("cpu_ms", 0) >= limits.cpu_seconds * 1000
    if stopped == "timeout":
        return Reason.TIMEOUT, f"stopped after its timeout of {timeout_ms} ms"
    if stopped == "cancelled":
        return Reason.CANCELLED, f"stopped: {cancelled_for}"
    if stopped == "lease_lost":
        return Reason.LEASE_LOST, "stopped: its lease could not be renewed in time"
    if stopped == "memory":
        return Reason.MEMORY, f"stopped: it used more than {limits.memory_bytes} bytes of memory"
    if stopped == "cpu" or number == signal.SIGXCPU or (code != 0 and used_cpu):
        return Reason.CPU, f"stopped: it used its {limits.cpu_seconds} s of processor time"
    if stopped == "output_limit" or number == signal.SIGXFSZ or collected.found_bytes > limits.output_bytes:
        return Reason.OUTPUT_LIMIT, f"it wrote more than {limits.output_bytes} bytes"
    if stopped == "processes":
        return Reason.PROCESSES, report.get("detail")
    if stopped == "folder_limit":
        return Reason.FOLDER_LIMIT, report.get("detail")
    if code == 0:
        return Reason.SUCCESS, None
    if any(text in collected.stderr_end[-EXCERPT_BYTES:] for text in _OUT_OF_MEMORY):
        return Reason.MEMORY, f"the command ran out of memory; its limit is {limits.memory_bytes} bytes"
    if number is not None:
        return Reason.SIGNAL, f"the command was killed by {signal.Signals(number).name}"
    return Reason.EXIT, f"the command exited with {code}"

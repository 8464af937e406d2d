"""The two pipes between a worker and the supervisor of a run: the order and the report.

It uses only the standard library, because the supervisor imports it.
"""

import json
import os
from typing import Final, TypedDict

from service.execution.command import Order

CONTROL: Final = 0
STATUS: Final = 1
"""The descriptors of the supervisor: the control pipe is its standard input, the status pipe its standard output."""


class SupervisorReport(TypedDict, total=False):
    """The first line has `pid`, `namespace` and `user`, the last line the other members.

    `namespace` is that of process ids in the sandbox, and `user` that of the run; None where it has none of its own.
    `stopped` is None when the run ended by itself.
    """

    pid: int
    namespace: str | None
    user: int | None
    start_failed: str
    stopped: str | None
    detail: str
    exit_code: int | None
    signal: int | None
    duration_ms: int
    cpu_ms: int
    peak_memory_bytes: int


def send(report: SupervisorReport) -> None:
    """Write a line to the worker; raise BrokenPipeError when the worker is dead."""
    os.write(STATUS, json.dumps(report).encode() + b"\n")


def receive_order() -> tuple[Order, bytes] | None:
    """Return the order and the bytes that came after it; None when the worker died before it had sent the order."""
    received = bytearray()
    while b"\n" not in received:
        chunk = os.read(CONTROL, 65536)
        if not chunk:
            return None
        received += chunk
    line, _, rest = received.partition(b"\n")
    order: Order = json.loads(line)
    return order, bytes(rest)

"""Looks again and again at how much a run's folder holds, for a bounded part of the time.

It uses only the standard library, because the supervisor imports it.
"""

import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

from service.execution.command import Order
from service.execution.folder import WORK
from service.execution.folder_usage import MAX_DEPTH, FolderUsage

_SHARE: Final = 0.1
_MOST_S: Final = 0.01


class Excess(NamedTuple):
    """The limit that a run exceeds, as a reason of its result, and a sentence about it."""

    reason: str
    detail: str


class FolderWatch:
    """The folder of one run, with its limits."""

    def __init__(self, order: Order, streams: Sequence[int]) -> None:
        """Watch the working folder of the run; `streams` are descriptors of its standard output and error."""
        self._order = order
        self._streams = streams
        self._work = os.open(Path(order["folder"], WORK), os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        self._usage: FolderUsage | None = None
        self._looked = time.monotonic()

    def looks_full(self, pids: Sequence[int]) -> bool:
        """Go on counting for a tenth of the time since the last call, 10 ms at most; return whether it is too much.

        What the run moves meanwhile can count twice: `excess` knows better.

        Args:
            pids: the processes of the run, whose deleted files count.
        """
        now = time.monotonic()
        usage = self._usage or self._begin(pids)
        has_ended = usage.advance(min(_MOST_S, _SHARE * (now - self._looked)))
        self._looked = now
        self._usage = None if has_ended else usage
        return usage.exceeded is not None or self._stream_bytes() > self._order["output_bytes"]

    def excess(self, pids: Sequence[int]) -> Excess | None:
        """Count everything; return the limit that is exceeded. It is exact while no process of the run goes on."""
        if self._usage is not None:
            self._usage.close()
            self._usage = None
        usage = self._begin(pids)
        usage.advance()
        if usage.exceeded is None:
            return None
        return _excess(usage.exceeded, self._order)

    def _begin(self, pids: Sequence[int]) -> FolderUsage:
        order = self._order
        left = order["output_bytes"] - self._stream_bytes()
        return FolderUsage(
            self._work, pids, max_bytes=order["folder_bytes"], max_files=order["folder_files"], max_output=left
        )

    def _stream_bytes(self) -> int:
        return sum(os.fstat(descriptor).st_size for descriptor in self._streams)


def _excess(limit: str, order: Order) -> Excess:
    match limit:
        case "output_limit":
            return Excess(limit, f"it wrote more than {order['output_bytes']} bytes")
        case "folder_bytes":
            return Excess("folder_limit", f"stopped: its folder took more than {order['folder_bytes']} bytes")
        case "folder_files":
            return Excess(
                "folder_limit", f"stopped: its folder held more than {order['folder_files']} files and folders"
            )
        case _:
            return Excess("folder_limit", f"stopped: more than {MAX_DEPTH} folders lay in each other")

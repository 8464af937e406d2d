"""Refuses new work while the disk is nearly full, so that work in progress can still be recorded.

Below the watermark, ends of runs, checkpoints and closes of streams are still committed; only new work is refused.
Records of refusals are committed down to a half of it, so that a flood of them leaves the rest.
"""

import os
import threading
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Final, TypeVar

from service.errors import DiskLowError
from service.ports import Ledger, Work
from service.units import shown_size

T = TypeVar("T")

REFUSALS_SHARE: Final = 0.5
"""The part of the space to be kept that records of refusals must leave to work in progress and to checkpoints."""

_LOOK_S: Final = 1.0


class DiskWatermark:
    """Tells whether the file system of a folder has the free space to be kept; measured once a second at most."""

    def __init__(self, folder: Path, min_free_bytes: int, monotonic: Callable[[], float]) -> None:
        self._folder = folder
        self._min_free_bytes = min_free_bytes
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._looked_at = float("-inf")
        self._free_bytes = 0

    def problem(self, share: float = 1.0) -> str | None:
        """Return what is wrong, None if there is room: at least this share of the space to be kept."""
        try:
            free_bytes = self.free_bytes()
        except OSError as error:
            return f"the disk of {self._folder} cannot be looked at: {error.strerror}"
        if free_bytes >= self._min_free_bytes * share:
            return None
        return (
            f"the disk of {self._folder} has {shown_size(free_bytes)} left, less than the "
            f"{shown_size(self._min_free_bytes)} that are kept free (AUDITRACE_MIN_FREE): make room"
        )

    def free_bytes(self) -> int:
        """Return the free space, not older than a second.

        Raises:
            OSError: the disk cannot be looked at.
        """
        with self._lock:
            now = self._monotonic()
            if now - self._looked_at >= _LOOK_S:
                found = os.statvfs(self._folder)
                self._looked_at = now
                self._free_bytes = found.f_bavail * found.f_frsize
            return self._free_bytes


class WatermarkedLedger:
    """Implements `service.ports.Ledger` over another one, for work that may be refused: requests of clients, claims."""

    def __init__(self, ledger: Ledger, watermark: DiskWatermark, *, share: float = 1.0) -> None:
        self._ledger = ledger
        self._watermark = watermark
        self._share = share

    def submit(self, work: Work[T]) -> "Future[T]":
        """Submit work to the ledger; its future fails with `DiskLowError` if the disk is too full for new work."""
        problem = self._watermark.problem(self._share)
        if problem is None:
            return self._ledger.submit(work)
        refused: Future[T] = Future()
        refused.set_exception(
            DiskLowError("the disk of the ledger has no room for more", retry_after_s=10, cause=problem)
        )
        return refused

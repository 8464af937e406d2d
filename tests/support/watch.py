"""Verifies copies of a live ledger again and again, and keeps the reports that are not intact."""

import re
import threading
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Self, TypeAlias

import httpx
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from service.bootstrap.databases import database_of
from service.errors import TryLaterError
from telemetry.audit.verify import Found, Report, read_copy, verify
from tests.support.poll_until import poll_until

Copies: TypeAlias = Mapping[str, Callable[[], Iterable[Found]]]


def copies_of(database: str, archive: Path) -> Copies:
    """Return how the database of this URL and the archive in this folder are read."""
    return {"archive": lambda: read_copy([archive]), "database": lambda: database_of(database).records()}


class Watch:
    """Verifies each copy from its beginning, over and over; one that cannot be read now is read in the next round."""

    def __init__(self, copies: Copies, key: Ed25519PublicKey) -> None:
        self.alarms: list[tuple[str, Report]] = []
        self.verified = dict.fromkeys(copies, 0)
        self._copies = copies
        self._key = key
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def once_more(self) -> None:
        """Wait until all copies were looked at from their beginning again."""
        goals = {where: count + 2 for where, count in self.verified.items()}
        poll_until(
            lambda: bool(self.alarms) or all(self.verified[where] >= goal for where, goal in goals.items()),
            "another look",
        )

    def _look(self) -> None:
        while not self._ended.wait(0.2):
            for where, copy in self._copies.items():
                try:
                    report = verify(copy(), public_keys=[self._key])
                except TryLaterError:
                    continue
                if report.verdict != "intact":
                    self.alarms.append((where, report))
                self.verified[where] += 1


def await_verification(url: str) -> None:
    """Wait until the service at this URL has verified its ledger once more."""
    ages_s = [_verified_ago_s(url)]

    def is_done() -> bool:
        ages_s.append(_verified_ago_s(url))
        return ages_s[-1] < ages_s[-2]

    poll_until(is_done, "another verification")


def findings_reported(url: str) -> float | None:
    """Return how many findings the metrics of the service at this URL report; None when they say nothing of it."""
    return _metric(url, "auditrace_audit_verification_findings")


def _verified_ago_s(url: str) -> float:
    """Return how long ago the service last verified its ledger; a minute while it has not."""
    age_s = _metric(url, "auditrace_audit_verification_age_seconds")
    return 60.0 if age_s is None else age_s


def _metric(url: str, name: str) -> float | None:
    found = re.search(rf"^{name}(?:\{{\S*)? (\S+)$", httpx.get(f"{url}/metrics").text, re.MULTILINE)
    return None if found is None else float(found[1])

"""Checks API keys against the ledger, and keeps what is wrong with those that it does not cover."""

import logging
import threading
from collections.abc import Callable, Mapping
from typing import Final

from service.errors import UnauthenticatedError
from service.key_coverage import coverage_of, named_by, shown
from service.ports import ApiKey, KeyOnRecord, KeyRecord, Reads
from service.secrets import DeploymentSecret

_log = logging.getLogger(__name__)

KEPT_S: Final = 10.0
"""For so long an unchanged key counts as checked. A key whose row changed is checked at once."""


class CoveredKeys:
    """The API keys of a ledger. Any thread may use it; each method but `is_checked` reads the database, and blocks.

    Raises (each method that reads):
        TryLaterError: the database cannot be used now.
    """

    def __init__(
        self,
        reads: Reads,
        secret: DeploymentSecret,
        adopt: Callable[[ApiKey, KeyRecord], str | None],
        monotonic: Callable[[], float],
    ) -> None:
        """Check the keys of `reads`; `adopt` is `KeyAdoption.adopt`."""
        self._reads = reads
        self._secret = secret
        self._adopt = adopt
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._checked: dict[str, tuple[ApiKey, float]] = {}
        self._problems: Mapping[str, str] = {}

    @property
    def problems(self) -> Mapping[str, str]:
        """What is wrong, by the name of the key that it is about."""
        return self._problems

    def find(self, key_id: str) -> ApiKey | None:
        """Return the key with this id as it is stored now; whether the ledger covers it is not known."""
        return self._reads.key(key_id)

    def is_checked(self, key: ApiKey) -> bool:
        """Tell whether the ledger covered exactly this key, a short time ago at most."""
        known = self._checked.get(key.key_id)
        return known is not None and known[0] == key and self._monotonic() - known[1] < KEPT_S

    def check(self, key_id: str) -> ApiKey:
        """Return the key with this id, which the ledger covers; one that an older version made is adopted.

        Raises:
            UnauthenticatedError: there is none, or the ledger does not cover it.
        """
        began = self._monotonic()
        found = self._reads.keys_on_record(key_id)
        if not found:
            raise UnauthenticatedError("the API key is not known: check that it was copied whole")
        key, problem = self._examine(found[0])
        name = shown(key)
        with self._lock:
            others = {other: text for other, text in self._problems.items() if other != name}
            self._keep(others if problem is None else {**others, name: problem})
            if problem is None:
                self._checked[key_id] = (key, began)
        if problem is not None:
            raise UnauthenticatedError(
                "the ledger does not cover this API key: ask an administrator to look at the log"
            )
        return key

    def check_all(self) -> None:
        """Check every key, and whether each key that was made is there; keep what is wrong now."""
        problems: dict[str, str] = {}
        for one in self._reads.keys_on_record():
            key, problem = self._examine(one)
            if problem is not None:
                problems[shown(key)] = problem
        for record in self._reads.created_without_key():
            problems[named_by(record)] = f"record {record.record_id} states that it was made, and it is not there"
        with self._lock:
            self._keep(problems)

    def _examine(self, one: KeyOnRecord) -> tuple[ApiKey, str | None]:
        coverage = coverage_of(one.key, one.records, self._secret)
        if coverage.awaits is None:
            return one.key, coverage.problem
        problem = self._adopt(one.key, coverage.awaits)
        if problem is not None:
            return one.key, problem
        (again,) = self._reads.keys_on_record(one.key.key_id)
        coverage = coverage_of(again.key, again.records, self._secret)
        return again.key, coverage.problem or ("it was changed while it was adopted" if coverage.awaits else None)

    def _keep(self, problems: Mapping[str, str]) -> None:
        for name in problems.keys() - self._problems.keys():
            _log.error(
                "the %s is not what the ledger says: %s; `auditrace doctor --ledger` lists all", name, problems[name]
            )
        for name in self._problems.keys() - problems.keys():
            _log.warning("the %s is again what the ledger says", name)
        self._problems = problems

"""Keeps the findings of the own ledger, and decides when the whole ledger is verified again."""

import logging
from collections.abc import Iterable, Sequence
from typing import Final

import msgspec

from telemetry.audit.verify import Finding, Report

_log = logging.getLogger(__name__)

MOST_FINDINGS: Final = 1000
"""How many findings are kept; further ones change nothing, because the ledger is broken anyway."""
LONGEST_PAUSE_S: Final = 24 * 3600.0
REST: Final = 20
"""After a verification of the whole ledger, no other one begins for this many times as long as it took."""

_COMMAND: Final = "auditrace keys public --all | auditrace verify --database{behind} --public-key /dev/stdin"


class Shown(msgspec.Struct, frozen=True):
    """How many findings there are, the first of them with its place, and the command that prints them."""

    findings: int = 0
    first: str | None = None
    command: str | None = None


class Alarm:
    """The findings, from the first one on until a verification of the whole ledger finds nothing.

    That verification is due at once when the first finding comes, and then after pauses that double from `interval_s`
    up to a day. It takes at most a twentieth of a processor's time, however large the ledger is.
    """

    def __init__(self, interval_s: float) -> None:
        self._interval_s = interval_s
        self._pause_s = interval_s
        self._due_s = 0.0
        self._findings: dict[Finding, int] = {}
        self.shown = Shown()
        """The findings in short; may be read by any thread."""

    @property
    def findings(self) -> frozenset[Finding]:
        """The findings that no later verification has removed."""
        return frozenset(self._findings)

    def is_due(self, now_s: float) -> bool:
        """True when the whole ledger is to be verified now."""
        return bool(self._findings) and now_s >= self._due_s

    def add(self, findings: Iterable[Finding], behind: int) -> None:
        """Add the findings of a verification behind the checkpoint of this number; 0 means the whole ledger."""
        for finding in map(_apart_from_place, findings):
            known = self._findings.get(finding)
            if known is None and len(self._findings) >= MOST_FINDINGS:
                continue
            self._findings[finding] = behind if known is None else min(known, behind)
            if known is None:
                _log.error("the ledger does not verify: %s; `%s` prints it", _text(finding), _command(behind))
        self._show()

    def verified(self, began_s: float, ended_s: float) -> None:
        """Note when a verification of the whole ledger began and ended, also a failed one, and set when it is due."""
        self._due_s = ended_s + max(self._pause_s, REST * (ended_s - began_s))
        self._pause_s = min(2 * self._pause_s, LONGEST_PAUSE_S)

    def settle(self, report: Report, settled: Sequence[Finding], known: frozenset[Finding]) -> None:
        """Take the report on the whole ledger: of the findings `known` before it, only those in the report are left.

        Of the findings in the report, only those in `settled` are added; the others may still disappear by themselves.
        """
        if report.verdict == "not_checked":
            return
        shown = {_apart_from_place(finding) for finding in report.findings}
        before = self.shown
        self._findings = {
            finding: behind for finding, behind in self._findings.items() if finding in shown or finding not in known
        }
        self.add(settled if report.verdict == "broken" else (), 0)
        if not self._findings:
            self._pause_s = self._interval_s
            _log.warning(
                "the ledger verifies again: all of its %d records were verified, and nothing is left of %d findings, "
                "first %s",
                report.records,
                before.findings,
                before.first,
            )

    def _show(self) -> None:
        first = next(iter(self._findings), None)
        self.shown = Shown() if first is None else Shown(len(self._findings), _text(first), self._command())

    def _command(self) -> str:
        return _command(min(self._findings.values()))


def _apart_from_place(finding: Finding) -> Finding:
    """Return a finding without the place of its copy, which differs between windows, unless it has no stream."""
    return finding if finding.stream_id is None else msgspec.structs.replace(finding, place=None)


def _text(finding: Finding) -> str:
    where = finding.place or f"{finding.stream_id}:{finding.number}"
    return f"{finding.code} at {where}: {finding.detail}"


def _command(behind: int) -> str:
    return _COMMAND.format(behind=f" --behind {behind}" if behind else "")

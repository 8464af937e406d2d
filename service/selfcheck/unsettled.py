"""Holds back what an untouched ledger can show for a while, until the checkpoints had the time to settle it."""

from collections.abc import Callable, Sequence
from typing import Final, TypeAlias

from telemetry.audit.verify import Finding

_CODE: Final = "record_unanchored"
_CHECKPOINTS: Final = 2
"""The next checkpoint may have looked at the streams before the record was committed; the one behind it has not."""

_Place: TypeAlias = tuple[str | None, int | None, str | None]


class Unsettled:
    """The records that no checkpoint covers, although one was made long after the time at which they were sealed.

    So looks what somebody appended, and so looks an innocent record after a step of the clock, until a checkpoint
    covers it. It is a finding once two more checkpoints were written and it is still not covered.
    """

    def __init__(self) -> None:
        self._seen: dict[_Place, int] = {}

    def settled(self, findings: Sequence[Finding], last: int, last_now: Callable[[], int]) -> list[Finding]:
        """Return the findings of a verification without those that are held back.

        Args:
            findings: all of them, also those that were held back before and are still there.
            last: the number of the last checkpoint that the verification knew.
            last_now: returns that of the last one there is by now.
        """
        held = {_place_of(finding) for finding in findings if finding.code == _CODE}
        now = last_now() if held else last
        self._seen = {place: min(self._seen.get(place, now), now) for place in held}
        return [
            finding
            for finding in findings
            if finding.code != _CODE or last >= self._seen[_place_of(finding)] + _CHECKPOINTS
        ]


def _place_of(finding: Finding) -> _Place:
    return finding.stream_id, finding.number, finding.record_id

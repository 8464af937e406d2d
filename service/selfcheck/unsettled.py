"""Holds back findings that an untouched ledger can show for a while, until two more checkpoints were written."""

from collections.abc import Callable, Sequence
from typing import Final, TypeAlias

from telemetry.audit.verify import Finding

_CODE: Final = "record_unanchored"
_CHECKPOINTS: Final = 2
"""The next checkpoint may have read the streams before the record was committed; the one after it has not."""

_Place: TypeAlias = tuple[str | None, int | None, str | None]


class Unsettled:
    """The records that no checkpoint covers, although one was made long after the time at which they were sealed.

    A forged record that was appended looks like this. So does a good record after a step of the clock, until a
    checkpoint covers it. It becomes a finding when two more checkpoints were written and do not cover it.
    """

    def __init__(self) -> None:
        self._seen: dict[_Place, int] = {}

    def settled(self, findings: Sequence[Finding], last: int, last_now: Callable[[], int]) -> list[Finding]:
        """Return the findings of a verification without those that are held back.

        Args:
            findings: all of them, also those that were held back before.
            last: the number of the last checkpoint that the verification read.
            last_now: returns the number of the last checkpoint in the ledger now.
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

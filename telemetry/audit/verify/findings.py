"""What can be wrong with a copy, and the collection of it while records are read (docs/audit-format.md, section 8)."""

from collections.abc import Callable, Iterable, Mapping
from typing import Final, Literal, NamedTuple, TypeAlias

import msgspec

Code: TypeAlias = Literal[
    "body_missing",
    "body_not_json",
    "body_not_canonical",
    "member_missing",
    "attribute_missing",
    "timestamp_form",
    "trace_id_form",
    "span_id_form",
    "outcome_pair",
    "uid_differs",
    "index_differs",
    "hash_attribute",
    "event_name_differs",
    "trace_differs",
    "resource_differs",
    "conflicting_duplicate",
    "number_reused",
    "gap",
    "genesis_has_prev",
    "link_broken",
    "signature",
    "checkpoint_number_reused",
    "checkpoint_gap",
    "checkpoint_link",
    "checkpoint_total",
    "checkpoint_stale",
    "tip_missing",
    "tip_hash",
    "leaves",
    "record_unanchored",
    "after_close",
    "receipt_missing",
    "torn_line",
    "proof_form",
    "proof_differs",
]

NOTES: Final[frozenset[Code]] = frozenset({"torn_line"})
"""Codes that break nothing by themselves."""

At: TypeAlias = tuple[int, int]
"""Where a copy of a record was found: the source, counted in their order, and the line in it."""


class Fault(NamedTuple):
    """What is wrong, before it is known where."""

    code: Code
    detail: str


SEALED_BEFORE: Final = "sealed over five minutes before the last checkpoint, and none covers it"
"""The detail of the only finding that a step of the clock makes of an untouched ledger."""


class Finding(msgspec.Struct, frozen=True):
    """One thing that is wrong, and where: `number` is the number in the stream, `place` the copy that shows it."""

    code: Code
    detail: str
    stream_id: str | None = None
    number: int | None = None
    record_id: str | None = None
    place: str | None = None


class UnplacedFinding(msgspec.Struct, frozen=True):
    """A finding before names and places are told; `record_key` stands for a record id whose text is kept elsewhere."""

    fault: Fault
    stream_id: str | None = None
    number: int | None = None
    record_id: str | None = None
    record_key: bytes | None = None
    at: At | None = None


class Findings:
    """Collects findings; the same finding on several copies of a record is one, at the first of them."""

    def __init__(self) -> None:
        self._found: dict[tuple[object, ...], UnplacedFinding] = {}

    def add(self, noted: UnplacedFinding) -> None:
        """Add a finding, unless it is known."""
        # A fragment has no record to tell it from another one: its place does.
        where = noted.at if noted.stream_id is None else noted.stream_id
        key = (where, noted.record_id, noted.record_key, noted.number, noted.fault)
        known = self._found.get(key)
        if known is None or (noted.at is not None and known.at is not None and noted.at < known.at):
            self._found[key] = noted

    def noted(self) -> list[UnplacedFinding]:
        """Return all findings, in no order."""
        return list(self._found.values())

    def keep(self, is_wanted: Callable[[UnplacedFinding], bool]) -> None:
        """Forget the findings that are not wanted."""
        self._found = {key: noted for key, noted in self._found.items() if is_wanted(noted)}

    def record_keys(self) -> set[bytes]:
        """Return the keys of record ids that findings show as texts."""
        return {noted.record_key for noted in self._found.values() if noted.record_key is not None}

    def in_order(self, place_of: Callable[[At], str], texts: Mapping[bytes, str]) -> tuple[Finding, ...]:
        """Return all findings by stream, number and code, whatever the order in which they were added."""
        return tuple(sorted((_told(noted, place_of, texts) for noted in self._found.values()), key=_position))


def is_broken(findings: Iterable[Finding]) -> bool:
    """Tell whether any finding is more than a note."""
    return any(finding.code not in NOTES for finding in findings)


def _told(noted: UnplacedFinding, place_of: Callable[[At], str], texts: Mapping[bytes, str]) -> Finding:
    return Finding(
        code=noted.fault.code,
        detail=noted.fault.detail,
        stream_id=noted.stream_id,
        number=noted.number,
        record_id=noted.record_id if noted.record_key is None else texts[noted.record_key],
        place=None if noted.at is None else place_of(noted.at),
    )


def _position(finding: Finding) -> tuple[str, int, str, str, str, str]:
    return (
        finding.stream_id or "",
        finding.number or 0,
        finding.code,
        finding.record_id or "",
        finding.detail,
        finding.place or "",
    )

"""Filters: which records and jobs a reader asks for, and in which order."""

from enum import StrEnum
from typing import Final, TypeAlias

import msgspec

from service.jobs.model import Status
from telemetry import names

Values: TypeAlias = tuple[str, ...]
"""The values of a filter, of which a record has any; empty when the filter is not stated."""


class FilterValues(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Values of records, by the name of the filter. `event_name` also takes beginnings: `job.*`."""

    actor_id: Values = ()
    actor_issuer: Values = ()
    initiator_id: Values = ()
    action: Values = ()
    event_name: Values = ()
    outcome: Values = ()
    result: Values = ()
    target_type: Values = ()
    target_id: Values = ()
    trace_id: Values = ()
    span_id: Values = ()
    job_id: Values = ()
    stream_id: Values = ()
    request_id: Values = ()


class RecordFilter(FilterValues, frozen=True, kw_only=True, omit_defaults=True):
    """Filters of `GET /v1/audit/records`. A record matches when it matches each one that is stated.

    `excluded` holds the values that no record may have. A record without a value, for example without a job, has none
    of them. `q` is contained in the reason, the notes or the target id; the letters A to Z match in either case. With
    `include_trail` False, the trail about itself (`TRAIL_EVENTS`) is left out.
    """

    tenant_id: str | None = None
    since_ns: int | None = None
    until_ns: int | None = None
    q: str | None = None
    include_trail: bool = True
    excluded: FilterValues = FilterValues()


TRAIL_EVENTS: Final = (
    names.EVENT_AUDIT_CHECKPOINT,
    names.EVENT_AUDIT_READ,
    names.EVENT_AUDIT_STREAM_CLOSE,
    names.EVENT_AUDIT_STREAM_OPEN,
)
"""The events of the trail about itself. A record of them belongs to it when its result is success: no refused read."""


class ListingOrder(StrEnum):
    """The order of a listing of records: the last committed first, or the first."""

    DESC = "desc"
    ASC = "asc"


class JobFilter(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Filters of `GET /v1/jobs`; None means any."""

    status: Status | None = None
    template: str | None = None
    created_by: str | None = None


def small(text: str) -> str:
    """Return the text with the letters A to Z made small, as both databases do it.

    Example:
        >>> small("ZÜRICH")
        'zÜrich'
    """
    return "".join(chr(ord(character) + 32) if "A" <= character <= "Z" else character for character in text)

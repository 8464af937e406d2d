"""Decides, after a database was set back, which number the next checkpoint gets and what the record states."""

from typing import Final

import msgspec

from service.store.anchors import StoredCheckpoint
from telemetry import names
from telemetry.audit.record import AuditRecord

LEFT_OUT: Final = 1_000_000
"""At least so many numbers are left out, because lost checkpoints may have used them."""

_NS_PER_S: Final = 1_000_000_000


def first_after_restore(last: StoredCheckpoint | None, now_ns: int) -> int:
    """Return the number of the first checkpoint after a restore.

    The database does not tell which numbers the lost checkpoints used. There is at most one checkpoint a second, so two
    numbers for each second since the last checkpoint that is left are more than they used. These are left out beside
    those of `LEFT_OUT`, so that a second restore of the same backup continues above the numbers of the first.
    """
    number, since_ns = (last.number, last.observed_ns) if last else (0, 0)
    return number + LEFT_OUT + 2 * max(0, now_ns - since_ns) // _NS_PER_S + 1


def restore_record(record: AuditRecord, last: StoredCheckpoint | None, first: int, closed: int) -> AuditRecord:
    """Return the record of a restore: the checkpoints before and after it, and how many streams were closed."""
    checkpoint = {"to": first} if last is None else {"from": last.number, "to": first}
    changes = {names.AUDITRACE_CHANGES: {"checkpoint": {**checkpoint}, "streams": {"to": closed}}}
    return msgspec.structs.replace(record, attributes={**record.attributes, **changes})

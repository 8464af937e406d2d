"""What is decided after a database was set back: which number the next checkpoint gets, and what the record says."""

from typing import Final

import msgspec

from service.store.anchors import StoredCheckpoint
from telemetry import names
from telemetry.audit.record import AuditRecord

LEFT_OUT: Final = 1_000_000
"""So many numbers at least are left out, because checkpoints that the database does not know may have them."""

_NS_PER_S: Final = 1_000_000_000


def first_after_restore(last: StoredCheckpoint | None, now_ns: int) -> int:
    """Return the number of the first checkpoint after a restore.

    Nothing in the database tells which numbers were used in the time that was lost. Checkpoints come once a second at
    most, and two numbers for each second since the last one that is left are more than they used. They are left out
    beside those of `LEFT_OUT`, so that a second restore of the same backup goes on behind the numbers of the first.
    """
    number, since_ns = (last.number, last.observed_ns) if last else (0, 0)
    return number + LEFT_OUT + 2 * max(0, now_ns - since_ns) // _NS_PER_S + 1


def restore_record(record: AuditRecord, last: StoredCheckpoint | None, first: int, closed: int) -> AuditRecord:
    """Return the record of a restore: behind which checkpoint which one follows, and how many streams were closed."""
    checkpoint = {"to": first} if last is None else {"from": last.number, "to": first}
    changes = {names.AUDITRACE_CHANGES: {"checkpoint": {**checkpoint}, "streams": {"to": closed}}}
    return msgspec.structs.replace(record, attributes={**record.attributes, **changes})

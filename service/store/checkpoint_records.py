"""What the records of checkpoints and rotations state (docs/audit-format.md, section 6)."""

from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from service.store.anchors import StoredCheckpoint
from service.store.survey import RehashedRecords, StreamState, Survey
from telemetry import names
from telemetry.audit.canonical import Value
from telemetry.audit.checkpoint import Checkpoint, CheckpointTip, leaves
from telemetry.audit.record import AuditRecord
from telemetry.audit.signer import Signer

MAX_TIPS: Final = 200


class NamedTip(msgspec.Struct, frozen=True):
    """A stream that a checkpoint names, and its checkpoint tip."""

    state: StreamState
    tip: CheckpointTip


def to_name(found: Survey) -> Sequence[Sequence[NamedTip]]:
    """Return the streams for each of the next checkpoints, at most `MAX_TIPS` each.

    A checkpoint names the streams that grew, opened or closed since the last one. If there are none, it names none.
    """
    named = [NamedTip(state, _tip(state, hashed)) for state, hashed in found.sound]
    news = [one for one in named if one.tip.number >= one.tip.first or one.tip.closed != (one.state.anchor_closed == 1)]
    return [news[at : at + MAX_TIPS] for at in range(0, max(1, len(news)), MAX_TIPS)]


def stated_behind(last: StoredCheckpoint | None, named: Sequence[NamedTip], number: int | None) -> Checkpoint:
    """Return what the checkpoint behind `last` states; `number` is given after a restore only."""
    before = last.number if last else 0
    return Checkpoint(
        number=number or before + 1,
        prev_number=None if number is None else before,
        tips=tuple(one.tip for one in named),
        streams=(last.streams if last else 0) + sum(one.state.anchor_number is None for one in named),
        records=(last.records if last else 0) + sum(one.tip.number - (one.state.anchor_number or 0) for one in named),
        prev_hash=last.hash if last else None,
        prev_signature=last.signature if last else None,
    )


def stating(record: AuditRecord, attributes: Mapping[str, Value]) -> AuditRecord:
    """Return the record with these attributes added."""
    return msgspec.structs.replace(record, attributes={**record.attributes, **attributes})


def stating_rotation(record: AuditRecord, old: Signer, new: Signer, first: int) -> AuditRecord:
    """Return the record of a rotation: which key signs from which checkpoint on."""
    changes: dict[str, Value] = {
        "public_key": {"from": old.public_pem, "to": new.public_pem},
        "first_checkpoint": {"to": first},
    }
    target = {names.AUDIT_TARGET_TYPE: "key", names.AUDIT_TARGET_ID: new.fingerprint}
    return stating(record, {**target, names.AUDITRACE_CHANGES: changes})


def _tip(state: StreamState, hashed: RehashedRecords) -> CheckpointTip:
    return CheckpointTip(
        stream_id=state.stream_id,
        first=state.first,
        number=state.number,
        hash=state.hash,
        leaves=leaves(hashed.hashes),
        closed=state.closed == 1,
    )

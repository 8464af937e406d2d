"""Keeps a body within 64 KiB by cutting its largest free texts, so that no record is refused because of its size."""

from collections.abc import Mapping
from typing import Final

import msgspec

from telemetry import names
from telemetry.audit.canonical import Value

MAX_BODY_BYTES: Final = 64 * 1024
# Enough for the members, resource and sequence attributes that are added when the record is sealed.
_RESERVED_BYTES: Final = 4 * 1024
_KEPT_CHARACTERS: Final = 256
_FREE_TEXTS: Final = (
    names.AUDITRACE_REASON,
    names.AUDITRACE_NOTES,
    names.AUDITRACE_JOB_PLAN,
    names.USER_AGENT_ORIGINAL,
    names.URL_PATH,
    names.AUDIT_TARGET_ID,
    names.AUDIT_ACTOR_ID,
)


def fit(attributes: Mapping[str, Value]) -> Mapping[str, Value]:
    """Return `attributes`, cut if necessary, so that their body fits in `MAX_BODY_BYTES`.

    The largest value is cut first, and the plan of a job last, because the hash of a cut plan cannot be computed again.
    A free text keeps its beginning; a value under `auditrace.changes` is replaced by the beginning of its JSON text.
    `auditrace.truncated` lists the keys of the cut values, as `auditrace.changes.<field>` for a field.
    """
    if _size(attributes) <= MAX_BODY_BYTES - _RESERVED_BYTES:
        return attributes
    fitted = dict(attributes)
    cut: list[str] = []
    for *_, key, field in sorted(_cuttable(attributes), reverse=True):
        before = fitted[key]
        fitted[key] = _cut_field(before, field) if field else _cut(before)
        if fitted[key] == before:
            continue
        cut.append(f"{key}.{field}" if field else key)
        fitted[names.AUDITRACE_TRUNCATED] = sorted(cut)
        if _size(fitted) <= MAX_BODY_BYTES - _RESERVED_BYTES:
            break
    return fitted


def _size(value: Value) -> int:
    return len(msgspec.json.encode(value))


def _cuttable(attributes: Mapping[str, Value]) -> list[tuple[bool, int, str, str]]:
    present = [key for key in _FREE_TEXTS if key in attributes]
    ranked = [(key != names.AUDITRACE_JOB_PLAN, _size(attributes[key]), key, "") for key in present]
    changes = attributes.get(names.AUDITRACE_CHANGES)
    if isinstance(changes, Mapping):
        ranked += [(True, _size(change), names.AUDITRACE_CHANGES, field) for field, change in changes.items()]
    return ranked


def _cut(value: Value) -> Value:
    text = value if isinstance(value, str) else msgspec.json.encode(value).decode()
    return text if len(text) <= _KEPT_CHARACTERS else text[:_KEPT_CHARACTERS] + "…"


def _cut_field(changes: Value, field: str) -> Value:
    if not isinstance(changes, Mapping):
        return changes
    change = changes[field]
    if not isinstance(change, Mapping):
        return changes
    return {**changes, field: {side: _cut(value) for side, value in change.items()}}

"""What a filter of records means, said once more in Python: the oracle for what the databases find."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from service.ports import RecordFilter, RecordRow
from telemetry import names

_ATTRIBUTES: Final = {
    "actor_id": names.AUDIT_ACTOR_ID,
    "actor_issuer": names.AUDITRACE_ACTOR_ISSUER,
    "initiator_id": names.AUDITRACE_INITIATOR_ID,
    "action": names.AUDIT_ACTION,
    "outcome": names.AUDIT_OUTCOME,
    "result": names.AUDITRACE_RESULT,
    "target_type": names.AUDIT_TARGET_TYPE,
    "target_id": names.AUDIT_TARGET_ID,
    "job_id": names.AUDITRACE_JOB_ID,
    "stream_id": names.AUDIT_SEQUENCE_STREAM_ID,
    "request_id": names.AUDITRACE_REQUEST_ID,
}
_MEMBERS: Final = ("event_name", "trace_id", "span_id")
OWN_TRAIL: Final = {"audit.read", "audit.checkpoint", "audit.stream.open", "audit.stream.close"}


def values_of(row: RecordRow) -> Mapping[str, Any]:
    """Return what each filter compares of a record; None where the record has no such value."""
    body = msgspec.json.decode(row.body)
    attributes = {name: body["attributes"].get(key) for name, key in _ATTRIBUTES.items()}
    return {**attributes, **{name: body[name] for name in _MEMBERS}}


def matches(row: RecordRow, where: RecordFilter) -> bool:
    """True when the record matches the filter; times are left to the databases."""
    said, attributes = values_of(row), msgspec.json.decode(row.body)["attributes"]
    texts = [attributes.get(key, "") for key in (names.AUDITRACE_REASON, names.AUDITRACE_NOTES, names.AUDIT_TARGET_ID)]
    is_own_trail = said["event_name"] in OWN_TRAIL and said["result"] == "success"
    return (
        all(_is_any(name, said[name], getattr(where, name)) for name in said if getattr(where, name))
        and not any(_is_any(name, said[name], getattr(where.excluded, name)) for name in said)
        and where.tenant_id in {None, attributes[names.AUDITRACE_TENANT_ID]}
        and (where.include_trail or not is_own_trail)
        and (where.q is None or any(_small(where.q) in _small(text) for text in texts))
    )


def _is_any(name: str, value: str | None, stated: Sequence[str]) -> bool:
    beginnings = [each[:-1] for each in stated if name == "event_name" and each.endswith("*")]
    return value is not None and (value in stated or any(value.startswith(each) for each in beginnings))


def _small(text: str) -> str:
    return "".join(each.lower() if each.isascii() else each for each in text)

"""One realistic record for every event of the catalogue, with every attribute that it may carry."""

from collections.abc import Iterator

from telemetry import names
from telemetry.audit.canonical import Value
from telemetry.audit.record import Actor, AuditRecord, Result, SpanRef, Target, audit_record

SPAN = SpanRef("0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331", 1)

_SAMPLES: dict[str, Value] = {
    "string": 'Zoë — \u0007\u2028 😀 "q" \\',
    "int": 2**53 - 1,
    "boolean": True,
    "string[]": ["auditrace.reason", "url.path"],
    "changes": {"status": {"from": "created", "to": "draft_ready"}, "count": {"to": 3}, "roles": {"to": ["admin"]}},
    "tips": [{"stream_id": "s", "from": 1, "number": 2, "hash": "a" * 64, "leaves": "b" * 64, "closed": False}],
}
_GIVEN = {
    *names.ALWAYS,
    *names.ALWAYS_BEYOND_1_0_0,
    names.AUDIT_SEQUENCE_STREAM_ID,
    names.AUDIT_SEQUENCE_NUMBER,
    names.AUDIT_SEQUENCE_PREV_HASH,
    names.AUDIT_SEQUENCE_PREV_RECORD_ID,
    names.AUDITRACE_TARGET_VERSION,
}


def every_event(new_id: Iterator[str]) -> Iterator[AuditRecord]:
    """Yield one record for each event of the catalogue; results take turns."""
    results = list(Result)
    for index, event_name in enumerate(names.ACTIONS):
        more = {
            name: min(names.ATTRIBUTE_VALUES[name]) if name in names.ATTRIBUTE_VALUES else _SAMPLES[kind]
            for name, kind in names.BODY_ATTRIBUTES.items()
            if name not in _GIVEN
        }
        yield audit_record(
            record_id=next(new_id),
            event_name=event_name,
            timestamp_ns=1_767_323_045_678_901_234 + index,
            span=SPAN,
            actor=Actor("alice", "user", "key"),
            result=results[index % len(results)],
            target=Target("ledger", "auditrace"),
            tenant_id="default",
            source="api",
            more=more,
        )

"""The audit record before it is sealed: its values that are known at the place of the action."""

from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta

from telemetry import names
from telemetry.audit.canonical import Value

SCHEMA_VERSION: Final = "1.1.0"

ActorType = Literal["user", "service", "system"]
Source = Literal["api", "worker", "cli", "relay"]


KEY_ISSUER: Final = "key"
OS_ISSUER: Final = "os"
SERVICE_ISSUER: Final = "service"
PROXY_ISSUER: Final = "proxy"
OWN_ISSUERS: Final = frozenset({KEY_ISSUER, OS_ISSUER, SERVICE_ISSUER, PROXY_ISSUER})
"""The issuers that are no issuers of tokens."""


class Result(StrEnum):
    """How an action ended, by cause; `outcome` sums this up."""

    SUCCESS = "success"
    NOOP = "noop"
    DENIED = "denied"
    REJECTED = "rejected"
    ERROR = "error"
    UNKNOWN = "unknown"

    @property
    def outcome(self) -> str:
        """`success`, `failure` or `unknown`, as in `audit.outcome`."""
        if self in {Result.SUCCESS, Result.NOOP}:
            return "success"
        return "unknown" if self is Result.UNKNOWN else "failure"


class SpanRef(msgspec.Struct, frozen=True):
    """The span of an action: ids in lower-case hex, and the W3C flags (1 = sampled)."""

    trace_id: str
    span_id: str
    trace_flags: int


class Actor(msgspec.Struct, frozen=True):
    """The authenticated actor; it never comes from a header of somebody who is not authenticated or trusted.

    Two issuers are two actors, whatever their ids. `issuer` is `KEY_ISSUER` for an API key, the issuer of a token,
    `PROXY_ISSUER` for an identity that a trusted proxy states, `OS_ISSUER` for a user of a machine, or `SERVICE_ISSUER`
    for the service itself and for `anonymous`. It is None only where an older version stored the actor.
    """

    id: str
    type: ActorType
    issuer: str | None = None


class Target(msgspec.Struct, frozen=True):
    """The target of an action; only the record that made a version states `version`."""

    type: str
    id: str
    version: int | None = None


Uuid = Annotated[str, Meta(extra_json_schema={"format": "uuid"})]
Sha256 = Annotated[str, Meta(extra_json_schema={"pattern": "^[0-9a-f]{64}$"})]


class Receipt(msgspec.Struct, frozen=True):
    """The receipt of a committed record, for its caller: its id, its place in a stream and its hash."""

    record_id: Annotated[Uuid, Meta(description="The id of the record.")]
    stream_id: Annotated[Uuid, Meta(description="The stream that it stands in.")]
    sequence_number: Annotated[int, Meta(description="Its number in the stream, from 1.")]
    record_hash: Annotated[Sha256, Meta(description="SHA-256 of its body.")]


class AuditRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One fact to record. Sealing adds stream, number, previous hash and observed time.

    `attributes` holds all attributes of docs/audit-format.md, except those of the sequence.
    """

    record_id: str
    event_name: str
    timestamp_ns: int
    span: SpanRef
    result: Result
    attributes: Mapping[str, Value]


def audit_record(
    *,
    record_id: str,
    event_name: str,
    timestamp_ns: int,
    span: SpanRef,
    actor: Actor,
    result: Result,
    target: Target,
    tenant_id: str,
    source: Source,
    more: Mapping[str, Value | None] | None = None,
) -> AuditRecord:
    """Return the record of one fact, with all attributes that every record has.

    Args:
        record_id: a UUIDv7.
        event_name: a name in `telemetry/registry/events.yaml`, which also gives the action.
        timestamp_ns: the time of the action, in nanoseconds since the epoch.
        span: the span of the action.
        actor: the actor.
        result: how the action ended.
        target: the target of the action.
        tenant_id: the tenant of the actor.
        source: the part of the service that makes the record.
        more: further attributes; those that are None are left out.
    """
    attributes: dict[str, Value] = {
        names.AUDIT_SCHEMA_VERSION: SCHEMA_VERSION,
        names.AUDIT_RECORD_ID: record_id,
        names.LOG_RECORD_UID: record_id,
        names.AUDIT_ACTOR_ID: actor.id,
        names.AUDIT_ACTOR_TYPE: actor.type,
        names.AUDIT_ACTION: names.ACTIONS[event_name],
        names.AUDIT_OUTCOME: result.outcome,
        names.AUDITRACE_RESULT: result.value,
        names.AUDIT_TARGET_TYPE: target.type,
        names.AUDIT_TARGET_ID: target.id,
        names.AUDITRACE_TENANT_ID: tenant_id,
        names.AUDITRACE_SOURCE: source,
    }
    if actor.issuer is not None:
        attributes[names.AUDITRACE_ACTOR_ISSUER] = actor.issuer
    if target.version is not None:
        attributes[names.AUDITRACE_TARGET_VERSION] = target.version
    attributes.update({key: value for key, value in (more or {}).items() if value is not None})
    return AuditRecord(
        record_id=record_id,
        event_name=event_name,
        timestamp_ns=timestamp_ns,
        span=span,
        result=result,
        attributes=attributes,
    )

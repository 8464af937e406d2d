"""Makes small ledgers: records sealed into streams, checkpoints signed with a test key, as archive lines.

It is written against docs/audit-format.md, and its records are plain, so that a test can tamper with any part of them.
"""

import copy
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from telemetry.audit.canonical import canonical_bytes, sha256_hex
from telemetry.audit.checkpoint import Checkpoint, CheckpointTip, leaves, sign

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
FOREIGN_KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(1, 33)))

_START = datetime(2026, 1, 1, tzinfo=UTC)
_ACTIONS = {
    "audit.stream.open": "CREATE",
    "audit.stream.close": "UPDATE",
    "audit.checkpoint": "CHECKPOINT",
    "audit.key.rotate": "UPDATE",
    "audit.restore": "UPDATE",
    "job.create": "CREATE",
}


@dataclass(repr=False, eq=False)
class Sealed:
    """One record: what its body says, and its signature if it is a checkpoint or a rotation."""

    body: dict[str, Any]
    signature: str | None = None

    def __repr__(self) -> str:
        return f"{self.stream[-1]}/{self.number} {self.body['event_name']}"

    @property
    def text(self) -> str:
        """The body."""
        return canonical_bytes(self.body).decode()

    @property
    def hash(self) -> str:
        """The record hash."""
        return sha256_hex(self.text.encode())

    @property
    def attributes(self) -> dict[str, Any]:
        """The attributes of the body."""
        return self.body["attributes"]

    @property
    def stream(self) -> str:
        """The stream."""
        return self.attributes["audit.sequence.stream_id"]

    @property
    def number(self) -> int:
        """The number in the stream."""
        return self.attributes["audit.sequence.number"]

    @property
    def record_id(self) -> str:
        """The record id."""
        return self.attributes["audit.record.id"]

    def statement(self) -> dict[str, Any]:
        """Return the attributes in which a checkpoint states what it covers."""
        return {key: value for key, value in self.attributes.items() if key.startswith("auditrace.checkpoint.")}

    def copy(self) -> "Sealed":
        """Return a record that can be tampered with."""
        return copy.deepcopy(self)

    def log_record(self) -> dict[str, Any]:
        """Return the OTLP log record, its index made from the body."""
        integrity = {"audit.integrity.hash": self.hash}
        if self.signature is not None:
            integrity["audit.integrity.value"] = self.signature
        failed = 17 if self.attributes["auditrace.result"] == "error" else 13
        return {
            "timeUnixNano": str(nanoseconds(self.body["timestamp"])),
            "observedTimeUnixNano": str(nanoseconds(self.body["observed_timestamp"])),
            "severityNumber": 9 if self.attributes["audit.outcome"] == "success" else failed,
            "eventName": self.body["event_name"],
            "body": {"stringValue": self.text},
            "attributes": key_values({**self.attributes, **integrity}),
            "flags": self.body["trace_flags"],
            "traceId": self.body["trace_id"],
            "spanId": self.body["span_id"],
        }

    def line(self) -> str:
        """Return an archive line of this record alone."""
        return line_of(self.log_record(), self.body["resource"])


@dataclass
class Ledger:
    """A ledger in the making; `records` are in the order in which they were sealed.

    Time moves on by `minutes_between` from record to record; `step_minutes` is by how much its clock was set. `version`
    is that of the format in which records are sealed.
    """

    key: Ed25519PrivateKey = KEY
    records: list[Sealed] = field(default_factory=list)
    minutes_between: float = 0.001
    step_minutes: float = 0
    first_id: int = 1
    version: str = "1.1.0"

    def append(self, stream: int, event_name: str = "job.create", **more: Any) -> Sealed:
        """Seal a record into a stream, which is opened first if it is new."""
        of_stream = self.of_stream(stream_id(stream))
        if not of_stream and event_name != "audit.stream.open":
            self.append(stream, "audit.stream.open")
            of_stream = self.of_stream(stream_id(stream))
        at = len(self.records) + 1
        record_id = f"019b76da-0000-7000-8000-{len(self.records) + self.first_id:012x}"
        before = of_stream[-1] if of_stream else None
        attributes: dict[str, Any] = {
            "audit.schema.version": self.version,
            "audit.record.id": record_id,
            "log.record.uid": record_id,
            "audit.actor.id": "auditrace" if event_name.startswith("audit.") else "alice",
            "audit.actor.type": "system" if event_name.startswith("audit.") else "user",
            "audit.action": _ACTIONS[event_name],
            "audit.outcome": "success",
            "auditrace.result": "success",
            "audit.target.type": "ledger" if event_name.startswith("audit.") else "job",
            "audit.target.id": f"job-{at}",
            "auditrace.source": "api",
            "auditrace.tenant.id": "default",
            "auditrace.changes": {"status": {"to": "created"}, "size": {"from": at, "to": -at}},
            "audit.sequence.stream_id": stream_id(stream),
            "audit.sequence.number": len(of_stream) + 1,
            **({} if self.version == "1.0.0" else {"auditrace.actor.issuer": "key"}),
            **more,
        }
        if before is not None:
            attributes |= {"audit.sequence.prev_hash": before.hash, "audit.sequence.prev_record_id": before.record_id}
        sealed = _START + timedelta(minutes=at * self.minutes_between + self.step_minutes)
        body = {
            "timestamp": timestamp(sealed, 1),
            "observed_timestamp": timestamp(sealed, 999),
            "event_name": event_name,
            "trace_id": f"{at:032x}",
            "span_id": f"{at:016x}",
            "trace_flags": at % 2,
            "resource": {"service.name": "auditrace", "service.version": "0.1.0"},
            "attributes": attributes,
        }
        self.records.append(Sealed(body))
        return self.records[-1]

    def checkpoint(
        self, stream: int, *, closed: Iterable[int] = (), number: int | None = None, most: int = 1_000_000
    ) -> Sealed:
        """Seal a signed checkpoint over all records so far, or several of `most` tips; return the last one.

        `closed` are streams whose lane is gone; `number` is another one than that behind the last, as after a restore.
        """
        if not self.of_stream(stream_id(stream)):
            self.append(stream)
        numbers = {tip["stream_id"]: tip["number"] for seen in self.checkpoints() for tip in tips_of(seen)}
        gone = {stream_id(one) for one in closed}
        tips = [
            _tip(self.of_stream(name), numbers.get(name, 0), is_gone=name in gone)
            for name in sorted({record.stream for record in self.records})
        ]
        tips = [tip for tip in tips if tip.first <= tip.number or tip.stream_id in gone]
        for first in range(0, max(1, len(tips)), most):
            of_one = tips[first : first + most]
            numbers |= {tip.stream_id: tip.number for tip in of_one}
            sealed = self._checkpoint(stream, of_one, numbers, number if first == 0 else None)
        return sealed

    def _checkpoint(
        self, stream: int, tips: Sequence[CheckpointTip], numbers: Mapping[str, int], number: int | None
    ) -> Sealed:
        before = self.checkpoints()[-1] if self.checkpoints() else None
        last = self.last_number()
        stated = Checkpoint(
            number=number or last + 1,
            prev_number=None if number is None else last,
            tips=tuple(tips),
            streams=len(numbers),
            records=sum(numbers.values()),
            prev_hash=None if before is None else before.hash,
            prev_signature=None if before is None else before.signature,
        )
        sealed = self.append(stream, "audit.checkpoint", **stated.attributes())
        sealed.signature = sign(self.key, sealed.text.encode())
        return sealed

    def rotate(self, stream: int, new: Ed25519PrivateKey) -> Sealed:
        """Seal a record by which the key lets `new` sign from the next checkpoint on, and let it."""
        changes = {
            "public_key": {"from": public_pem(self.key), "to": public_pem(new)},
            "first_checkpoint": {"to": self.last_number() + 1},
        }
        sealed = self.append(stream, "audit.key.rotate", **{"auditrace.changes": changes})
        sealed.signature = sign(self.key, sealed.text.encode())
        self.key = new
        return sealed

    def last_number(self) -> int:
        """Return the number of the last checkpoint, 0 if there is none."""
        return max((int(seen.attributes["auditrace.checkpoint.number"]) for seen in self.checkpoints()), default=0)

    def of_stream(self, name: str) -> list[Sealed]:
        """Return the records of one stream."""
        return [record for record in self.records if record.stream == name]

    def checkpoints(self) -> list[Sealed]:
        """Return the checkpoint records."""
        return [record for record in self.records if record.body["event_name"] == "audit.checkpoint"]


def public_pem(key: Ed25519PrivateKey) -> str:
    """Return the public key as PEM."""
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


def stream_id(stream: int) -> str:
    """Return the id of a stream."""
    return f"00000000-0000-4000-8000-{stream:012x}"


def tips_of(checkpoint: Sealed) -> list[dict[str, Any]]:
    """Return the tips that a checkpoint states."""
    return checkpoint.attributes["auditrace.checkpoint.tips"]


def line_of(log_record: dict[str, Any], resource: dict[str, Any]) -> str:
    """Return an archive line of one log record."""
    scope = {"scope": {"name": "auditrace.audit", "version": "0.1.0"}, "logRecords": [log_record]}
    export = {"resourceLogs": [{"resource": {"attributes": key_values(resource)}, "scopeLogs": [scope]}]}
    return json.dumps(export, ensure_ascii=False, separators=(",", ":"))


def key_values(attributes: dict[str, Any]) -> list[dict[str, Any]]:
    """Return attributes as OTLP JSON."""
    return [{"key": key, "value": _any_value(value)} for key, value in attributes.items()]


def timestamp(moment: datetime, nanosecond: int) -> str:
    """Return a time in the form of a body, `nanosecond` of 0 to 999 being what the clock of Python does not have."""
    return f"{moment:%Y-%m-%dT%H:%M:%S.%f}{nanosecond:03}Z"


def nanoseconds(time: str) -> int:
    """Return a body's time as nanoseconds since 1970; 0, which a log record takes for no time, for any other text."""
    try:
        return int(datetime.fromisoformat(time[:19] + "+00:00").timestamp()) * 10**9 + int(time[20:29])
    except ValueError:
        return 0


def _tip(records: Sequence[Sealed], covered: int, *, is_gone: bool) -> CheckpointTip:
    last = records[-1]
    return CheckpointTip(
        stream_id=last.stream,
        first=covered + 1,
        number=last.number,
        hash=last.hash,
        leaves=leaves(bytes.fromhex(record.hash) for record in records[covered:]),
        closed=is_gone or any(record.body["event_name"] == "audit.stream.close" for record in records),
    )


def _any_value(value: Any) -> dict[str, Any]:
    if isinstance(value, bool):
        return {"boolValue": value}
    if isinstance(value, int):
        return {"intValue": str(value)}
    if isinstance(value, dict):
        return {"kvlistValue": {"values": key_values(value)}}
    if isinstance(value, list | tuple):
        return {"arrayValue": {"values": [_any_value(member) for member in value]}}
    return {"stringValue": value}

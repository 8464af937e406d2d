"""Makes archives of any size, fast: records are filled into texts that were rendered once, and chained for real."""

import functools
import hashlib
import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import zstandard

from telemetry.audit.chain import rfc3339_nanos
from telemetry.audit.checkpoint import Checkpoint, CheckpointTip, sign
from tests.support.ledger_maker import KEY, Sealed, key_values, stream_id

STREAMS = 4
RECORDS_PER_LINE = 10
RECORDS_PER_FILE = 50_000
RECORDS_PER_CHECKPOINT = 5_000

_START_NS = 1_767_225_600_000_000_000
_STEP_NS = 1_000_000
_RESOURCE = {
    "deployment.environment.name": "production",
    "service.instance.id": "5cade2c3-a5a5-407f-a960-346adb591e93",
    "service.name": "auditrace",
    "service.namespace": "ops",
    "service.version": "0.1.0",
}
_MORE_RESOURCE = {
    "telemetry.sdk.language": "python",
    "telemetry.sdk.name": "opentelemetry",
    "telemetry.sdk.version": "1.45.2",
    "audit.integrity.algorithm": "EdDSA",
    "audit.integrity.certificate": f"sha256:{hashlib.sha256(KEY.public_key().public_bytes_raw()).hexdigest()}",
}
# What differs from record to record, and what stands for it while a kind of record is rendered.
_DIFFERING = {
    "record_id": "11111111-1111-7111-8111-111111111111",
    "prev_record_id": "22222222-2222-7222-8222-222222222222",
    "prev_hash": "33" * 32,
    "stream_id": "44444444-4444-4444-8444-444444444444",
    "number": 5_555_555_555,
    "time": "2066-06-06T06:06:06.666666666Z",
    "observed": "2077-07-07T07:07:07.777777777Z",
    "trace_id": "88" * 16,
    "span_id": "99" * 8,
    "job_id": "job-aaaaaaaaaaaa",
    "request_id": "req-bbbbbbbbbbbb",
}
_REQUEST = {
    "audit.source.id": "192.0.2.7",
    "audit.source.type": "ipv4",
    "auditrace.request.id": _DIFFERING["request_id"],
    "auditrace.source": "api",
    "client.address": "192.0.2.7",
    "http.request.method": "POST",
    "user_agent.original": "curl/8.5.0",
}
_RUN = {
    "auditrace.initiator.id": "bob",
    "auditrace.initiator.record_id": _DIFFERING["prev_record_id"],
    "auditrace.initiator.type": "user",
    "auditrace.job.run": 1,
    "auditrace.source": "worker",
}
# What the life of a job leaves: event, action, actor and its type, changes, further attributes.
_STORY: tuple[tuple[str, str, str, dict[str, Any], dict[str, Any]], ...] = (
    (
        "job.create",
        "CREATE",
        "alice",
        {"parameters": {"to": {"path": "/etc/hosts"}}, "status": {"to": "created"}, "template": {"to": "line-count"}},
        {**_REQUEST, "http.route": "/v1/jobs"},
    ),
    (
        "job.draft",
        "UPDATE",
        "alice",
        {"plan_sha256": {"to": "ab" * 32}, "status": {"from": "created", "to": "draft_ready"}},
        {**_REQUEST, "http.route": "/v1/jobs/{job_id}/draft"},
    ),
    (
        "job.confirm",
        "APPROVE",
        "bob",
        {"confirmed": {"to": True}, "status": {"from": "draft_ready", "to": "confirmed"}},
        {**_REQUEST, "http.route": "/v1/jobs/{job_id}/confirm"},
    ),
    ("job.run.trigger", "EXECUTE", "bob", {"status": {"from": "confirmed", "to": "queued"}}, _REQUEST),
    ("job.status.transition", "UPDATE", "auditrace", {"status": {"from": "queued", "to": "running"}}, _RUN),
    (
        "job.status.transition",
        "UPDATE",
        "auditrace",
        {"duration_ms": {"to": 1234}, "exit_code": {"to": 0}, "status": {"from": "running", "to": "succeeded"}},
        _RUN,
    ),
)


class _Kind(NamedTuple):
    """One kind of record: its body and its log record, to be filled in with what differs."""

    body: str
    log_record: str


class _Chain:
    """A stream in the making, with the leaves since the last checkpoint."""

    def __init__(self, number: int) -> None:
        self.name = stream_id(number)
        self.number = 0
        self.hash = ""
        self.record_id = ""
        self._covered = 0
        self._leaves = hashlib.sha256()

    def move(self, digest: bytes, record_id: str) -> None:
        """Put a record behind the tip."""
        self.number, self.hash, self.record_id = self.number + 1, digest.hex(), record_id
        self._leaves.update(digest)

    def tip(self) -> CheckpointTip:
        """Return what a checkpoint says of the stream."""
        named = CheckpointTip(
            self.name, self._covered + 1, self.number, self.hash, self._leaves.hexdigest(), closed=False
        )
        self._covered, self._leaves = self.number, hashlib.sha256()
        return named


class GrowingLedger:
    """A ledger of several streams that is sealed record by record."""

    def __init__(self, streams: int = STREAMS) -> None:
        self._chains = [_Chain(number) for number in range(1, streams + 1)]
        self._kinds = [_kind(*chapter) for chapter in _STORY]
        self._sealed = 0
        self._last: Sealed | None = None
        self._checkpoints = 0
        self._totals: dict[str, int] = {}

    def records(self, count: int) -> Iterator[tuple[str, str]]:
        """Yield body and log record of `count` records, as JSON, in the order of sealing; the last is a checkpoint."""
        for chain in self._chains:
            yield self._put(chain, self._whole(chain, "audit.stream.open", "CREATE", {}))
        while self._sealed < count - 1:
            at = self._sealed
            if at % RECORDS_PER_CHECKPOINT == 0:
                yield self._checkpoint()
            else:
                chapter = at // len(self._chains) % len(self._kinds)
                yield self._seal(self._chains[at % len(self._chains)], self._kinds[chapter])
        yield self._checkpoint()

    def _seal(self, chain: _Chain, kind: _Kind) -> tuple[str, str]:
        filling = self._filling(chain)
        body = kind.body % filling
        digest = hashlib.sha256(body.encode()).digest()
        filling["hash"] = digest.hex()
        log_record = kind.log_record % filling
        chain.move(digest, filling["record_id"])
        self._sealed += 1
        return body, log_record

    def _filling(self, chain: _Chain) -> dict[str, str]:
        at = self._sealed
        time_ns = _START_NS + at * _STEP_NS
        seconds, fraction = _timestamp(time_ns // 1_000_000_000), time_ns % 1_000_000_000
        return {
            "record_id": f"019b76da-{at >> 16 & 0xFFFF:04x}-7{at & 0xFFF:03x}-8000-{at:012x}",
            "prev_record_id": chain.record_id,
            "prev_hash": chain.hash,
            "stream_id": chain.name,
            "number": str(chain.number + 1),
            "time": f"{seconds}.{fraction:09d}Z",
            "observed": f"{seconds}.{fraction + 999:09d}Z",
            "time_ns": str(time_ns),
            "observed_ns": str(time_ns + 999),
            "trace_id": f"{at + 1:032x}",
            "span_id": f"{at + 1:016x}",
            "job_id": f"job-{at // 24:012x}",
            "request_id": f"req-{at:012x}",
        }

    def _checkpoint(self) -> tuple[str, str]:
        tips = [chain.tip() for chain in self._chains]
        self._totals |= {tip.stream_id: tip.number for tip in tips}
        self._checkpoints += 1
        stated = Checkpoint(
            number=self._checkpoints,
            tips=tuple(tips),
            streams=len(self._totals),
            records=sum(self._totals.values()),
            prev_hash=None if self._last is None else self._last.hash,
            prev_signature=None if self._last is None else self._last.signature,
        )
        sealed = self._whole(self._chains[0], "audit.checkpoint", "CHECKPOINT", stated.attributes())
        sealed.signature = sign(KEY, sealed.text.encode())
        self._last = sealed
        return self._put(self._chains[0], sealed)

    def _whole(self, chain: _Chain, event_name: str, action: str, more: dict[str, Any]) -> Sealed:
        filling = self._filling(chain)
        attributes = _attributes(event_name, action, ("auditrace", "system"), ("ledger", "auditrace"), more)
        attributes |= {
            "audit.record.id": filling["record_id"],
            "log.record.uid": filling["record_id"],
            "audit.sequence.stream_id": chain.name,
            "audit.sequence.number": chain.number + 1,
        }
        if chain.number:
            attributes |= {
                "audit.sequence.prev_hash": chain.hash,
                "audit.sequence.prev_record_id": chain.record_id,
            }
        return Sealed(_body(event_name, filling, attributes))

    def _put(self, chain: _Chain, sealed: Sealed) -> tuple[str, str]:
        chain.move(bytes.fromhex(sealed.hash), sealed.record_id)
        self._sealed += 1
        return sealed.text, json.dumps(sealed.log_record(), ensure_ascii=False, separators=(",", ":"))


def write_archive(folder: Path, count: int, *, compressed: bool = False) -> list[Path]:
    """Write a ledger of `count` records as rotated files of OTLP JSON lines, unless it is there already.

    Files of other sizes in the folder are removed; what a killed run left is written again.
    """
    suffix = ".jsonl.zst" if compressed else ".jsonl"
    wanted = [folder / f"audit-{count}-{at:09d}{suffix}" for at in range(0, count, RECORDS_PER_FILE)]
    if folder.exists() and sorted(folder.iterdir()) == wanted:
        return wanted
    folder.mkdir(parents=True, exist_ok=True)
    for file in folder.iterdir():
        if file.is_file():
            file.unlink()
    records = GrowingLedger().records(count)
    for at, file in enumerate(wanted):
        # A name that begins with a dot is no archive.
        part = folder / f".{file.name}"
        _write_file(part, records, min(RECORDS_PER_FILE, count - at * RECORDS_PER_FILE), compressed=compressed)
        part.rename(file)
    return wanted


def _write_file(file: Path, records: Iterator[tuple[str, str]], count: int, *, compressed: bool) -> None:
    with file.open("wb") as raw:
        stream = zstandard.ZstdCompressor(level=1).stream_writer(raw) if compressed else raw
        for left in range(count, 0, -RECORDS_PER_LINE):
            batch = [log_record for _, log_record in islice(records, min(RECORDS_PER_LINE, left))]
            stream.write((_LINE % ",".join(batch)).encode())
        if compressed:
            stream.close()


def _kind(event_name: str, action: str, actor: str, changes: dict[str, Any], more: dict[str, Any]) -> _Kind:
    actor_type = "system" if actor == "auditrace" else "user"
    attributes = _attributes(event_name, action, (actor, actor_type), ("job", _DIFFERING["job_id"]), more)
    attributes |= {
        "auditrace.changes": changes,
        "auditrace.job.id": _DIFFERING["job_id"],
        "auditrace.job.template": "line-count",
        "audit.record.id": _DIFFERING["record_id"],
        "log.record.uid": _DIFFERING["record_id"],
        "audit.sequence.stream_id": _DIFFERING["stream_id"],
        "audit.sequence.number": _DIFFERING["number"],
        "audit.sequence.prev_hash": _DIFFERING["prev_hash"],
        "audit.sequence.prev_record_id": _DIFFERING["prev_record_id"],
    }
    sealed = Sealed(_body(event_name, _DIFFERING, dict(sorted(attributes.items()))))
    log_record = sealed.log_record()
    stands_for = {
        **_DIFFERING,
        "hash": sealed.hash,
        "time_ns": log_record["timeUnixNano"],
        "observed_ns": log_record["observedTimeUnixNano"],
    }
    rendered = json.dumps(log_record, ensure_ascii=False, separators=(",", ":"))
    return _Kind(_to_be_filled(sealed.text, stands_for), _to_be_filled(rendered, stands_for))


def _to_be_filled(text: str, stands_for: dict[str, Any]) -> str:
    text = text.replace("%", "%%")
    for name, value in stands_for.items():
        text = text.replace(str(value), f"%({name})s")
    return text


def _attributes(
    event_name: str, action: str, actor: tuple[str, str], target: tuple[str, str], more: dict[str, Any]
) -> dict[str, Any]:
    return {
        "audit.schema.version": "1.0.0",
        "audit.actor.id": actor[0],
        "audit.actor.type": actor[1],
        "audit.action": action,
        "audit.outcome": "success",
        "auditrace.result": "success",
        "audit.target.type": target[0],
        "audit.target.id": target[1],
        "auditrace.source": "api",
        "auditrace.tenant.id": "default",
        **more,
    }


def _body(event_name: str, filling: dict[str, Any], attributes: dict[str, Any]) -> dict[str, Any]:
    return {
        "timestamp": filling["time"],
        "observed_timestamp": filling["observed"],
        "event_name": event_name,
        "trace_id": filling["trace_id"],
        "span_id": filling["span_id"],
        "trace_flags": 1,
        "resource": _RESOURCE,
        "attributes": attributes,
    }


@functools.lru_cache(maxsize=16)
def _timestamp(seconds: int) -> str:
    return rfc3339_nanos(seconds * 1_000_000_000)[:19]


_LINE = (
    json.dumps(
        {
            "resourceLogs": [
                {
                    "resource": {"attributes": key_values({**_RESOURCE, **_MORE_RESOURCE})},
                    "scopeLogs": [
                        {"scope": {"name": "auditrace.audit", "version": "0.1.0"}, "logRecords": ["@RECORDS@"]}
                    ],
                }
            ]
        },
        separators=(",", ":"),
    ).replace('"@RECORDS@"', "%s")
    + "\n"
)

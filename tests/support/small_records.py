"""What `small_verifier.py` knows of single records: how to read them, and steps 2 and 3 of docs/audit-format.md.

It is written from that document alone. Of attributes it looks at presence and values, not at types.
"""

import base64
import hashlib
import json
import re
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key

ALWAYS = {
    *("audit.schema.version", "audit.record.id", "log.record.uid", "audit.actor.id", "audit.actor.type"),
    *("audit.action", "audit.outcome", "auditrace.result", "audit.target.type", "audit.target.id"),
    *("audit.sequence.stream_id", "audit.sequence.number", "auditrace.tenant.id", "auditrace.source"),
}
ALWAYS_BEYOND_1_0_0 = {"auditrace.actor.issuer"}
TEXTS = ("timestamp", "observed_timestamp", "event_name", "trace_id", "span_id")
MEMBERS = {**dict.fromkeys(TEXTS, str), "trace_flags": int, "resource": dict, "attributes": dict}
VALUES = {"audit.actor.type": "user service system", "audit.outcome": "success failure unknown"}
VALUES["auditrace.result"] = "success noop denied rejected error unknown"
OWN_VALUES = {"audit.target.type": "job artifact ledger key template http.endpoint service"}
OWN_VALUES["auditrace.source"] = "api worker cli relay"
CATALOGUE = {
    *("job.create", "job.draft", "job.confirm", "job.reject", "job.run.trigger", "job.retry", "job.cancel"),
    "job.status.transition",
    *("input.write", "artifact.read", "audit.read", "audit.export", "audit.verify", "auth.denied", "request.throttled"),
    *("key.create", "key.revoke", "key.rotate", "key.adopt"),
    *("audit.checkpoint", "audit.stream.open", "audit.stream.close", "audit.key.rotate"),
    *("audit.restore", "audit.redeliver", "audit.copy", "audit.retention", "service.configure"),
}
OUTCOMES = {"success": "success", "noop": "success", "unknown": "unknown"}
SEVERITIES = {"success": 9, "failure": 13, "unknown": 13}
NUMBER, PREV_NUMBER, PREV_HASH, PREV_SIGNATURE, TIPS, STREAMS, RECORDS = (
    f"auditrace.checkpoint.{member}"
    for member in ("number", "prev_number", "prev_hash", "prev_signature", "tips", "streams", "records")
)
TIP = {"stream_id": str, "from": int, "number": int, "hash": str, "leaves": str, "closed": bool}


@dataclass(eq=False)
class Record:
    """A distinct record, and the signatures that its copies carry."""

    text: str
    body: dict[str, Any]
    signatures: set[str] = field(default_factory=set)
    is_relied_on: bool = False

    def __post_init__(self) -> None:
        self.digest = hashlib.sha256(self.text.encode()).hexdigest()
        self.attributes: dict[str, Any] = self.body["attributes"]
        self.event: str = self.body.get("event_name", "")
        self.at = (self["audit.sequence.stream_id"], self["audit.sequence.number"])
        self.here = [self.digest, self["audit.record.id"]]
        self.before = [self["audit.sequence.prev_hash"], self["audit.sequence.prev_record_id"]]
        self.observed = nanoseconds(self.body.get("observed_timestamp"))

    def __getitem__(self, key: str) -> Any:
        """Return an attribute."""
        return self.attributes.get(key)

    @property
    def before_number(self) -> int:
        """Number of the checkpoint before."""
        return int(self.attributes.get(PREV_NUMBER, self[NUMBER] - 1))


def nanoseconds(time: Any) -> int | None:
    """Return a timestamp as nanoseconds since 1970, None if it does not have its form."""
    if not re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z", str(time), re.ASCII):
        return None
    moment = datetime.fromisoformat(time[:19]).replace(tzinfo=UTC)
    return int(moment.timestamp()) * 10**9 + int(time[20:29])


def fields(pairs: list[dict[str, Any]]) -> dict[str, Any]:
    """Return OTLP attributes by key; one that is there twice has no value."""
    keys = [pair["key"] for pair in pairs]
    return {pair["key"]: value_of(pair["value"]) if keys.count(pair["key"]) == 1 else None for pair in pairs}


def value_of(value: dict[str, Any]) -> object:
    """Return what an OTLP value says."""
    ((kind, inner),) = value.items()
    if kind in {"arrayValue", "kvlistValue"}:
        return (fields if kind == "kvlistValue" else lambda values: [*map(value_of, values)])(inner.get("values", []))
    return int(inner) if kind == "intValue" else inner


def is_signed(text: str, signature: str, keys: list[bytes]) -> bool:
    """Tell whether one of the keys signed a text (section 5)."""
    for key in keys:
        try:
            Ed25519PublicKey.from_public_bytes(key).verify(base64.b64decode(signature, validate=True), text.encode())
        except (InvalidSignature, ValueError):
            continue
        return True
    return False


def body_codes(text: str, body: dict[str, Any]) -> set[str]:
    """Run step 2."""
    attributes, codes = body.get("attributes", {}), set[str]()
    # Keys of bodies are ASCII in every version so far: for them the order of Python's text is that of UTF-16.
    if json.dumps(body, sort_keys=True, ensure_ascii=False, separators=(",", ":")) != text:
        codes.add("body_not_canonical")
    if {key: type(value) for key, value in body.items()} != MEMBERS or not 0 <= body["trace_flags"] <= 255:
        codes.add("member_missing")
    values = VALUES | (OWN_VALUES if body.get("event_name") in CATALOGUE else {})
    wrong = [key for key, known in values.items() if attributes.get(key, known) not in [known, *known.split()]]
    has_no_form = (body.get("event_name") == "audit.checkpoint" and not is_checkpoint(attributes)) or (
        body.get("event_name") == "audit.key.rotate" and rotation_of(attributes) is None
    )
    always = ALWAYS if attributes.get("audit.schema.version") == "1.0.0" else ALWAYS | ALWAYS_BEYOND_1_0_0
    if not attributes.keys() >= always or wrong or has_no_form or attributes.get("audit.sequence.number", 1) < 1:
        codes.add("attribute_missing")
    if any(time in body and nanoseconds(body[time]) is None for time in ("timestamp", "observed_timestamp")):
        codes.add("timestamp_form")
    for member, digits in (("trace_id", 32), ("span_id", 16)):
        if member in body and not re.fullmatch(f"(?!0+$)[0-9a-f]{{{digits}}}", body[member]):
            codes.add(f"{member}_form")
    result, outcome = attributes.get("auditrace.result"), attributes.get("audit.outcome")
    if result in VALUES["auditrace.result"].split() and outcome and OUTCOMES.get(result, "failure") != outcome:
        codes.add("outcome_pair")
    if len({attributes[key] for key in ("audit.record.id", "log.record.uid") if key in attributes}) > 1:
        codes.add("uid_differs")
    return codes


def is_checkpoint(attributes: dict[str, Any]) -> bool:
    """Tell whether the attributes of a checkpoint have their form (section 6)."""
    own = {
        key.rpartition(".")[2]: value for key, value in attributes.items() if key.startswith("auditrace.checkpoint.")
    }
    hashes = [own.get("prev_hash", "0" * 64), *(tip[key] for tip in own.get("tips", []) for key in ("hash", "leaves"))]
    return (
        {"number", "tips", "streams", "records"} <= own.keys()
        and own["number"] > 0
        and min(own["streams"], own["records"], own.get("prev_number", 0)) >= 0
        and all({key: type(value) for key, value in tip.items()} == TIP for tip in own["tips"])
        and all(tip["number"] > 0 and 1 <= tip["from"] <= tip["number"] + 1 for tip in own["tips"])
        and all(re.fullmatch("[0-9a-f]{64}", digest) for digest in hashes)
    )


def rotation_of(attributes: dict[str, Any]) -> tuple[bytes, bytes, int] | None:
    """Return old key, new key and the new one's first checkpoint, None without their form (section 6)."""
    try:
        pems, first = attributes["auditrace.changes"]["public_key"], attributes["auditrace.changes"]["first_checkpoint"]
        loaded: list[Any] = [load_pem_public_key(pems[which].encode()) for which in ("from", "to")]
        old, new = (key.public_bytes_raw() for key in loaded)
    except (KeyError, ValueError):
        return None
    return (old, new, first["to"]) if old != new and first["to"] > 0 else None


def index_codes(record: dict[str, Any], resource: dict[str, Any], text: str, body: dict[str, Any]) -> set[str]:
    """Run step 3 on a log record that has all of its fields."""
    attributes, codes, index = body.get("attributes", {}), set[str](), fields(record["attributes"])
    outcome, result = attributes.get("audit.outcome"), attributes.get("auditrace.result")
    severity = 17 if result == "error" else SEVERITIES.get(outcome)
    times = (nanoseconds(body.get("timestamp")), nanoseconds(body.get("observed_timestamp")), severity)
    kept = {key: value for key, value in index.items() if not key.startswith("audit.integrity.")}
    if json.dumps(kept, sort_keys=True) != json.dumps(attributes, sort_keys=True):
        codes.add("index_differs")
    if (int(record["timeUnixNano"]), int(record["observedTimeUnixNano"]), record["severityNumber"]) != times:
        codes.add("index_differs")
    if index.get("audit.integrity.hash") != hashlib.sha256(text.encode()).hexdigest():
        codes.add("hash_attribute")
    if record["eventName"] != body.get("event_name"):
        codes.add("event_name_differs")
    if [record["traceId"], record["spanId"], record.get("flags", 0)] != [
        *map(body.get, ("trace_id", "span_id", "trace_flags"))
    ]:
        codes.add("trace_differs")
    if not body.get("resource", {}).items() <= fields(resource["attributes"]).items():
        codes.add("resource_differs")
    return codes

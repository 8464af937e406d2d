"""Verifies the proof of one record, as the API answers it: what the signature on a checkpoint says of that record.

A proof needs no other record of the ledger. docs/audit-format.md, section 7, "The proof of a record".
"""

import hashlib
from collections.abc import Sequence
from typing import Any, Final

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from telemetry import names
from telemetry.audit.checkpoint import Checkpoint, CheckpointTip, HexHash, is_signed
from telemetry.audit.signer import fingerprint
from telemetry.audit.verify.findings import Code, Finding
from telemetry.audit.verify.named import NamedCheckpoint
from telemetry.audit.verify.proof_report import NamedRecord, ProofReport
from telemetry.audit.verify.record.body import (
    EVENT_NAME,
    OBSERVED_TIMESTAMP,
    SPAN_ID,
    TIMESTAMP,
    TRACE_ID,
    Body,
    read_body,
)
from telemetry.audit.verify.record.index import is_same
from telemetry.audit.verify.record.values import differing

_RECORD: Final = "record"
_CHECKPOINT: Final = "checkpoint"


class _StatedRecord(msgspec.Struct, frozen=True):
    record_id: str
    stream_id: str
    sequence_number: int
    record_hash: str
    event_name: str
    timestamp: str
    trace_id: str
    span_id: str
    attributes: dict[str, Any]
    body: str


class _StatedCheckpoint(msgspec.Struct, frozen=True):
    number: int
    signature: str
    certificate: str
    record: _StatedRecord


class _Proof(msgspec.Struct, frozen=True):
    record: _StatedRecord
    checkpoint: _StatedCheckpoint | None
    tip: CheckpointTip | None
    hashes: list[HexHash]


_DECODER: Final = msgspec.json.Decoder(_Proof)


def verify_proof(text: bytes, public_keys: Sequence[Ed25519PublicKey] = ()) -> ProofReport:
    """Return what a proof shows, given the JSON text of the answer to `GET /v1/audit/records/{id}/proof`.

    "intact" says that the holder of a given key has signed this record, with its stream and number. It says nothing of
    what is no part of the record: its delivery, and the links beside it. "not_checked" is a record that no checkpoint
    covers yet, and a proof that names another key than those that are given.
    """
    try:
        proof = _DECODER.decode(text)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        return ProofReport(
            verdict="broken",
            signatures="not_checked",
            findings=(Finding("proof_form", f"the proof does not have its form: {error}"),),
            record=None,
            checkpoint=None,
            signed_by=None,
            keys=tuple(map(fingerprint, public_keys)),
            other_key=None,
        )
    return _Checking(proof, public_keys).report()


class _Checking:
    def __init__(self, proof: _Proof, keys: Sequence[Ed25519PublicKey]) -> None:
        self._proof = proof
        self._keys = keys
        self._findings: list[Finding] = []
        self._signed_by: str | None = None
        self._other_key: str | None = None

    def report(self) -> ProofReport:
        proof = self._proof
        # 1. The record's body is one, and what stands beside it agrees with it.
        body = self._body(proof.record, _RECORD)
        named = None if body is None else _named_record(proof.record, body)
        covering: NamedCheckpoint | None = None
        if proof.checkpoint is not None:
            covering = self._check_checkpoint(proof.checkpoint, body)
        elif proof.tip is not None or proof.hashes:
            self._add("proof_form", "there are hashes, and no checkpoint that names them", _CHECKPOINT)
        is_proven = covering is not None and self._other_key is None
        return ProofReport(
            verdict="broken" if self._findings else "intact" if is_proven else "not_checked",
            signatures="checked" if self._signed_by else "not_checked",
            findings=tuple(self._findings),
            record=named,
            checkpoint=covering,
            signed_by=self._signed_by,
            keys=tuple(map(fingerprint, self._keys)),
            other_key=self._other_key,
        )

    def _check_checkpoint(self, stated: _StatedCheckpoint, record: Body | None) -> NamedCheckpoint | None:
        body = self._body(stated.record, _CHECKPOINT)
        if body is None or body.checkpoint is None:
            if body is not None and body.members.get(EVENT_NAME) != names.EVENT_AUDIT_CHECKPOINT:
                self._add("proof_differs", "the record that is to cover the other one is no checkpoint", _CHECKPOINT)
            return None
        # 2. The checkpoint is signed.
        self._check_signature(stated)
        self._compare("number", stated.number, body.checkpoint.number, _CHECKPOINT)
        # 3. A tip of the checkpoint covers the record, and the hashes are those that it was made over.
        if record is not None and record.stream_id is not None and record.number is not None:
            self._check_cover(body.checkpoint, record.stream_id, record.number, record.digest.hex())
        return NamedCheckpoint(body.checkpoint.number, body.digest.hex(), str(body.members.get(OBSERVED_TIMESTAMP)))

    def _check_signature(self, stated: _StatedCheckpoint) -> None:
        signed = stated.record.body.encode()
        signer = next((key for key in self._keys if is_signed(signed, stated.signature, [key])), None)
        if signer is not None:
            self._signed_by = fingerprint(signer)
            self._compare("certificate", stated.certificate, self._signed_by, _CHECKPOINT)
        elif stated.certificate in map(fingerprint, self._keys):
            self._add("signature", f"the signature is not that of the key {stated.certificate}", _CHECKPOINT)
        elif self._keys:
            self._other_key = stated.certificate

    def _check_cover(self, checkpoint: Checkpoint, stream_id: str, number: int, record_hash: str) -> None:
        tip = next(
            (tip for tip in checkpoint.tips if tip.stream_id == stream_id and tip.first <= number <= tip.number), None
        )
        if tip is None:
            detail = f"checkpoint {checkpoint.number} covers no record {number} of the stream {stream_id}"
            self._add("tip_missing", detail, "tip")
            return
        if self._proof.tip != tip:
            self._add("proof_differs", f"the tip is not the one that checkpoint {checkpoint.number} names", "tip")
        hashes = self._proof.hashes
        covered = f"records {tip.first} to {tip.number}"
        if len(hashes) != tip.number + 1 - tip.first:
            self._add("leaves", f"there are {len(hashes)} hashes, of {covered}", "hashes")
        elif hashlib.sha256(bytes.fromhex("".join(hashes))).hexdigest() != tip.leaves:
            self._add("leaves", f"the hashes are not those of {covered} that the checkpoint covers", "hashes")
        elif hashes[number - tip.first] != record_hash:
            of_number = hashes[number - tip.first]
            detail = f"record {number} of the stream has the hash {of_number}, and this one {record_hash}"
            self._add("tip_hash", detail, _RECORD)

    def _body(self, record: _StatedRecord, part: str) -> Body | None:
        body, faults = read_body(record.body)
        for fault in faults:
            self._add(fault.code, fault.detail, part)
        if body is not None:
            for member, held in (
                ("record_id", body.record_id),
                ("stream_id", body.stream_id),
                ("sequence_number", body.number),
                ("record_hash", body.digest.hex()),
                *((member, body.members.get(member)) for member in (EVENT_NAME, TIMESTAMP, TRACE_ID, SPAN_ID)),
            ):
                self._compare(member, getattr(record, member), held, part)
            for key in sorted(record.attributes.keys() | body.attributes.keys()):
                self._compare(f"attribute {key}", record.attributes.get(key), body.attributes.get(key), part)
        return body

    def _compare(self, member: str, stated: object, held: object, part: str) -> None:
        if not is_same(stated, held):
            one, other = differing(stated, held)
            self._add("proof_differs", f"{member} is {one} in the proof, {other} by the body", part)

    def _add(self, code: Code, detail: str, part: str) -> None:
        of = self._proof.checkpoint.record if part == _CHECKPOINT and self._proof.checkpoint else self._proof.record
        self._findings.append(Finding(code, detail, of.stream_id, of.sequence_number, of.record_id, part))


def _named_record(record: _StatedRecord, body: Body) -> NamedRecord:
    return NamedRecord(
        record_id=body.record_id or record.record_id,
        stream_id=body.stream_id or record.stream_id,
        number=body.number or record.sequence_number,
        hash=body.digest.hex(),
        event_name=str(body.members.get(EVENT_NAME)),
        time=str(body.members.get(OBSERVED_TIMESTAMP)),
    )

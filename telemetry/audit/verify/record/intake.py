"""Takes records in one by one: checks each record by itself, and keeps of it what the other steps need.

These are steps 2 and 3, and the signatures of step 7 under the given keys (docs/audit-format.md, section 7).
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from telemetry import names
from telemetry.audit.checkpoint import Checkpoint, is_signed
from telemetry.audit.verify.findings import At, Fault, Findings, UnplacedFinding
from telemetry.audit.verify.read.found import Fields, Found, SourcePlace
from telemetry.audit.verify.record.body import EVENT_NAME, OBSERVED_TIMESTAMP, Body, nanoseconds, read_body
from telemetry.audit.verify.record.fast_path import FastRecord, prove
from telemetry.audit.verify.record.gathered import NOT_SIGNED, Gathered, SeenCheckpoint
from telemetry.audit.verify.record.index import index_faults
from telemetry.audit.verify.record.rotation import SeenRotation, rotation_of
from telemetry.audit.verify.record.rows import (
    CHECKPOINT,
    CLOSE,
    HAS_PREV_HASH,
    HAS_PREV_ID,
    ID_ROW_BYTES,
    NO_KEY,
    ODD_ID,
    ROW_BYTES,
    UNMATCHED,
    UNOBSERVED,
    bounded,
    digest_of,
    id_row_of,
    key_of,
    pack,
)
from telemetry.audit.verify.spill import Sorter

_MAX_NUMBER: Final = 2**64 - 1
_MAX_PENDING: Final = 4096


class Intake:
    """Takes in records; what memory does not hold goes to files in `folder`, whose names end with `name`."""

    def __init__(self, keys: Sequence[Ed25519PublicKey], folder: Path, name: str) -> None:
        self._keys = keys
        self._findings = Findings()
        self._rows = Sorter(folder / f"rows{name}", ROW_BYTES)
        self._ids = Sorter(folder / f"ids{name}", ID_ROW_BYTES)
        self._pending: list[bytes] = []
        self._checkpoints = Sorter(folder / f"checkpoints{name}")
        self._odd_ids = Sorter(folder / f"odd{name}")
        self._odd_streams: dict[bytes, str] = {}
        self._rotations: list[SeenRotation] = []
        self._sources: dict[str, int] = {}
        self.source: int | None = None
        """The number of the source that records are of; None is by the names of their places."""
        self.first_source = 0
        """The number of the first source that is known by its name."""

    def sources(self) -> list[str]:
        """Return the names of the sources, for those that are known by their names."""
        return list(self._sources)

    def spill(self) -> None:
        """Put everything where another process can read it."""
        self._sort()
        for sorter in (self._rows, self._ids, self._checkpoints, self._odd_ids):
            sorter.spill()

    def gathered(self) -> Gathered:
        """Return what was taken in."""
        self._sort()
        rows, ids = self._rows.runs(), self._ids.runs()
        checkpoints, odd_ids = self._checkpoints.runs(), self._odd_ids.runs()
        return Gathered(
            findings=self._findings.noted(),
            rows=rows,
            ids=ids,
            checkpoints=checkpoints,
            odd_ids=odd_ids,
            odd_streams=self._odd_streams,
            rotations=self._rotations,
        )

    def take(self, one: Found) -> None:
        """Take in one copy of a record, or a fragment."""
        if not self.take_fast(one):
            self.take_apart(one)

    def take_fast(self, one: Found) -> bool:
        """Take in a copy that is proved to be as it should be; tell whether it was."""
        fast = None if one.body is None or one.torn else prove(one.body)
        if fast is None or (one.index is not None and not fast.agrees_with(one.index)):
            return False
        self._keep_fast(fast, one.place)
        return True

    def _keep_fast(self, fast: FastRecord, place: SourcePlace) -> None:
        flags = CLOSE if fast.event_name == names.EVENT_AUDIT_STREAM_CLOSE else 0
        prev_digest, prev_record = UNMATCHED, NO_KEY
        if fast.prev_hash is not None:
            flags |= HAS_PREV_HASH
            prev_digest = digest_of(fast.prev_hash)
        if fast.prev_record_id is not None:
            flags |= HAS_PREV_ID
            prev_record, _ = key_of(fast.prev_record_id)
        sealed, number = bounded(fast.observed_ns), fast.number
        self._add(fast.stream_id, fast.record_id, number, fast.digest, prev_digest, prev_record, sealed, flags, place)

    def take_apart(self, one: Found) -> None:
        """Take in a copy piece by piece, and note everything that is wrong with it."""
        at = self._place(one.place)
        if one.torn:
            self._findings.add(UnplacedFinding(Fault("torn_line", "not written to its end"), at=at))
            return
        if one.body is None:
            self._note_unread(Fault("body_missing", "the log record has no text as its body"), one, at)
            return
        # 2. The body is canonical and has its form.
        body, faults = read_body(one.body)
        if body is None:
            for fault in faults:
                self._note_unread(fault, one, at)
            return
        # 3. What the log record says beside its body agrees with it.
        if one.index is not None:
            faults.extend(index_faults(body, one.index))
        for fault in faults:
            self._findings.add(UnplacedFinding(fault, body.stream_id, body.number, body.record_id, at=at))
        self._keep(body, one)

    def _keep(self, body: Body, one: Found) -> None:
        stream_id, number, record_id = body.stream_id, body.number, body.record_id
        if stream_id is None or number is None or record_id is None:
            return
        prev_hash = body.attributes.get(names.AUDIT_SEQUENCE_PREV_HASH)
        prev_id = body.attributes.get(names.AUDIT_SEQUENCE_PREV_RECORD_ID)
        event_name = body.members.get(EVENT_NAME)
        observed = nanoseconds(body.members.get(OBSERVED_TIMESTAMP))
        flags = (
            (CHECKPOINT if event_name == names.EVENT_AUDIT_CHECKPOINT else 0)
            | (CLOSE if event_name == names.EVENT_AUDIT_STREAM_CLOSE else 0)
            | (HAS_PREV_HASH if prev_hash is not None else 0)
            | (HAS_PREV_ID if prev_id is not None else 0)
            | (UNOBSERVED if observed is None else 0)
        )
        prev_record = key_of(prev_id)[0] if isinstance(prev_id, str) else NO_KEY
        prev_digest, sealed = digest_of(prev_hash), bounded(observed)
        row = self._add(stream_id, record_id, number, body.digest, prev_digest, prev_record, sealed, flags, one.place)
        encoded = (one.body or "").encode()
        if body.checkpoint is not None:
            self._keep_checkpoint(body, body.checkpoint, row, encoded, one)
        elif event_name == names.EVENT_AUDIT_KEY_ROTATE:
            self._keep_rotation(body, row, encoded, one.signature)

    def _keep_checkpoint(self, body: Body, stated: Checkpoint, row: bytes, encoded: bytes, one: Found) -> None:
        signature = one.signature
        signed_by = NOT_SIGNED if not signature else self._signed_by(encoded, signature)
        seen = SeenCheckpoint(
            stream_id=body.stream_id or "",
            row=row,
            time=str(body.members.get(OBSERVED_TIMESTAMP)),
            stated=stated,
            signature=signature,
            signed_by=signed_by,
            body=b"" if signed_by != NOT_SIGNED else encoded,
            certificate=one.certificate,
        )
        # From the last number down: what a checkpoint is worth depends on the one behind it.
        key = (_MAX_NUMBER - stated.number).to_bytes(8, "big") + body.digest
        self._checkpoints.add(key + msgspec.msgpack.encode(seen))

    def _keep_rotation(self, body: Body, row: bytes, encoded: bytes, signature: str | None) -> None:
        stated = rotation_of(body.attributes)
        if stated is not None:
            old = Ed25519PublicKey.from_public_bytes(stated.old)
            is_by_old = bool(signature) and is_signed(encoded, signature or "", [old])
            self._rotations.append(SeenRotation(stated, body.stream_id or "", row, signature, is_by_old))

    def _signed_by(self, encoded: bytes, signature: str) -> int:
        for position, key in enumerate(self._keys):
            if is_signed(encoded, signature, [key]):
                return position
        return NOT_SIGNED

    def _add(
        self,
        stream_id: str,
        record_id: str,
        number: int,
        digest: bytes,
        prev_digest: bytes,
        prev_record: bytes,
        observed: int,
        flags: int,
        place: SourcePlace,
    ) -> bytes:
        source, line = self._place(place)
        stream, is_odd_stream = key_of(stream_id)
        record, is_odd = key_of(record_id)
        if is_odd_stream:
            self._odd_streams[stream] = stream_id
        if is_odd:
            flags |= ODD_ID
            self._odd_ids.add(record + record_id.encode())
        row = pack(stream, number, digest, record, prev_digest, prev_record, observed, flags, source, line)
        self._pending.append(row)
        if len(self._pending) >= _MAX_PENDING:
            self._sort()
        return row

    def _sort(self) -> None:
        self._rows.extend(self._pending)
        self._ids.extend([id_row_of(row) for row in self._pending])
        self._pending = []

    def _place(self, place: SourcePlace) -> At:
        if self.source is not None:
            return self.source, place.line
        return self.first_source + self._sources.setdefault(place.source, len(self._sources)), place.line

    def _note_unread(self, fault: Fault, one: Found, at: At) -> None:
        """Note what is wrong with a record without a readable body: only its index can tell where it belongs."""
        attributes: Fields = {} if one.index is None else one.index.attributes
        stream_id = attributes.get(names.AUDIT_SEQUENCE_STREAM_ID)
        number = attributes.get(names.AUDIT_SEQUENCE_NUMBER)
        record_id = attributes.get(names.AUDIT_RECORD_ID)
        self._findings.add(
            UnplacedFinding(
                fault,
                stream_id if isinstance(stream_id, str) else None,
                number if isinstance(number, int) else None,
                record_id if isinstance(record_id, str) else None,
                at=at,
            )
        )

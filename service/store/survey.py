"""Reads the streams that changed since the last checkpoint, and checks that they are what their lanes committed."""

from collections.abc import Iterable, Mapping, Sequence, Set
from typing import Final

import msgspec

from service.ports import RefusedStream
from service.secrets import DeploymentSecret
from service.store.queries import Execute, Row
from telemetry import names
from telemetry.audit.canonical import sha256_hex
from telemetry.audit.chain import Tip


class StreamState(msgspec.Struct, frozen=True):
    """A stream as the database stores it, and its anchor; without one, the fields of the anchor are None."""

    stream_id: str
    owner: str
    epoch: int
    number: int
    hash: str
    record_id: str
    mac: str
    closed: int
    alive_until_ns: int
    anchor_number: int | None
    anchor_hash: str | None
    anchor_closed: int | None
    anchor_checkpoint: int | None
    anchor_mac: str | None

    @property
    def first(self) -> int:
        """The first number that no checkpoint covers."""
        return (self.anchor_number or 0) + 1


class RehashedRecords(msgspec.Struct, frozen=True):
    """Records `first` to `last` of a stream, hashed again: their raw hashes, and the hash and id of the last one."""

    first: int
    anchor_hash: str | None
    last: int
    hash: str
    record_id: str
    hashes: tuple[bytes, ...]


class Survey(msgspec.Struct, frozen=True):
    """The sound streams with their hashed records, and the refused streams with the reason."""

    sound: Sequence[tuple[StreamState, RehashedRecords]]
    refused: Sequence[RefusedStream]


class _Sequence(
    msgspec.Struct,
    frozen=True,
    rename={
        "record_id": names.AUDIT_RECORD_ID,
        "stream_id": names.AUDIT_SEQUENCE_STREAM_ID,
        "number": names.AUDIT_SEQUENCE_NUMBER,
        "prev_hash": names.AUDIT_SEQUENCE_PREV_HASH,
        "prev_record_id": names.AUDIT_SEQUENCE_PREV_RECORD_ID,
    },
):
    record_id: str
    stream_id: str
    number: int
    prev_hash: str | None = None
    prev_record_id: str | None = None


class _Body(msgspec.Struct, frozen=True):
    attributes: _Sequence


_DECODER: Final = msgspec.json.Decoder(_Body)


class _UnsoundError(Exception):
    """The stream is not what its lane committed; the text says where."""


def survey(
    execute: Execute,
    secret: DeploymentSecret,
    *,
    own: Tip | None = None,
    known: Mapping[str, RehashedRecords] | None = None,
) -> Survey:
    """Check every stream that is open or changed since the last checkpoint.

    A stream is sound if its lane did not disown it, its stored tip and its anchor have the MAC that only the
    deployment's secret gives, and every record between them has the hash of its column, names the record before it,
    and has the next number.

    Args:
        execute: reads the database, in one snapshot or with a lock on what may change; nothing is written.
        secret: authenticates tips and anchors.
        own: the tip of the transaction that runs the survey; its records are not committed, and are left out.
        known: by stream, the records that were hashed before; they are not read again.
    """
    overgrown = {
        stream_id
        for stream_id, first, last in execute("streams_overgrown", {})
        if own is None or (stream_id, first, last) != (own.stream_id, 1, own.number)
    }
    disowned: dict[str, str] = dict(execute("disowned_streams", {}))
    sound: list[tuple[StreamState, RehashedRecords]] = []
    refused = [RefusedStream(stream_id, reason) for stream_id, reason in disowned.items()]
    states = [StreamState(*row) for row in execute("streams_to_anchor", {})]
    for state in states:
        if state.stream_id in disowned:
            continue
        before = (known or {}).get(state.stream_id)
        if state.number == 0 and own is not None and own.stream_id == state.stream_id:
            # This transaction opened the stream, and nothing of it is committed yet.
            continue
        try:
            _check_extent(state, overgrown)
            _check_macs(state, secret)
            sound.append((state, _hash(execute, state, before)))
        except _UnsoundError as error:
            refused.append(RefusedStream(state.stream_id, str(error)))
    ended = sorted(overgrown - disowned.keys() - {state.stream_id for state in states})
    refused += [RefusedStream(stream_id, "there are records behind its end") for stream_id in ended]
    return Survey(sound, refused)


def _check_extent(state: StreamState, overgrown: Set[str]) -> None:
    if state.stream_id in overgrown:
        raise _UnsoundError(f"there are records outside of 1 to {state.number}, where its tip is")


def _check_macs(state: StreamState, secret: DeploymentSecret) -> None:
    if state.mac != secret.tip_mac(state.stream_id, state.number, state.hash):
        raise _UnsoundError(f"the tip {state.number} was not stored by a lane of this deployment")
    if state.anchor_number is None:
        return
    anchor = (state.anchor_number, state.anchor_hash or "", state.anchor_closed or 0, state.anchor_checkpoint or 0)
    if state.anchor_mac != secret.anchor_mac(state.stream_id, *anchor):
        raise _UnsoundError(f"the anchor {state.anchor_number} was not stored by a checkpoint of this deployment")
    if state.number < state.anchor_number:
        raise _UnsoundError(f"it was cut back to {state.number}, behind checkpoint {state.anchor_checkpoint}")


def _hash(execute: Execute, state: StreamState, before: RehashedRecords | None) -> RehashedRecords:
    """Hash the records since the anchor; the anchored record is read too, so that the link to it is checked."""
    if before is None or (before.first, before.anchor_hash) != (state.first, state.anchor_hash):
        before = _start(execute, state)
    number, record_hash, record_id = before.last, before.hash, before.record_id
    hashes = list(before.hashes)
    # Most streams have not grown since they were hashed, and each query costs a round trip.
    is_longer = number < state.number
    for row in _records(execute, state.stream_id, number + 1, state.number) if is_longer else ():
        record_id, record_hash = _check_record(state.stream_id, number, record_hash, record_id, row)
        number += 1
        hashes.append(bytes.fromhex(record_hash))
    if (number, record_hash, record_id) != (state.number, state.hash, state.record_id):
        raise _UnsoundError(f"record {number} is not the tip that its lane committed, which is {state.number}")
    return RehashedRecords(state.first, state.anchor_hash, number, record_hash, record_id, tuple(hashes))


def _start(execute: Execute, state: StreamState) -> RehashedRecords:
    if state.anchor_number is None:
        return RehashedRecords(1, None, 0, "", "", ())
    for number, record_id, record_hash, body in _records(
        execute, state.stream_id, state.anchor_number, state.anchor_number
    ):
        if record_hash == state.anchor_hash == sha256_hex(body.encode()):
            return RehashedRecords(state.first, state.anchor_hash, number, record_hash, record_id, ())
    raise _UnsoundError(f"record {state.anchor_number} is not the one that checkpoint {state.anchor_checkpoint} names")


def _check_record(stream_id: str, number: int, prev_hash: str, prev_record_id: str, row: Row) -> tuple[str, str]:
    """Return id and hash of the record after `number`, once it is known to name that one."""
    stored_number, record_id, record_hash, body = row
    if stored_number != number + 1:
        raise _UnsoundError(f"record {number + 1} is missing")
    if sha256_hex(body.encode()) != record_hash:
        raise _UnsoundError(f"the body of record {stored_number} is not the one that was hashed")
    try:
        place = _DECODER.decode(body).attributes
    except msgspec.MsgspecError as error:
        raise _UnsoundError(f"the body of record {stored_number} has no place in a stream: {error}") from error
    expected = _Sequence(record_id, stream_id, stored_number, prev_hash or None, prev_record_id or None)
    if place != expected:
        raise _UnsoundError(f"record {stored_number} does not follow on record {number}")
    return record_id, record_hash


def _records(execute: Execute, stream_id: str, first: int, last: int) -> Iterable[Row]:
    values = {"stream_id": stream_id, "first": first, "last": last}
    return execute("records_of_stream", values)

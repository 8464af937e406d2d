"""Rotation in the ledger: a record signed by the old key says which key signs, from which checkpoint on."""

import base64

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from opentelemetry.proto.resource.v1.resource_pb2 import Resource

from service.errors import SettingsError
from telemetry import names
from telemetry.audit.signer import Signer
from tests.support.both_stores import BOTH, Store
from tests.support.ledger_maker import FOREIGN_KEY, KEY
from tests.support.stores import SECRET

pytestmark = pytest.mark.stores(*BOTH)

OLD, NEW = Signer(KEY), Signer(FOREIGN_KEY)


def _rotation(store: Store) -> tuple[bytes, dict[str, object]]:
    """Return the body of the rotation's record, and the attributes that it was stored with."""
    ((body,),) = store.rows("SELECT body FROM audit_records WHERE event_name = ?", names.EVENT_AUDIT_KEY_ROTATE)
    return body.encode(), msgspec.json.decode(body)["attributes"]


def test_the_rotation_is_a_record_that_the_old_key_signs(store: Store) -> None:
    """It carries both public keys and the number of the first checkpoint that the new one signs."""
    writer = store.checkpoints(store.lane(), OLD, NEW)
    writer.write()
    assert writer.rotate(NEW) == 2
    body, attributes = _rotation(store)
    assert attributes[names.AUDITRACE_CHANGES] == {
        "public_key": {"from": OLD.public_pem, "to": NEW.public_pem},
        "first_checkpoint": {"to": 2},
    }
    assert (attributes[names.AUDIT_TARGET_TYPE], attributes[names.AUDIT_TARGET_ID]) == ("key", NEW.fingerprint)
    (line,) = [line for line in store.archive() if names.EVENT_AUDIT_KEY_ROTATE in line]
    (log_record,) = msgspec.json.decode(line)["resourceLogs"][0]["scopeLogs"][0]["logRecords"]
    index = {pair["key"]: pair["value"].get("stringValue") for pair in log_record["attributes"]}
    OLD.public_key.verify(base64.b64decode(index[names.AUDIT_INTEGRITY_VALUE]), body)


def test_only_the_new_key_signs_after_a_rotation(store: Store) -> None:
    """The old key's holder writes no checkpoint any more; whoever has only the first key follows the rotation."""
    lane = store.lane()
    writer = store.checkpoints(lane, OLD, NEW)
    writer.write()
    writer.rotate(NEW)
    writer.release()
    stale = store.checkpoints(store.lane("stale"), OLD)
    for write in (stale.hold, stale.write):
        with pytest.raises(SettingsError, match=NEW.fingerprint):
            write()
    writer.write()
    assert store.rows("SELECT number, fingerprint FROM audit_checkpoints ORDER BY number") == [
        (1, OLD.fingerprint),
        (2, NEW.fingerprint),
    ]
    assert store.verify(OLD.public_key, NEW.public_key).verdict == "intact"
    assert store.verify(OLD.public_key).verdict == "intact"
    assert store.verify(Signer(Ed25519PrivateKey.generate()).public_key).verdict == "broken"


def test_records_name_the_key_that_signs_over_them(store: Store) -> None:
    """The certificate in the resource follows a rotation without a restart; the rotation itself names the old key."""
    lane = store.lane()
    writer = store.checkpoints(lane, OLD, NEW)
    writer.write()
    writer.rotate(NEW)
    lane.submit(lambda transaction: transaction.save(store.fact())).result()
    writer.write()
    named = []
    for event_name, resource in store.rows(
        "SELECT event_name, resource FROM audit_records JOIN audit_envelopes USING (envelope_id) ORDER BY position"
    ):
        attributes = {pair.key: pair.value.string_value for pair in Resource.FromString(resource).attributes}
        named.append((event_name, attributes.get(names.AUDIT_INTEGRITY_CERTIFICATE)))
    assert named[1:] == [
        (names.EVENT_AUDIT_CHECKPOINT, OLD.fingerprint),
        (names.EVENT_AUDIT_KEY_ROTATE, OLD.fingerprint),
        (names.EVENT_JOB_CREATE, NEW.fingerprint),
        (names.EVENT_AUDIT_CHECKPOINT, NEW.fingerprint),
    ]


def test_a_rotation_that_fails_leaves_no_trace(store: Store) -> None:
    """Only the holder of the current key rotates, and never to a key that signs or has signed."""
    lane = store.lane()
    writer = store.checkpoints(lane, OLD, NEW)
    with pytest.raises(SettingsError, match="private key"):
        store.checkpoints(store.lane("stranger"), Signer(Ed25519PrivateKey.generate())).rotate(NEW)
    with pytest.raises(SettingsError, match="signs or has signed"):
        writer.rotate(OLD)
    writer.rotate(NEW)
    with pytest.raises(SettingsError, match="signs or has signed"):
        writer.rotate(OLD)
    assert [key.fingerprint for key in writer.registered()] == [OLD.fingerprint, NEW.fingerprint]
    assert store.rows("SELECT count(*) FROM audit_records WHERE event_name = 'audit.key.rotate'") == [(1,)]


def test_keys_can_be_rotated_twice_without_a_checkpoint_between(store: Store) -> None:
    """The last key signs; one in between signs its own rotation and nothing else."""
    last = Signer(Ed25519PrivateKey.generate())
    writer = store.checkpoints(store.lane(), OLD, NEW, last)
    assert [writer.rotate(NEW), writer.rotate(last)] == [1, 1]
    writer.write()
    assert [(key.fingerprint, key.first_checkpoint) for key in writer.registered()] == [
        (OLD.fingerprint, 1),
        (NEW.fingerprint, 1),
        (last.fingerprint, 1),
    ]
    assert store.rows("SELECT fingerprint FROM audit_checkpoints") == [(last.fingerprint,)]
    for given in ((OLD,), (OLD, NEW, last)):
        assert store.verify(*(signer.public_key for signer in given)).verdict == "intact"


def test_the_first_key_is_registered_once(store: Store) -> None:
    """A process that comes later with another key does not make it the one that signs."""
    store.checkpoints(store.lane("first"), OLD)
    later = store.checkpoints(store.lane("later"), NEW)
    assert [key.fingerprint for key in later.registered()] == [OLD.fingerprint]
    assert SECRET.key_mac(1, OLD.public_pem, 1, "") == store.rows("SELECT mac FROM signing_keys")[0][0]

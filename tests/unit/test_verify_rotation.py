"""Keys that follow one another: from the stated checkpoint on the new key signs, and the old one does not."""

from collections.abc import Iterable, Sequence
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from telemetry.audit.checkpoint import sign
from telemetry.audit.verify import Found, Report, SourcePlace, verify
from telemetry.audit.verify.read.archive import records_of_line
from tests.support.ledger_maker import FOREIGN_KEY, KEY, Ledger, Sealed, public_pem

SECOND = Ed25519PrivateKey.from_private_bytes(bytes(range(2, 34)))
THIRD = Ed25519PrivateKey.from_private_bytes(bytes(range(3, 35)))


def rotated() -> Ledger:
    """Return a ledger of five checkpoints: two of the first key, one of the second, two of the third."""
    made = Ledger()
    made.append(1)
    made.checkpoint(1)
    made.append(2)
    made.checkpoint(1)
    made.rotate(1, SECOND)
    made.append(2)
    made.checkpoint(1)
    made.rotate(2, THIRD)
    made.checkpoint(2)
    made.append(1)
    made.checkpoint(2)
    return made


def check(records: Iterable[Sealed], *keys: Ed25519PrivateKey, bodies_only: bool = False) -> Report:
    """Verify records, or their bodies alone, under keys."""
    found: list[Found] = []
    for at, record in enumerate(records, 1):
        place = SourcePlace("a", at)
        copies = records_of_line(f"{record.line()}\n".encode(), place)
        found.extend([Found(record.text, None, place)] if bodies_only else copies)
    return verify(found, public_keys=[key.public_key() for key in keys])


def codes(report: Report) -> list[str]:
    """Return the codes found, each with where it is."""
    return [f"{one.code} {(one.stream_id or '-')[-1]}/{one.number or '-'}" for one in report.findings]


def last_number(report: Report) -> int:
    """Return the number of the last checkpoint that was relied on."""
    return report.last_checkpoint.number if report.last_checkpoint else 0


def rotations(made: Ledger) -> list[Sealed]:
    """Return the rotation records."""
    return [record for record in made.records if record.body["event_name"] == "audit.key.rotate"]


@pytest.mark.parametrize("keys", [[KEY], [SECOND], [THIRD], [KEY, SECOND], [THIRD, KEY], [KEY, SECOND, THIRD]])
def test_any_of_the_keys_verifies_the_whole_ledger(keys: Sequence[Ed25519PrivateKey]) -> None:
    """A rotation leads from each key to those after it, and shows who signed what a known key vouches for."""
    report = check(rotated().records, *keys)

    assert report.findings == ()
    assert last_number(report) == 5


def test_a_foreign_key_verifies_nothing() -> None:
    """Under a key that neither signed nor follows on one that did, every signature is a finding."""
    made = rotated()
    report = check(made.records, FOREIGN_KEY)

    signed = [*made.checkpoints(), *rotations(made)]
    assert codes(report) == sorted(f"signature {one.stream[-1]}/{one.number}" for one in signed)
    assert report.last_checkpoint is None


def test_bodies_alone_verify_under_all_keys() -> None:
    """A copy of bodies has no signature of the rotation: it holds where both its keys are given."""
    made = rotated()

    report = check(made.records, KEY, SECOND, THIRD, bodies_only=True)
    assert report.findings == ()
    assert last_number(report) == 4
    made.checkpoints()[2].signature = sign(KEY, made.checkpoints()[2].text.encode())
    relinked = check(resigned(made, 3, KEY).records, KEY, SECOND, THIRD, bodies_only=True)
    assert "signature" in {one.code for one in relinked.findings}


def resigned(made: Ledger, number: int, key: Ed25519PrivateKey) -> Ledger:
    """Return a ledger in which another key signed a checkpoint and all that follows names that signature."""
    again = Ledger(key=made.key)
    for record in made.records:
        if record.body["event_name"] == "audit.checkpoint":
            signer = key if record.attributes["auditrace.checkpoint.number"] == number else None
            again.key = signer or key_of(record.attributes["auditrace.checkpoint.number"])
            again.checkpoint(stream_of(record))
        elif record.body["event_name"] == "audit.key.rotate":
            again.key = key_of(len(again.checkpoints()))
            again.rotate(stream_of(record), key_of(len(again.checkpoints()) + 1))
        elif record.number > 1:
            again.append(stream_of(record))
    return again


def key_of(checkpoint: int) -> Ed25519PrivateKey:
    """Return the key that signs a checkpoint of the rotated ledger."""
    return KEY if checkpoint <= 2 else SECOND if checkpoint == 3 else THIRD


def stream_of(record: Sealed) -> int:
    """Return the number that the maker gave a stream."""
    return int(record.stream[-1])


@pytest.mark.parametrize("keys", [[KEY], [SECOND], [THIRD], [KEY, SECOND, THIRD]])
@pytest.mark.parametrize(("number", "old"), [(3, KEY), (4, KEY), (4, SECOND), (5, KEY), (5, SECOND)])
def test_an_old_key_does_not_sign_any_more(
    number: int, old: Ed25519PrivateKey, keys: Sequence[Ed25519PrivateKey]
) -> None:
    """A checkpoint that a key signed after its rotation is found, whichever keys are given."""
    made = resigned(rotated(), number, old)
    report = check(made.records, *keys)

    forged = made.checkpoints()[number - 1]
    assert f"signature {forged.stream[-1]}/{forged.number}" in codes(report)
    assert last_number(report) == (4 if number == 5 else 5)


def test_a_new_key_does_not_sign_before_its_rotation() -> None:
    """A checkpoint that a key signed before it was let to is found."""
    made = resigned(rotated(), 2, SECOND)

    assert codes(check(made.records, KEY, SECOND, THIRD)) == [f"signature 1/{made.checkpoints()[1].number}"]


@pytest.mark.parametrize("signature", ["foreign", "missing", "of the new key"])
def test_a_rotation_that_the_old_key_did_not_sign_is_found(signature: str) -> None:
    """Only the key that goes lets another one come."""
    made = rotated()
    first, _ = rotations(made)
    text = first.text.encode()
    first.signature = {
        "foreign": sign(FOREIGN_KEY, text),
        "missing": None,
        "of the new key": sign(SECOND, text),
    }[signature]

    found = codes(check(made.records, KEY))

    assert f"signature 1/{first.number}" in found
    assert f"signature 1/{made.checkpoints()[2].number}" in found


def test_an_old_key_cannot_let_another_one_come_later() -> None:
    """A second rotation by a key that went is found, and the key that it names signs nothing."""
    made = rotated()
    made.key = KEY
    made.rotate(1, FOREIGN_KEY)
    made.checkpoint(1)
    report = check(made.records, KEY)

    forged = made.records[-2:]
    assert codes(report) == [f"signature 1/{one.number}" for one in forged]
    assert last_number(report) == 5


def test_a_made_up_history_is_not_believed_for_naming_a_known_key() -> None:
    """A rotation to the known key vouches for what that key vouches for, and for nothing else."""
    made = Ledger(key=FOREIGN_KEY)
    made.append(1)
    made.checkpoint(1)
    made.rotate(1, KEY)
    report = check(made.records, KEY)

    assert report.last_checkpoint is None
    assert codes(report) == [f"signature 1/{made.checkpoints()[0].number}"]
    assert report.exit_status == 1


@pytest.mark.parametrize(
    "changes",
    [
        {"public_key": {"from": public_pem(KEY), "to": "no key"}, "first_checkpoint": {"to": 3}},
        {"public_key": {"from": public_pem(KEY), "to": public_pem(KEY)}, "first_checkpoint": {"to": 3}},
        {"public_key": {"from": public_pem(KEY), "to": public_pem(SECOND)}},
        {"public_key": {"from": public_pem(KEY), "to": public_pem(SECOND)}, "first_checkpoint": {"to": 0}},
        {"public_key": {"to": public_pem(SECOND)}, "first_checkpoint": {"to": 3}},
    ],
)
def test_a_rotation_without_its_form_is_found(changes: dict[str, Any]) -> None:
    """What a rotation states has to be two public keys and the number of a checkpoint."""
    made = Ledger()
    made.append(1)
    rotation = made.rotate(1, SECOND)
    rotation.attributes["auditrace.changes"] = changes
    rotation.signature = sign(KEY, rotation.text.encode())

    assert codes(check(made.records, KEY)) == [f"attribute_missing 1/{rotation.number}"]

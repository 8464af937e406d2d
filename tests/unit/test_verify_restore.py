"""A restore of the database loses records that were delivered: the fork is told apart from tampering."""

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from telemetry.audit.checkpoint import sign
from telemetry.audit.verify import Found, Report, SourcePlace, verify
from telemetry.audit.verify.read.archive import records_of_line
from tests.support.ledger_maker import FOREIGN_KEY, KEY, Ledger, Sealed

FORK = 1_000_000


def before() -> Ledger:
    """Return what a backup holds: two streams, two checkpoints, and a record that none covers."""
    made = Ledger(minutes_between=1)
    made.append(1)
    made.append(2)
    made.checkpoint(1)
    made.append(2)
    made.checkpoint(1)
    made.append(2)
    return made


def lost(backup: Ledger) -> list[Sealed]:
    """Return what was sealed after the backup: in both its streams, in a new one, and under checkpoints of its own."""
    made = Ledger(records=list(backup.records), minutes_between=1)
    made.append(2)
    made.append(3)
    made.checkpoint(1)
    made.append(3)
    made.append(1)
    made.checkpoint(3)
    made.append(3)
    return made.records[len(backup.records) :]


def after(backup: Ledger, key: Ed25519PrivateKey = KEY) -> Ledger:
    """Return the restored ledger: its streams are closed by the first checkpoint behind the fork, and it goes on."""
    made = Ledger(records=list(backup.records), minutes_between=1, step_minutes=60, first_id=10_000, key=key)
    made.append(4, "audit.restore")
    made.checkpoint(4, closed=[1, 2], number=FORK)
    made.checkpoint(4)
    made.append(5)
    made.checkpoint(5)
    return made


def check(records: list[Sealed], *keys: Ed25519PrivateKey, bodies_only: bool = False) -> Report:
    """Verify records in any order, or their bodies alone."""
    found: list[Found] = []
    for at, record in enumerate(reversed(records), 1):
        place = SourcePlace("a", at)
        copies = records_of_line(f"{record.line()}\n".encode(), place)
        found.extend([Found(record.text, None, place)] if bodies_only else copies)
    return verify(found, public_keys=[key.public_key() for key in keys or (KEY,)])


def codes(report: Report) -> set[str]:
    """Return the codes found."""
    return {finding.code for finding in report.findings}


def test_the_restored_database_verifies() -> None:
    """The numbers that were left out are no gap: the first checkpoint behind the fork says which one it follows."""
    report = check(after(before()).records)
    assert (report.verdict, report.findings, report.lost) == ("intact", (), 0)
    assert report.last_checkpoint is not None
    assert report.last_checkpoint.number == FORK + 2


@pytest.mark.parametrize("bodies_only", [False, True])
def test_a_copy_that_holds_what_was_lost_verifies_and_says_how_much(*, bodies_only: bool) -> None:
    """Records and checkpoints of the lost time are counted, and are no findings; nothing is said for them."""
    backup = before()
    gone = lost(backup)
    report = check([*after(backup).records, *gone], bodies_only=bodies_only)
    assert (report.verdict, report.findings) == ("intact", ())
    assert report.lost == len(gone)
    assert f"covered by nothing: {len(gone)} records" in report.summary()


def test_what_was_lost_verifies_by_itself() -> None:
    """A copy of before the restore is what it always was, proved by its own checkpoints."""
    backup = before()
    report = check([*backup.records, *lost(backup)])
    assert (report.verdict, report.findings, report.lost) == ("intact", (), 0)


def test_what_was_lost_is_still_a_chain() -> None:
    """A record that is missing or edited between others is found, and so is a signature that is wrong.

    Only the last one of a stream nothing covers any more: who wrote the copy may have made it up.
    """
    backup = before()
    gone, kept = lost(backup), after(backup).records
    second = [record for record in gone if record.stream[-1] == "3"]
    assert codes(check([*kept, *(record for record in gone if record is not second[1])])) == {"gap"}
    edited = gone[0].copy()
    edited.attributes["audit.actor.id"] = "mallory"
    assert codes(check([*kept, edited, *gone[1:]])) == set()
    edited = second[1].copy()
    edited.attributes["audit.actor.id"] = "mallory"
    assert codes(check([*kept, *(edited if record is second[1] else record for record in gone)])) == {"link_broken"}
    forged = next(record for record in gone if record.signature is not None).copy()
    forged.signature = sign(FOREIGN_KEY, forged.text.encode())
    unsigned = [forged if record.hash == forged.hash else record for record in gone]
    assert codes(check([*kept, *unsigned])) == {"signature"}


def test_a_fork_that_the_key_did_not_sign_excuses_nothing() -> None:
    """Who lacks the key cannot declare checkpoints lost: the gap, the signature and the records are all findings."""
    backup = before()
    forged = after(backup, FOREIGN_KEY).records
    report = check([*forged, *lost(backup)])
    assert report.verdict == "broken"
    assert {"signature", "checkpoint_gap"} <= codes(report)
    assert report.lost == 0


def test_a_record_of_another_time_is_not_excused() -> None:
    """What was put behind an end outside of the lost time is a forgery as ever."""
    backup = before()
    made = after(backup)
    late = Ledger(records=list(made.records), minutes_between=1, step_minutes=120, first_id=20_000)
    late.append(2)
    assert codes(check(late.records)) == {"after_close"}


def test_a_restore_of_a_restore_verifies() -> None:
    """Going back behind an earlier fork loses that fork too; copies of all three lines verify together."""
    backup = before()
    first = after(backup)
    again = Ledger(records=list(backup.records), minutes_between=1, step_minutes=180, first_id=30_000)
    again.append(6, "audit.restore")
    again.checkpoint(6, closed=[1, 2], number=2 * FORK)
    again.checkpoint(6)
    gone = lost(backup)
    report = check([*again.records, *first.records[len(backup.records) :], *gone])
    assert (report.verdict, report.findings) == ("intact", ())
    assert report.lost == len(gone) + len(first.records) - len(backup.records)


def test_a_ledger_that_lost_its_first_checkpoint_verifies() -> None:
    """A backup of before any checkpoint has nothing that the fork could follow on."""
    backup = Ledger(minutes_between=1)
    backup.append(1)
    ahead = Ledger(records=list(backup.records), minutes_between=1)
    ahead.append(1)
    ahead.checkpoint(1)
    restored = Ledger(records=list(backup.records), minutes_between=1, step_minutes=60, first_id=10_000)
    restored.append(4, "audit.restore")
    restored.checkpoint(4, closed=[1], number=FORK)
    restored.checkpoint(4)
    report = check([*restored.records, *ahead.records[len(backup.records) :]])
    assert (report.verdict, report.findings, report.lost) == ("intact", (), 2)

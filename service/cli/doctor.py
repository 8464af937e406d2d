"""`auditrace doctor`: look over settings, files and ledger, and say what to do."""

import argparse
import os
from collections.abc import Sequence

import httpx

from service.bootstrap.database import Database
from service.bootstrap.examined import EVERYTHING, LISTENING, Check, CheckResult, Subject, carry_out, examine
from service.cli.output import print_json, print_line, print_table
from service.config import Settings, examine_settings
from service.errors import SettingsError, TryLaterError
from service.keyfiles import SigningKeys, deployment_secret
from service.ports import Discrepancy
from service.private_files import read_private_file, require_own_folder
from service.secrets import DeploymentSecret


def add_to(parser: argparse.ArgumentParser) -> None:
    """Add what the command takes."""
    parser.description = (
        "Look over settings, files and ledger. Exit status: 0 all right, 1 something is wrong, 2 something could not "
        "be looked at."
    )
    parser.add_argument(
        "--ledger", action="store_true", help="also reconcile the whole database: takes as long as verifying it"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(command=_doctor)


def _doctor(arguments: argparse.Namespace) -> int:
    subject, of_start = examine(examine_settings(), EVERYTHING, as_it_lies=True)
    rows = {one.check: one for one in of_start}
    if rows[LISTENING].status != "ok" and _is_answered(subject.settings):
        rows[LISTENING] = CheckResult(LISTENING, "ok", ("an auditrace answers there",))
    for name, check in _FURTHER:
        # What is wrong already is not looked at further.
        if name not in rows or rows[name].status == "ok":
            rows[name] = carry_out(name, check, subject)
    found: list[Discrepancy] = []
    if arguments.ledger:
        rows["ledger"] = carry_out("ledger", lambda subject: _reconciled(subject, found), subject)
    outcomes = list(rows.values())
    if arguments.json:
        shown = [{"check": one.check, "status": one.status, "detail": "; ".join(one.details)} for one in outcomes]
        print_json({"checks": shown, "ledger": found if arguments.ledger else None})
    else:
        lines = [(one, detail) for one in outcomes for detail in one.details]
        print_table(("CHECK", "", "DETAIL"), [(one.check, _SHOWN[one.status], detail) for one, detail in lines])
        for one in found:
            print_line(f"{one.check}: {one.place}: {one.detail}")
    statuses = {one.status for one in outcomes}
    if "wrong" in statuses:
        return 1
    return 2 if "unknown" in statuses else 0


def _signing_key(subject: Subject) -> str:
    settings = subject.settings
    keys = SigningKeys(settings.signing_key, settings.signing_key_passphrase)
    require_own_folder(keys.path)
    ledger = subject.ledger
    if ledger is None:
        return f"the first start makes {keys.path}"
    signer = keys.open(may_create=False)
    registered = ledger.keys(_secret(subject))
    if registered and keys.find(registered[-1].fingerprint) is None:
        raise SettingsError(
            [f"checkpoints are signed with {registered[-1].fingerprint}, and {keys.path} is {signer.fingerprint}"]
        )
    if keys.pending.exists():
        return f"{keys.path}; {keys.pending} is of a rotation that was cut short: the next start takes care of it"
    return f"{keys.path} can be read by its owner only, and signs"


def _ledger_secret(subject: Subject) -> str:
    path = subject.settings.ledger_secret
    require_own_folder(path)
    if subject.ledger is None:
        return f"the first start makes {path}"
    return f"{path} can be read by its owner only, and is that of the database"


def _admin_key(subject: Subject) -> str:
    path = subject.settings.admin_key
    if not os.path.lexists(path):
        made = "the first start makes it" if subject.is_empty else "as it should be once its key was put elsewhere"
        return f"{path} is not there: {made}"
    read_private_file(path, "first administrator's key")
    return f"{path} can be read by its owner only"


def _checkpoints(subject: Subject) -> str:
    ledger = _ledger(subject)
    if ledger is None:
        return "none is written before the first start"
    last, refused = ledger.checkpoints_seen()
    if refused:
        named = "; ".join(f"stream {one.stream_id}: {one.reason}" for one in refused)
        raise SettingsError([f"no checkpoint signs over {named}"])
    return "none is written yet" if last is None else f"the last one is number {last.number}"


def _outbox(subject: Subject) -> str:
    ledger = _ledger(subject)
    if ledger is None:
        return "nothing was committed yet"
    reads = ledger.reads()
    try:
        state = reads.outbox()
    finally:
        reads.close()
    if state.parked:
        to_do = "`auditrace doctor --ledger` says why, `auditrace relay --retry-parked` sends them again"
        raise SettingsError([f"{state.parked} records are parked: {to_do}"])
    return f"{state.depth} records wait for delivery, none is parked"


def _durability(subject: Subject) -> str:
    found = _database(subject).durability(needs_standby=subject.settings.needs_standby)
    if found.problems:
        raise SettingsError(found.problems)
    return found.promise


def _database(subject: Subject) -> Database:
    if subject.database is None:
        raise TryLaterError("not looked at, because of the database")
    return subject.database


def _ledger(subject: Subject) -> Database | None:
    _database(subject)
    return subject.ledger


def _reconciled(subject: Subject, found: list[Discrepancy]) -> str:
    try:
        database = _database(subject)
        database.require()
        if subject.is_empty:
            raise TryLaterError(f"there is no ledger in {database.place} yet: the first start makes one")
        found.extend(database.discrepancies(_secret(subject)))
    except SettingsError as error:
        # Not a finding about the ledger: it was not looked at.
        raise TryLaterError("; ".join(error.problems)) from error
    if found:
        raise SettingsError([f"{len(found)} {'contradiction' if len(found) == 1 else 'contradictions'}, listed below"])
    return "everything in the database agrees"


def _secret(subject: Subject) -> DeploymentSecret:
    return deployment_secret(subject.settings.ledger_secret, may_create=False)


def _is_answered(settings: Settings) -> bool:
    """Tell whether an auditrace answers where this one would listen: then the address is in use, and rightly so."""
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    try:
        # With a transport of its own the client asks no proxy.
        with httpx.Client(transport=httpx.HTTPTransport(), timeout=_ANSWER_S) as client:
            answer: object = client.get(f"http://{host}:{settings.port}/health/live").json()
    except (httpx.HTTPError, httpx.InvalidURL, ValueError):
        return False
    return answer == {"status": "live", "checks": {}}


_FURTHER: Sequence[tuple[str, Check]] = (
    ("signing key", _signing_key),
    ("ledger secret", _ledger_secret),
    ("admin key", _admin_key),
    ("checkpoints", _checkpoints),
    ("durability", _durability),
    ("outbox", _outbox),
)
"""What a start does not ask for, and an operator should know."""

_ANSWER_S = 5.0
_SHOWN = {"ok": "ok", "wrong": "WRONG", "unknown": "UNKNOWN"}

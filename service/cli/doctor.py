"""`auditrace doctor`: look over settings, files and ledger, and say what to do."""

import argparse
from collections.abc import Callable, Sequence
from typing import Literal, TypeAlias

import msgspec

from service.bootstrap.database import Database
from service.bootstrap.databases import database_of
from service.cli.output import print_json, print_line, print_table
from service.config import Settings, read_settings
from service.errors import AuditraceError, SettingsError, TryLaterError
from service.jobs.templates import load_templates
from service.keyfiles import SigningKeys, deployment_secret, read_private_file, require_own_folder
from service.ports import Discrepancy
from service.secrets import DeploymentSecret
from telemetry.errors import TelemetryError

Check: TypeAlias = Callable[[Settings], str]
"""Returns what is right, in a few words.

Raises:
    SettingsError: what is wrong, and what to do.
    TryLaterError: it could not be looked at.
"""


class Outcome(msgspec.Struct, frozen=True):
    """What came of one check; `unknown` is one that could not be carried out."""

    check: str
    status: Literal["ok", "wrong", "unknown"]
    detail: str


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
    settings = read_settings()
    outcomes = [_carried_out(name, check, settings) for name, check in CHECKS]
    found: list[Discrepancy] = []
    if arguments.ledger:
        outcomes.append(_carried_out("ledger", lambda settings: _reconciled(settings, found), settings))
    if arguments.json:
        print_json({"checks": outcomes, "ledger": found if arguments.ledger else None})
    else:
        print_table(("CHECK", "", "DETAIL"), [(one.check, _SHOWN[one.status], one.detail) for one in outcomes])
        for one in found:
            print_line(f"{one.check}: {one.place}: {one.detail}")
    statuses = {one.status for one in outcomes}
    if "wrong" in statuses:
        return 1
    return 2 if "unknown" in statuses else 0


def _carried_out(name: str, check: Check, settings: Settings) -> Outcome:
    try:
        return Outcome(name, "ok", check(settings))
    except SettingsError as error:
        return Outcome(name, "wrong", "; ".join(error.problems))
    except TryLaterError as error:
        return Outcome(name, "unknown", error.detail)
    except (AuditraceError, TelemetryError) as error:
        return Outcome(name, "wrong", str(error))


def _ledger(settings: Settings) -> Database | None:
    """Return the database once it holds a ledger."""
    database = database_of(settings.database, as_it_lies=True)
    return None if database.is_empty() else database


def _templates(settings: Settings) -> str:
    return f"{len(load_templates(settings.templates).names())} templates in {settings.templates}"


def _signing_key(settings: Settings) -> str:
    keys = SigningKeys(settings.signing_key, settings.signing_key_passphrase)
    require_own_folder(keys.path)
    ledger = _ledger(settings)
    if ledger is None and not keys.path.exists():
        return f"the first start makes {keys.path}"
    signer = keys.open(may_create=False)
    registered = () if ledger is None else ledger.keys(_secret(settings))
    if registered and keys.find(registered[-1].fingerprint) is None:
        raise SettingsError(
            [f"checkpoints are signed with {registered[-1].fingerprint}, and {keys.path} is {signer.fingerprint}"]
        )
    if keys.pending.exists():
        return f"{keys.path}; {keys.pending} is of a rotation that was cut short: the next start takes care of it"
    return f"{keys.path} can be read by its owner only, and signs"


def _ledger_secret(settings: Settings) -> str:
    require_own_folder(settings.ledger_secret)
    ledger = _ledger(settings)
    if ledger is None and not settings.ledger_secret.exists():
        return f"the first start makes {settings.ledger_secret}"
    secret = _secret(settings)
    if ledger is not None:
        ledger.keys(secret)
    return f"{settings.ledger_secret} can be read by its owner only, and is that of the database"


def _admin_key(settings: Settings) -> str:
    if not settings.admin_key.exists():
        return f"{settings.admin_key} is not there, which is as it should be once its key was put elsewhere"
    read_private_file(settings.admin_key, "first administrator's key")
    return f"{settings.admin_key} can be read by its owner only"


def _checkpoints(settings: Settings) -> str:
    ledger = _ledger(settings)
    if ledger is None:
        return "none is written before the first start"
    last, refused = ledger.checkpoints_seen()
    if refused:
        named = "; ".join(f"stream {one.stream_id}: {one.reason}" for one in refused)
        raise SettingsError([f"no checkpoint signs over {named}"])
    return "none is written yet" if last is None else f"the last one is number {last.number}"


def _outbox(settings: Settings) -> str:
    ledger = _ledger(settings)
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


def _durability(settings: Settings) -> str:
    found = database_of(settings.database).durability(needs_standby=settings.needs_standby)
    if found.problems:
        raise SettingsError(found.problems)
    return found.promise


def _delivery(settings: Settings) -> str:
    return settings.audit_endpoint or f"embedded archive {settings.archive}"


def _reconciled(settings: Settings, found: list[Discrepancy]) -> str:
    try:
        database = database_of(settings.database, as_it_lies=True)
        database.require()
        found.extend(database.discrepancies(_secret(settings)))
    except SettingsError as error:
        # Not a finding about the ledger: it was not looked at.
        raise TryLaterError("; ".join(error.problems)) from error
    if found:
        raise SettingsError([f"{len(found)} {'contradiction' if len(found) == 1 else 'contradictions'}, listed below"])
    return "everything in the database agrees"


def _secret(settings: Settings) -> DeploymentSecret:
    return deployment_secret(settings.ledger_secret, may_create=False)


CHECKS: Sequence[tuple[str, Check]] = (
    ("templates", _templates),
    ("signing key", _signing_key),
    ("ledger secret", _ledger_secret),
    ("admin key", _admin_key),
    ("checkpoints", _checkpoints),
    ("durability", _durability),
    ("outbox", _outbox),
    ("delivery", _delivery),
)
_SHOWN = {"ok": "ok", "wrong": "WRONG", "unknown": "UNKNOWN"}

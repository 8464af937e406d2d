"""`auditrace doctor`: check settings, files and ledger, and say how to repair them."""

import argparse
import os
from collections.abc import Sequence
from contextlib import closing

import httpx

from service.bootstrap.database import Database
from service.bootstrap.examined import EVERYTHING, LISTENING, WEBHOOKS, Check, CheckResult, Subject, carry_out, examine
from service.bootstrap.webhooks import load_webhooks
from service.cli.output import print_answer, table
from service.config import Settings, examine_settings
from service.errors import SettingsError, TryLaterError
from service.keyfiles import SigningKeys, deployment_secret
from service.ports import Discrepancy
from service.private_files import read_private_file
from service.secrets import DeploymentSecret
from telemetry.urls import hidden


def add_to(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    parser.description = (
        "Check settings, files and ledger. Exit status: 0 all right, 1 something is wrong, 2 something could not be "
        "checked."
    )
    parser.add_argument(
        "--ledger", action="store_true", help="also check the whole database; this takes as long as `auditrace verify`"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(command=_doctor)


def _doctor(arguments: argparse.Namespace) -> int:
    subject, of_start = examine(examine_settings(), EVERYTHING, as_it_lies=True)
    results = {one.check: one for one in of_start}
    if results[LISTENING].status != "ok" and _is_answered(subject.settings):
        results[LISTENING] = CheckResult(LISTENING, "ok", ("an auditrace answers there",))
    for name, check in _FURTHER:
        # Skip the deeper check when the check of the same name has already failed.
        if name not in results or results[name].status == "ok":
            results[name] = carry_out(name, check, subject)
    found: list[Discrepancy] = []
    if arguments.ledger:
        results["ledger"] = carry_out("ledger", lambda subject: _reconciled(subject, found), subject)
    outcomes = list(results.values())
    shown = [{"check": one.check, "status": one.status, "detail": hidden("; ".join(one.details))} for one in outcomes]
    rows = [(one.check, _SHOWN[one.status], hidden(detail)) for one in outcomes for detail in one.details]
    discrepancies = [f"{one.check}: {one.place}: {one.detail}" for one in found]
    document = {"checks": shown, "ledger": found if arguments.ledger else None}
    print_answer(arguments, document, [*table(("CHECK", "", "DETAIL"), rows), *discrepancies])
    statuses = {one.status for one in outcomes}
    if "wrong" in statuses:
        return 1
    return 2 if "unknown" in statuses else 0


def _signing_key(subject: Subject) -> str:
    settings = subject.settings
    keys = SigningKeys(settings.signing_key, settings.signing_key_passphrase)
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
        return (
            f"{keys.path}; {keys.pending} is of an interrupted rotation; the next start finishes it if it was committed"
        )
    return f"{keys.path} can be read by its owner only, and signs"


def _ledger_secret(subject: Subject) -> str:
    path = subject.settings.ledger_secret
    if subject.ledger is None:
        return f"the first start makes {path}"
    return f"{path} can be read by its owner only, and is that of the database"


def _admin_key(subject: Subject) -> str:
    path = subject.settings.admin_key
    if not os.path.lexists(path):
        made = "the first start makes it" if subject.is_empty else "this is right if you keep its key elsewhere"
        return f"{path} is not there: {made}"
    read_private_file(path, "first administrator's key", named_by="AUDITRACE_ADMIN_KEY")
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
    with closing(ledger.reads()) as reads:
        state = reads.outbox()
    if state.parked:
        to_do = "`auditrace doctor --ledger` says why, `auditrace relay --retry-parked` sends them again"
        raise SettingsError([f"{state.parked} records are parked: {to_do}"])
    return f"{state.depth} records wait for delivery, none is parked"


def _webhooks(subject: Subject) -> str:
    endpoints = [endpoint.name for endpoint in load_webhooks(subject.settings.webhooks)]
    ledger = _ledger(subject)
    if not endpoints:
        return "none are declared"
    if ledger is None:
        return f"{len(endpoints)} endpoints are declared; the first start begins to deliver"
    states = ledger.webhook_states(endpoints)
    failing = [
        f"{name} holds {state.records} records back: {state.error}"
        for name, state in states.items()
        if state is not None and state.error is not None and state.records
    ]
    if failing:
        raise SettingsError(failing)
    return ", ".join(
        f"{name} has no start yet" if state is None else f"{name} is {state.records} records behind"
        for name, state in states.items()
    )


def _durability(subject: Subject) -> str:
    found = _database(subject).durability(needs_standby=subject.settings.needs_standby)
    if found.problems:
        raise SettingsError(found.problems)
    return found.promise


def _rights(subject: Subject) -> str:
    return _database(subject).rights()


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
        # The ledger was not checked, so this is not a discrepancy in it.
        raise TryLaterError("; ".join(error.problems)) from error
    if found:
        raise SettingsError([f"{len(found)} {'contradiction' if len(found) == 1 else 'contradictions'}, listed below"])
    return "everything in the database agrees"


def _secret(subject: Subject) -> DeploymentSecret:
    return deployment_secret(subject.settings.ledger_secret, may_create=False)


def _is_answered(settings: Settings) -> bool:
    """Return whether an auditrace already listens on this address; then it is right that the address is in use."""
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    try:
        # An explicit transport keeps httpx from using a proxy.
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
    ("rights", _rights),
    ("durability", _durability),
    ("outbox", _outbox),
    (WEBHOOKS, _webhooks),
)
"""Checks that a start does not make, or not in this depth."""

_ANSWER_S = 5.0
_SHOWN = {"ok": "ok", "wrong": "WRONG", "unknown": "UNKNOWN"}

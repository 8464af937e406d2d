"""What settings name, read before anything is made, so that all that is wrong is said at once."""

from collections.abc import Callable
from typing import TypeVar

import msgspec

from service.bootstrap.database import Database
from service.bootstrap.databases import database_of
from service.config import Settings
from service.errors import SettingsError
from service.jobs.templates import Templates, load_templates
from service.keyfiles import SigningKeys, deployment_secret
from service.secrets import DeploymentSecret
from telemetry.audit.signer import Signer
from telemetry.delivery import sink_settings
from telemetry.errors import TelemetrySettingsError
from telemetry.otel_settings import read_otel_settings

T = TypeVar("T")


class Checked(msgspec.Struct, frozen=True):
    """What settings name, read and found right."""

    database: Database
    templates: Templates
    keys: SigningKeys
    signer: Signer
    secret: DeploymentSecret


def checked(settings: Settings) -> Checked:
    """Read everything that settings name; only then make the keys of a database that is new.

    Raises:
        SettingsError: listing what is wrong.
        TryLaterError: the database cannot be asked now.
    """
    problems: list[str] = []
    database = _attempt(lambda: _prepared(settings), problems)
    templates = _attempt(lambda: load_templates(settings.templates), problems)
    _attempt(lambda: read_otel_settings(settings.environment), problems)
    _attempt(lambda: sink_settings(settings.environment, settings.audit_endpoint), problems)
    if problems or database is None or templates is None:
        raise SettingsError(problems)
    is_new = database.is_empty()
    keys = SigningKeys(settings.signing_key, settings.signing_key_passphrase)
    signer = _attempt(lambda: keys.open(may_create=is_new), problems)
    secret = _attempt(lambda: deployment_secret(settings.ledger_secret, may_create=is_new), problems)
    if signer is None or secret is None:
        raise SettingsError(problems)
    registered = () if is_new else database.keys(secret)
    if registered:
        # A rotation whose process died is finished first; without the key that signs now, this process never signs.
        keys.settle(registered[-1].fingerprint)
        signer = keys.find(registered[-1].fingerprint) or signer
    return Checked(database, templates, keys, signer, secret)


def _prepared(settings: Settings) -> Database:
    database = database_of(settings.database)
    database.prepare(settings.lanes)
    return database


def _attempt(read: Callable[[], T], problems: list[str]) -> T | None:
    try:
        return read()
    except SettingsError as error:
        problems.extend(error.problems)
    except TelemetrySettingsError as error:
        problems.append(str(error))
    return None

"""Reads what the settings of a node name, and refuses all that is wrong, before it makes keys for a new database."""

from collections.abc import Sequence

import msgspec

from service.bootstrap.database import Database
from service.bootstrap.examined import examine
from service.bootstrap.templates import load_templates
from service.config import Settings
from service.errors import SettingsError, TryLaterError
from service.jobs.templates import Templates
from service.keyfiles import SigningKeys, deployment_secret
from service.secrets import DeploymentSecret
from telemetry.audit.signer import Signer


class Checked(msgspec.Struct, frozen=True):
    """What the settings name, read and checked."""

    database: Database
    templates: Templates
    keys: SigningKeys
    signer: Signer
    secret: DeploymentSecret


def checked(settings: Settings, checks: Sequence[str]) -> Checked:
    """Read everything that the settings name, and after that make the keys of a new database.

    Args:
        settings: the settings of the process.
        checks: names of checks of `service.bootstrap.examined`.

    Raises:
        SettingsError: with a list of all that is wrong; nothing was made.
        TryLaterError: the database cannot be read now; nothing was made.
    """
    database, is_new = found_right(settings, checks)
    database.prepare()
    keys = SigningKeys(settings.signing_key, settings.signing_key_passphrase)
    signer = keys.open(may_create=is_new)
    secret = deployment_secret(settings.ledger_secret, may_create=is_new)
    registered = () if is_new else database.keys(secret)
    if registered:
        # First finish a rotation whose process died. Without the key that signs now, this process does not sign.
        keys.settle(registered[-1].fingerprint)
        signer = keys.find(registered[-1].fingerprint) or signer
    return Checked(database, load_templates(settings.templates), keys, signer, secret)


def found_right(settings: Settings, checks: Sequence[str]) -> tuple[Database, bool]:
    """Carry out the checks; return the database, and whether it is empty.

    Raises:
        SettingsError: with a list of all that is wrong.
        TryLaterError: nothing is wrong, but the database cannot be read now.
    """
    subject, outcomes = examine(settings, checks)
    problems = [detail for one in outcomes if one.status != "ok" for detail in one.details]
    if problems and all(one.is_later for one in outcomes if one.status != "ok"):
        raise TryLaterError("; ".join(problems))
    if problems or subject.database is None:
        # Each problem once: several checks may find the same one.
        raise SettingsError(list(dict.fromkeys(problems)))
    return subject.database, subject.is_empty

"""What settings name, read for a node: refused with all that is wrong, before the keys of a new database are made."""

from collections.abc import Sequence

import msgspec

from service.bootstrap.database import Database
from service.bootstrap.examined import examine
from service.config import Settings
from service.errors import SettingsError, TryLaterError
from service.jobs.templates import Templates, load_templates
from service.keyfiles import SigningKeys, deployment_secret
from service.secrets import DeploymentSecret
from telemetry.audit.signer import Signer


class Checked(msgspec.Struct, frozen=True):
    """What settings name, read and found right."""

    database: Database
    templates: Templates
    keys: SigningKeys
    signer: Signer
    secret: DeploymentSecret


def checked(settings: Settings, checks: Sequence[str]) -> Checked:
    """Read everything that settings name; only then make the keys of a database that is new.

    Args:
        settings: those of the process.
        checks: the names of what is looked at, of `service.bootstrap.examined`.

    Raises:
        SettingsError: listing all that is wrong; nothing was made.
        TryLaterError: the database cannot be asked now; nothing was made.
    """
    database, is_new = found_right(settings, checks)
    database.prepare()
    keys = SigningKeys(settings.signing_key, settings.signing_key_passphrase)
    signer = keys.open(may_create=is_new)
    secret = deployment_secret(settings.ledger_secret, may_create=is_new)
    registered = () if is_new else database.keys(secret)
    if registered:
        # A rotation whose process died is finished first; without the key that signs now, this process never signs.
        keys.settle(registered[-1].fingerprint)
        signer = keys.find(registered[-1].fingerprint) or signer
    return Checked(database, load_templates(settings.templates), keys, signer, secret)


def found_right(settings: Settings, checks: Sequence[str]) -> tuple[Database, bool]:
    """Return the database, and whether it is empty, once all the checks found nothing wrong.

    Raises:
        SettingsError: listing all that is wrong.
        TryLaterError: nothing is, but the database cannot be asked now.
    """
    subject, outcomes = examine(settings, checks)
    problems = [detail for one in outcomes if one.status != "ok" for detail in one.details]
    if problems and all(one.is_later for one in outcomes if one.status != "ok"):
        raise TryLaterError("; ".join(problems))
    if problems or subject.database is None:
        # Once each: one variable may be wrong for several of them.
        raise SettingsError(list(dict.fromkeys(problems)))
    return subject.database, subject.is_empty

"""The checks of everything that settings name, before anything is made, for a start and for `doctor`.

There is one list for both, so that `doctor` shows everything that prevents a start.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final, Literal, TypeAlias

import msgspec

from service.bootstrap.database import Database
from service.bootstrap.databases import database_of
from service.bootstrap.isolating import confinement_of, described
from service.bootstrap.listening import examine_listening
from service.bootstrap.templates import load_templates
from service.bootstrap.webhooks import load_webhooks
from service.config import Settings
from service.errors import AuditraceError, SettingsError, TryLaterError
from service.keyfiles import SigningKeys, examine_secret
from service.private_files import require_file_can_be_made, require_own_folder
from service.variables import service_links
from telemetry.delivery import open_sink
from telemetry.delivery.archive import archived_in, examine_archive
from telemetry.delivery.settings import sink_settings
from telemetry.errors import TelemetryError, TelemetrySettingsError
from telemetry.files import kind_of_no_file, why_no_file_in
from telemetry.otel_settings import read_otel_settings
from telemetry.urls import shown

CheckStatus: TypeAlias = Literal["ok", "wrong", "unknown"]

SETTINGS: Final = "settings"
LISTENING: Final = "listening"
DATABASE: Final = "database"
DELIVERY: Final = "delivery"
WEBHOOKS: Final = "webhooks"


class CheckResult(msgspec.Struct, frozen=True):
    """The result of one check; `unknown` means that it could not be carried out."""

    check: str
    status: CheckStatus
    details: tuple[str, ...]
    is_later: bool = False
    """Whether the check may succeed later, without any change of settings."""


class Subject:
    """What is checked: the settings, and the database, as soon as it is known whether that is empty."""

    def __init__(self, settings: Settings, *, as_it_lies: bool) -> None:
        self.settings = settings
        self.as_it_lies = as_it_lies
        self.database: Database | None = None
        self.is_empty = False
        """Whether the next start makes the keys of the database."""

    def take(self, database: Database) -> None:
        """Remember the database, for the checks that depend on its content."""
        self.is_empty = database.is_empty()
        self.database = database

    @property
    def ledger(self) -> Database | None:
        """The database if it holds a ledger."""
        return None if self.is_empty else self.database


Check: TypeAlias = Callable[[Subject], str]
"""Describes in a few words what was found right.

Raises:
    SettingsError, TelemetrySettingsError: something is wrong; the text says what, and what to do.
    TryLaterError, OSError: the check could not be carried out.
"""


def examine(
    settings: Settings, checks: Sequence[str], *, as_it_lies: bool = False
) -> tuple[Subject, Sequence[CheckResult]]:
    """Carry out all checks of these names, and return what was checked, with the result of each check.

    Nothing is made or changed; with `as_it_lies`, SQLite also makes no file beside its database.
    """
    subject = Subject(settings, as_it_lies=as_it_lies)
    return subject, [carry_out(name, _CHECKS[name], subject) for name in checks]


def carry_out(name: str, check: Check, subject: Subject) -> CheckResult:
    """Carry out a check and return its result, also if it raises."""
    try:
        return CheckResult(name, "ok", (check(subject),))
    except (SettingsError, TelemetrySettingsError) as error:
        return CheckResult(name, "unknown" if error.is_unread else "wrong", tuple(dict.fromkeys(error.problems)))
    except TryLaterError as error:
        return CheckResult(name, "unknown", (error.detail,), is_later=True)
    except (AuditraceError, TelemetryError) as error:
        return CheckResult(name, "wrong", (str(error),))
    except OSError as error:
        what = error.filename or "the working folder"
        return CheckResult(name, "unknown", (f"{what} cannot be read: {error.strerror}",))


def _settings(subject: Subject) -> str:
    settings = subject.settings
    if settings.problems:
        raise SettingsError(settings.problems)
    links = service_links(settings.environment)
    return f"as they should be; ignored as links of Kubernetes: {', '.join(links)}" if links else "as they should be"


def _listening(subject: Subject) -> str:
    settings = subject.settings
    examine_listening(settings)
    return f"{settings.host}:{settings.port} is free"


def _database(subject: Subject) -> str:
    settings = subject.settings
    database = database_of(settings.database, as_it_lies=subject.as_it_lies)
    try:
        said = database.examine(settings.lanes)
    except SettingsError:
        # If the database can be read, the next checks can still use whether it is empty.
        with suppress(AuditraceError):
            subject.take(database)
        raise
    subject.take(database)
    return said


def _templates(subject: Subject) -> str:
    path = subject.settings.templates
    return f"{len(load_templates(path))} templates in {path}"


def _telemetry(subject: Subject) -> str:
    found = read_otel_settings(subject.settings.environment)
    signals = {"traces": found.traces, "metrics": found.metrics, "logs": found.logs}
    parts = [
        f"{name} {' and '.join(sorted(signal.exporters)) or 'nowhere'}{_through(signal.proxy)}"
        for name, signal in signals.items()
    ]
    return ", ".join(parts)


def _delivery(subject: Subject) -> str:
    settings = subject.settings
    sink = sink_settings(settings.environment, settings.audit_endpoint, settings.audit_token_file)
    if sink is None:
        examine_archive(settings.archive)
        _require_own_archive(subject)
        return f"embedded archive {settings.archive}"
    # This reads certificates, keys and the token, and sends nothing.
    open_sink(sink, lambda: 0).close()
    return f"{shown(sink.endpoint)}{_through(sink.proxy)}"


def _webhooks(subject: Subject) -> str:
    path = subject.settings.webhooks
    return "none are declared" if path is None else f"{len(load_webhooks(path))} endpoints in {path}"


def _require_own_archive(subject: Subject) -> None:
    """Raise if the database is empty but the archive has records: two ledgers in one archive never verify."""
    held = archived_in(subject.settings.archive) if subject.is_empty else None
    # Read again, because another first start may have begun the ledger and delivered records meanwhile.
    if held is not None and subject.database is not None and subject.database.is_empty():
        to_do = "name that one (AUDITRACE_DATABASE), or another archive (AUDITRACE_AUDIT_ARCHIVE)"
        raise SettingsError([f"the database is empty, and {held} holds records of another one: {to_do}"])


def _signing_key(subject: Subject) -> str:
    settings = subject.settings
    keys = SigningKeys(settings.signing_key, settings.signing_key_passphrase)
    require_own_folder(keys.path)
    if subject.database is None and not keys.path.exists():
        return _not_there(keys.path)
    if keys.examine(may_create=subject.is_empty) is None:
        return f"the first start makes {keys.path}"
    return f"{keys.path} can be read by its owner only"


def _ledger_secret(subject: Subject) -> str:
    path = subject.settings.ledger_secret
    require_own_folder(path)
    if subject.database is None and not path.exists():
        return _not_there(path)
    secret = examine_secret(path, may_create=subject.is_empty)
    if secret is None:
        return f"the first start makes {path}"
    if subject.ledger is None:
        return f"{path} can be read by its owner only"
    subject.ledger.keys(secret)
    return f"{path} can be read by its owner only, and is that of the database"


def _admin_key(subject: Subject) -> str:
    path = subject.settings.admin_key
    if not subject.is_empty:
        return "made by the first start"
    require_own_folder(path)
    if os.path.lexists(path):
        kind = "it is a link" if path.is_symlink() else kind_of_no_file(path.stat().st_mode)
        if kind is not None:
            kind = "it is a folder" if path.is_dir() else kind
            raise SettingsError([f"{path}: {kind}: AUDITRACE_ADMIN_KEY names a file"])
    require_file_can_be_made(path)
    return f"the first start makes {path}"


def _tokens(subject: Subject) -> str:
    settings = subject.settings
    if settings.jwt is None:
        return "none are accepted but API keys"
    # Imported here, because short commands do not need the libraries of the API.
    from service.api.jwks import fetch_from

    fetch_from(settings.jwt.jwks, settings.environment)
    return f"those of {settings.jwt.issuer} are accepted"


def _work_folder(subject: Subject) -> str:
    folder = subject.settings.work_folder
    if folder is None:
        return "that of the system for temporary files"
    why = why_no_file_in(folder)
    if why is not None:
        raise SettingsError([f"AUDITRACE_WORK_FOLDER: runs cannot have their folders in {folder}: {why}"])
    return f"{folder} can be written"


def _isolation(subject: Subject) -> str:
    return described(confinement_of(subject.settings))


def _not_there(path: Path) -> str:
    """Describe a missing key while it is unknown whether the first start makes it."""
    require_file_can_be_made(path)
    return f"{path} is not there, and the database does not tell whether it should be"


def _through(proxy: str | None) -> str:
    return "" if proxy is None else f" through {shown(proxy)}"


# The check of the database comes before the checks that depend on its content.
_CHECKS: Final[Mapping[str, Check]] = {
    SETTINGS: _settings,
    LISTENING: _listening,
    DATABASE: _database,
    "templates": _templates,
    "telemetry": _telemetry,
    DELIVERY: _delivery,
    WEBHOOKS: _webhooks,
    "signing key": _signing_key,
    "ledger secret": _ledger_secret,
    "admin key": _admin_key,
    "tokens": _tokens,
    "work folder": _work_folder,
    "isolation": _isolation,
}

EVERYTHING: Final = tuple(_CHECKS)
RELAY: Final = (SETTINGS, DATABASE, "telemetry", DELIVERY, WEBHOOKS)
RECORDED_RELAY: Final = (*RELAY, "ledger secret")
"""Of a relay whose configuration is put on record."""
COMMAND: Final = (SETTINGS, DATABASE, "templates", "telemetry", "signing key", "ledger secret")
WORKER: Final = (*COMMAND, "work folder", "isolation")
API: Final = (*COMMAND, "admin key", "tokens")
"""Without the check of the address, because the process already listens on it."""

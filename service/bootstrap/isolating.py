"""What the settings say about the isolation of runs, decided, and the protection of a process of the service."""

from pathlib import Path
from typing import Final

from service.config import Settings
from service.execution.command import control_process
from service.execution.confine import PR_SET_DUMPABLE
from service.execution.isolation import OFF, Confinement
from service.execution.probing import decide

_SQLITE: Final = "sqlite:///"
_SECRET_FILES: Final = (
    "PGPASSFILE",
    "PGSSLKEY",
    *(f"OTEL_EXPORTER_OTLP_{signal}CLIENT_KEY" for signal in ("", "LOGS_", "TRACES_", "METRICS_")),
)


def confinement_of(settings: Settings) -> Confinement:
    """Return what keeps the runs of a worker with these settings from the service.

    Raises:
        SettingsError: the sandbox is required, and does not work here.
    """
    return decide(settings.isolation, settings.work_folder, _hidden(settings))


def described(confinement: Confinement) -> str:
    """Return what is in force in a few words, with what is missing and how to get it."""
    if not confinement.is_guarded:
        return "off" if confinement.missing is None else f"none: {confinement.missing}"
    return f"{confinement.isolation}: {confinement.missing or 'every run has a sandbox'}"


def protect(settings: Settings) -> None:
    """Keep processes of the same user, which runs may be, from the memory and the environment of this process."""
    if settings.isolation != OFF:
        control_process(PR_SET_DUMPABLE, 0)


def _hidden(settings: Settings) -> tuple[Path, ...]:
    """Return the folders of database, archive and keys, the templates, and the other files with secrets."""
    files = [settings.archive, settings.signing_key, settings.ledger_secret, settings.admin_key]
    if settings.database.startswith(_SQLITE):
        files.append(Path(settings.database.removeprefix(_SQLITE)))
    single = (settings.audit_token_file, settings.signing_key_passphrase, settings.webhooks, settings.templates)
    named = (Path(settings.environment[name]) for name in _SECRET_FILES if settings.environment.get(name))
    return tuple(
        dict.fromkeys(
            [*named, *(file.resolve().parent for file in files), *(file for file in single if file is not None)]
        )
    )

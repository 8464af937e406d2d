"""Copies a ledger from one kind of database to another."""

from collections.abc import Callable

from service.errors import SettingsError
from service.secrets import DeploymentSecret
from service.store.copying import Copied, CopyStep, copy_ledger
from service.store.sqlite.connection import URL_PREFIX, database_path
from service.store.urls import is_postgres
from telemetry.files import unreadable


def copied(
    source: str, target: str, secret: Callable[[], DeploymentSecret], note: Callable[[CopyStep], object]
) -> Copied:
    """Copy the ledger of one URL into the empty database of another URL.

    Raises:
        SettingsError: it cannot be copied this way; the text says what to do.
        BrokenLedgerError: something is wrong in the source; nothing was copied.
        TryLaterError: one of the two cannot be used now; nothing was copied.
    """
    problems = [
        problem
        for is_right, problem in (
            (source.startswith(URL_PREFIX), f"--from is {source!r}: a ledger is copied from sqlite:///path"),
            (is_postgres(target), "--to does not name a PostgreSQL: a ledger is copied to postgresql://…"),
        )
        if not is_right
    ]
    if problems:
        raise SettingsError(problems)
    path = database_path(source)
    missing = unreadable(path)
    if missing is not None:
        raise SettingsError([f"there is no ledger at {source} ({path.absolute()}): {missing.why}"])
    return copy_ledger(path, target, secret(), note)

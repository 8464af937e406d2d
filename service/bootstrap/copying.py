"""Copies a ledger from one kind of database to another."""

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from service.bootstrap.databases import database_of
from service.bootstrap.ledger_records import LEDGER
from service.bootstrap.recording import recorder
from service.config import Settings
from service.errors import AuditraceError, LedgerUnavailableError, SettingsError
from service.keyfiles import deployment_secret
from service.records import Fact, Invocation
from service.secrets import DeploymentSecret
from service.store.copying import Copied, CopyStep, copy_ledger
from service.store.copying.source import SourceDatabase
from service.store.sqlite.connection import URL_PREFIX, database_path
from service.store.sqlite.untouched import in_use
from service.store.urls import is_postgres
from telemetry import names
from telemetry.audit.record import Result
from telemetry.files import unreadable
from telemetry.urls import shown


def copied_by(
    invocation: Invocation, settings: Settings, source: str, target: str, note: Callable[[CopyStep], object]
) -> Copied:
    """Copy a ledger as `copied` does, and record in both that this person did it.

    The record is committed to the source before, and is copied with everything else. To a source that cannot be
    written it is committed in the target, after the copy. If the copy fails, the source has a second record of that.

    Raises:
        SettingsError, BrokenLedgerError, TryLaterError: as `copied` does, and if it cannot be recorded.
    """
    path = _file_of(source, target)
    from_place, to_place = (database_of(url).place for url in (source, target))

    def record(url: str, result: Result, error: AuditraceError | None = None) -> None:
        fact = Fact(
            event_name=names.EVENT_AUDIT_COPY,
            target=LEDGER,
            result=result,
            changes={"database": {"from": from_place, "to": to_place}},
            reason=None if error is None else str(error),
            error_type=None if error is None else error.error_type,
        )
        with recorder(settings, database_of(url), invocation) as opened:
            opened.record(fact)

    secret = deployment_secret(settings.ledger_secret, may_create=False)
    # Nothing is recorded when it is clear that nothing will be copied.
    if not database_of(target).is_empty():
        raise SettingsError(["the target holds a ledger already: name an empty database"])
    with SourceDatabase(path) as looked_at:
        is_written = looked_at.reading is in_use
    if is_written:
        record(source, Result.SUCCESS)
    try:
        done = copy_ledger(path, target, secret, note)
    except AuditraceError as error:
        # If this cannot be recorded too, the error of the copy counts.
        with suppress(AuditraceError):
            if is_written:
                record(source, Result.ERROR, error)
        raise
    if not is_written:
        try:
            record(target, Result.SUCCESS)
        except AuditraceError as error:
            lacks = f"everything was copied, and {to_place} can be used, but it lacks the record of the copy"
            raise LedgerUnavailableError(f"{lacks}: {error}") from error
    return done


def copied(
    source: str, target: str, secret: Callable[[], DeploymentSecret], note: Callable[[CopyStep], object]
) -> Copied:
    """Copy the ledger of one URL into the empty database of another URL.

    Raises:
        SettingsError: it cannot be copied this way; the text says what to do.
        BrokenLedgerError: something is wrong in the source; nothing was copied.
        TryLaterError: one of the two cannot be used now; nothing was copied.
    """
    return copy_ledger(_file_of(source, target), target, secret(), note)


def _file_of(source: str, target: str) -> Path:
    problems = [
        problem
        for is_right, problem in (
            (source.startswith(URL_PREFIX), f"--from is {shown(source)!r}: a ledger is copied from sqlite:///path"),
            (is_postgres(target), "--to does not name a PostgreSQL: a ledger is copied to postgresql://…"),
        )
        if not is_right
    ]
    if problems:
        raise SettingsError(problems)
    path = database_path(source)
    missing = unreadable(path)
    if missing is not None:
        raise SettingsError([f"there is no ledger at {shown(source)} ({path.absolute()}): {missing.why}"])
    return path

"""Copies a ledger, in one transaction of the target."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Final, Literal, TypeAlias

import msgspec

from service.errors import BrokenLedgerError
from service.ports import Discrepancy
from service.secrets import DeploymentSecret
from service.store.copying.source import SourceDatabase
from service.store.copying.target import TargetDatabase
from service.store.postgres.opening import migrate_database
from service.store.queries import Row
from service.store.sqlite.reconciliation import reconcile

CopyStep: TypeAlias = Literal["look over the source", "copy", "compare", "look over the target", "commit", "done"]

TABLES: Final = (
    *("streams", "envelopes", "records", "cursors", "parked", "jobs", "versions", "runs", "turns", "inputs"),
    *("artifacts", "secrets", "api_keys", "key_secrets", "key_uses", "idempotency_keys"),
    *("signing_keys", "checkpoints", "anchors"),
    *("configurations", "configuration_offers"),
    *("webhook_endpoints", "webhook_cursors"),
    "tenant_storage",
)
"""All tables, in the order of writing: each one comes after the tables that it refers to."""

# Parked records are copied as parked.
_NO_HINDRANCE: Final = frozenset({"parked"})


class Copied(msgspec.Struct, frozen=True):
    """How many rows of each table were copied."""

    rows: Mapping[str, int]


def copy_ledger(
    source: Path, target: str, secret: DeploymentSecret, note: Callable[[CopyStep], object] = lambda _: None
) -> Copied:
    """Copy a whole ledger from a file into an empty PostgreSQL.

    Records, streams with their MACs, checkpoints, anchors and keys keep every byte, so that receipts, archives and
    copies stay valid. Jobs, runs, inputs, artifacts, secrets, API keys, idempotency keys, cursors and parked records
    keep every byte too. Leases are not copied. The file is not changed. If the process is killed at any moment, the
    target is empty or holds everything.

    Every check of `doctor --ledger`, with `verify`, runs on the file before anything is written. The same checks run on
    the target, and each row is compared with the file, before anything is committed.

    Args:
        source: the file; no process may have it open.
        target: `postgresql://…`, with the role that migrates; it is migrated to the newest schema.
        secret: the ledger secret of the deployment.
        note: called before each step, and at the end.

    Raises:
        SettingsError: the source is in use, has another version or another secret, or the target is not empty.
        BrokenLedgerError: something is wrong in the source, or the copy is not what it should be; nothing was copied.
        TryLaterError: one of the two cannot be used now; nothing was copied.
    """
    with SourceDatabase(source) as copied:
        note("look over the source")
        _require_nothing_wrong("the source", reconcile(source, secret, copied.reading))
        migrate_database(target)
        with TargetDatabase(target) as taking:
            note("copy")
            taking.begin(copied.months())
            rows = {table: taking.write(table, copied.rows(table)) for table in TABLES}
            taking.finish()
            note("compare")
            for table in TABLES:
                _require_same(table, copied.rows(table), taking.rows(table))
            note("look over the target")
            _require_nothing_wrong("the copy", taking.discrepancies(secret))
            copied.require_in_place()
            note("commit")
            taking.commit()
    note("done")
    return Copied(rows)


def _require_nothing_wrong(what: str, found: Iterator[Discrepancy]) -> None:
    wrong = [one for one in found if one.check not in _NO_HINDRANCE]
    if wrong:
        first = wrong[0]
        more = f", and {len(wrong) - 1} more" if len(wrong) > 1 else ""
        raise BrokenLedgerError(
            f"nothing was copied: in {what} {first.place} is wrong, {first.detail} ({first.check}){more}: "
            "`auditrace doctor --ledger` lists everything"
        )


def _require_same(table: str, expected: Iterator[Row], found: Iterator[Row]) -> None:
    try:
        if all(one == other for one, other in zip(expected, found, strict=True)):
            return
    except ValueError:
        # One of the two has more rows.
        pass
    raise BrokenLedgerError(f"nothing was copied: {table} came out otherwise than they went in")

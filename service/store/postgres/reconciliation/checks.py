"""The checks of a reconciliation, each one a statement of `queries.sql` or a function here, in one snapshot."""

import hashlib
from collections.abc import Callable, Iterator, Mapping
from typing import Final, TypeAlias

import msgspec
import psycopg
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from psycopg import IsolationLevel

from service.errors import AuditraceError, SettingsError, TryLaterError
from service.ports import Discrepancy
from service.secrets import DeploymentSecret
from service.store.anchors import StoredCheckpoint
from service.store.postgres.connection import Session, connect, place_of, translated
from service.store.postgres.migrate import migrations, schema_version
from service.store.postgres.reconciliation.columns import contradicting
from service.store.postgres.reconciliation.schema import differences
from service.store.postgres.snapshot import records_in
from service.store.postgres.statements import executing
from service.store.queries import Row, load_queries
from service.store.signing_keys import registered_keys
from service.store.survey import survey
from telemetry.audit.verify import verify

SQL: Final[Mapping[str, bytes]] = {
    name: text.encode() for name, text in load_queries("service.store.postgres.reconciliation").items()
}

Wrong: TypeAlias = Iterator[tuple[str, str]]
"""Yields what is wrong: the place, and what should be there and is not."""


class Examined(msgspec.Struct, frozen=True):
    """What is looked at: a database, in a transaction that is one snapshot."""

    session: Session
    url: str
    secret: DeploymentSecret

    def rows(self, name: str, at_once: int = 500) -> Iterator[Row]:
        """Yield the rows of a statement, fetched in parts."""
        with self.session.cursor(f"{name}_examined", binary=True) as cursor:
            cursor.itersize = at_once
            cursor.execute(SQL[name])
            yield from cursor


Check: TypeAlias = Callable[[Examined], Wrong]

_DAMAGED: Final = (psycopg.DataError, psycopg.InternalError)


def reconcile(url: str, secret: DeploymentSecret) -> Iterator[Discrepancy]:
    """Yield everything that is wrong in a database, check by check, each with its place; nothing is changed.

    One snapshot is looked at, so that processes which write meanwhile neither disturb nor are disturbed. A check that
    damage keeps from being carried out is a discrepancy too.

    Raises:
        SettingsError: the database needs a migration, belongs to another ledger secret, or this role may not look.
        TryLaterError: the database cannot be read now.
    """
    session = connect(url, read_only=True, statement_timeout="0", idle_timeout="0")
    try:
        session.isolation_level = IsolationLevel.REPEATABLE_READ
        with translated(), session.transaction():
            yield from reconcile_in(session, url, secret)
    finally:
        session.close()


def reconcile_in(session: Session, url: str, secret: DeploymentSecret) -> Iterator[Discrepancy]:
    """Yield the same of what an open transaction sees, what it wrote itself included."""
    examined = Examined(session, url, secret)
    _require_fit(examined)
    for name, check in CHECKS.items():
        yield from _carried_out(examined, name, check)


def _carried_out(examined: Examined, name: str, check: Check) -> Iterator[Discrepancy]:
    try:
        # A savepoint: what fails here leaves the snapshot to the checks that follow.
        with examined.session.transaction():
            for place, detail in check(examined):
                yield Discrepancy(name, place, detail)
    except _DAMAGED as error:
        yield Discrepancy(name, "database", f"it is damaged, so that this cannot be checked: {_text(error)}")
    except (TryLaterError, SettingsError):
        raise
    except AuditraceError as error:
        yield Discrepancy(name, "database", str(error))


def _require_fit(examined: Examined) -> None:
    if schema_version(examined.session) != len(migrations()):
        raise SettingsError(["the schema of the database is not the one of this version: run auditrace migrate"])
    secret = examined.secret
    belongs = [
        mac == secret.tip_mac(stream_id, number, record_hash)
        for stream_id, number, record_hash, mac in examined.rows("tips")
    ]
    if belongs and not any(belongs):
        raise SettingsError(["the ledger secret is not the one that this database was begun with: restore its file"])


def _stated(name: str) -> Check:
    def check(examined: Examined) -> Wrong:
        yield from examined.rows(name)

    return check


def _integrity(examined: Examined) -> Wrong:
    """Records and their keys are in step; with the extension `amcheck`, indices find every row of their table."""
    yield from examined.rows("keys_of_records")
    session = examined.session
    ((has_amcheck,),) = session.execute(SQL["has_amcheck"]).fetchall()
    for index, number in session.execute(SQL["indices"]).fetchall() if has_amcheck else ():
        try:
            with session.transaction():
                session.execute(SQL["check_index"], {"index": number})
        except _DAMAGED as error:
            yield f"index {index}", _text(error)


def _schema(examined: Examined) -> Wrong:
    yield from differences(examined.session, examined.url)


def _foreign_keys(examined: Examined) -> Wrong:
    for table, parent, statement in examined.session.execute(SQL["references"]).fetchall():
        for (row,) in examined.session.execute(statement.encode()).fetchall():
            yield _orphan(table, parent, row)
    for table, parent, row in examined.rows("references_of_records"):
        yield _orphan(table, parent, row)


def _orphan(table: str, parent: str, row: str) -> tuple[str, str]:
    return f"table {table} row {row}", f"it names a row of {parent} that does not exist"


def _documents(examined: Examined) -> Wrong:
    for job_id, document, expected in examined.rows("last_documents"):
        if hashlib.sha256(document.encode()).hexdigest() != expected:
            yield f"job {job_id}", "its document is not the one of its last version"


def _contents(examined: Examined) -> Wrong:
    for place, size, sha256, payload in examined.rows("contents", at_once=4):
        if (len(payload), hashlib.sha256(payload).hexdigest()) != (size, sha256):
            yield place, "its bytes are not those that were stored"


def _columns(examined: Examined) -> Wrong:
    yield from contradicting(examined.rows("columns_of_records"))


def _macs(examined: Examined) -> Wrong:
    """Tips, anchors and checkpoints were stored by processes that hold the ledger secret."""
    secret = examined.secret
    for stream_id, number, record_hash, mac in examined.rows("tips"):
        if mac != secret.tip_mac(stream_id, number, record_hash):
            yield f"stream {stream_id}", f"its tip {number} was not stored by a lane of this deployment"
    for stream_id, number, record_hash, closed, checkpoint, mac in examined.rows("anchors"):
        if mac != secret.anchor_mac(stream_id, number, record_hash, closed, checkpoint):
            yield f"stream {stream_id}", f"its anchor {number} was not stored by a checkpoint of this deployment"
    for row in examined.rows("checkpoints"):
        stored = StoredCheckpoint(*row)
        if not stored.is_authentic(secret):
            yield f"checkpoint {stored.number}", "it was not stored by a process of this deployment"


def _keys(examined: Examined) -> Wrong:
    """The registered keys are this deployment's, and each checkpoint is signed with the one of its time."""
    keys = registered_keys(executing(examined.session), examined.secret)
    for row in examined.rows("checkpoints"):
        stored = StoredCheckpoint(*row)
        of_its_time = [key.fingerprint for key in keys if key.first_checkpoint <= stored.number]
        if stored.fingerprint not in of_its_time[-1:]:
            yield f"checkpoint {stored.number}", f"it is signed with {stored.fingerprint}, which signed elsewhere"


def _survey(examined: Examined) -> Wrong:
    """What the next checkpoint would refuse, and what earlier ones did."""
    for one in survey(executing(examined.session), examined.secret).refused:
        yield f"stream {one.stream_id}", one.reason


def _verify(examined: Examined) -> Wrong:
    """What a stranger would find who holds a complete copy and the public keys."""
    registered = registered_keys(executing(examined.session), examined.secret)
    keys = [load_pem_public_key(key.public_pem.encode()) for key in registered]
    report = verify(
        records_in(examined.session, place_of(examined.url)),
        public_keys=[key for key in keys if isinstance(key, Ed25519PublicKey)],
    )
    for finding in report.findings:
        place = "ledger" if finding.stream_id is None else f"stream {finding.stream_id} number {finding.number}"
        yield place, f"{finding.code}: {finding.detail}"


def _text(error: psycopg.Error) -> str:
    return " ".join((error.diag.message_primary or str(error)).split())


_COMPUTED: Final[Mapping[str, Check]] = {
    "integrity": _integrity,
    "schema": _schema,
    "foreign_keys": _foreign_keys,
    "document_differs": _documents,
    "column_differs": _columns,
    "content_differs": _contents,
    "mac": _macs,
    "signing_key": _keys,
    "refused": _survey,
    "verify": _verify,
}

CHECKS: Final[Mapping[str, Check]] = {
    name: _COMPUTED[name] if name in _COMPUTED else _stated(name)
    for name in (
        "integrity",
        "schema",
        "foreign_keys",
        # Jobs and records
        "version_without_record",
        "record_without_version",
        "version_gap",
        "job_differs",
        "document_differs",
        "change_differs",
        "column_differs",
        "run_differs",
        "content_differs",
        "input_without_record",
        "key_without_record",
        # Streams and delivery
        "tip_differs",
        "cursor_differs",
        "outbox_differs",
        "parked",
        # Checkpoints
        "checkpoint_differs",
        "anchor_differs",
        "mac",
        "signing_key",
        "refused",
        "verify",
    )
}
"""Every check by its name, in the order in which they are carried out; the same names as on SQLite."""

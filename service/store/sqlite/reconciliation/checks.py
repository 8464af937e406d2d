"""The checks of a reconciliation, each one a statement of `queries.sql` or a function here, in one snapshot."""

import hashlib
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Final, TypeAlias

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from service.errors import AuditraceError, SettingsError, TryLaterError
from service.ports import Discrepancy
from service.secrets import DeploymentSecret
from service.store.anchors import StoredCheckpoint
from service.store.queries import load_queries
from service.store.signing_keys import registered_keys
from service.store.sqlite.connection import connect, translated
from service.store.sqlite.migrate import migrate, migrations, schema_version
from service.store.sqlite.snapshot import records_in
from service.store.sqlite.transaction import executing
from service.store.survey import survey
from telemetry.audit.verify import verify

SQL: Final = load_queries("service.store.sqlite.reconciliation")

Wrong: TypeAlias = Iterator[tuple[str, str]]
"""Yields what is wrong: the place, and what should be there and is not."""

Check: TypeAlias = Callable[[sqlite3.Connection, DeploymentSecret], Wrong]

_DAMAGED: Final = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})
_MALFORMED: Final = "malformed JSON"


def reconcile(path: Path, secret: DeploymentSecret) -> Iterator[Discrepancy]:
    """Yield everything that is wrong in a database, check by check, each with its place; nothing is changed.

    One snapshot is looked at, so that processes which write meanwhile neither disturb nor are disturbed. A check that
    damage keeps from being carried out is a discrepancy too.

    Raises:
        SettingsError: the database needs a migration, or belongs to another ledger secret.
        TryLaterError: the database cannot be read now.
    """
    connection = connect(path, read_only=True)
    try:
        with translated():
            connection.execute("BEGIN")
            _require_fit(connection, secret)
        for name, check in CHECKS.items():
            try:
                for place, detail in check(connection, secret):
                    yield Discrepancy(name, place, detail)
            except sqlite3.Error as error:
                if error.sqlite_errorcode & 0xFF not in _DAMAGED and _MALFORMED not in str(error):
                    with translated():
                        raise
                yield Discrepancy(name, "database", f"it is damaged, so that this cannot be checked: {error}")
            except TryLaterError:
                raise
            except AuditraceError as error:
                yield Discrepancy(name, "database", str(error))
    finally:
        connection.close()


def _require_fit(connection: sqlite3.Connection, secret: DeploymentSecret) -> None:
    if schema_version(connection) != len(migrations()):
        raise SettingsError(["the schema of the database is not the one of this version: run auditrace migrate"])
    tips = connection.execute(SQL["tips"])
    belongs = [mac == secret.tip_mac(stream_id, number, record_hash) for stream_id, number, record_hash, mac in tips]
    if belongs and not any(belongs):
        raise SettingsError(["the ledger secret is not the one that this database was begun with: restore its file"])


def _stated(name: str) -> Check:
    def check(connection: sqlite3.Connection, _: DeploymentSecret) -> Wrong:
        yield from connection.execute(SQL[name])

    return check


def _integrity(connection: sqlite3.Connection, _: DeploymentSecret) -> Wrong:
    for (text,) in connection.execute(SQL["integrity_check"]):
        if text != "ok":
            yield "database", str(text)


def _foreign_keys(connection: sqlite3.Connection, _: DeploymentSecret) -> Wrong:
    for table, row, parent, _number in connection.execute(SQL["foreign_key_check"]):
        yield f"table {table} row {'?' if row is None else row}", f"it names a row of {parent} that does not exist"


def _schema(connection: sqlite3.Connection, _: DeploymentSecret) -> Wrong:
    """Tables, triggers and indices are those that the migrations make: a trigger that is gone guards nothing."""
    fresh = sqlite3.connect(":memory:", isolation_level=None)
    try:
        migrate(fresh)
        expected = _objects(fresh)
    finally:
        fresh.close()
    found = _objects(connection)
    for what in sorted(expected.keys() - found.keys()):
        yield what, "it is missing"
    for what in sorted(found.keys() - expected.keys()):
        yield what, "no migration makes it"
    for what in sorted(found.keys() & expected.keys()):
        if found[what] != expected[what]:
            yield what, "it is not as the migrations make it"


def _objects(connection: sqlite3.Connection) -> Mapping[str, str]:
    return {f"{kind} {name}": text for kind, name, text in connection.execute(SQL["schema"])}


def _documents(connection: sqlite3.Connection, _: DeploymentSecret) -> Wrong:
    for job_id, document, expected in connection.execute(SQL["last_documents"]):
        if hashlib.sha256(document.encode()).hexdigest() != expected:
            yield f"job {job_id}", "its document is not the one of its last version"


def _contents(connection: sqlite3.Connection, _: DeploymentSecret) -> Wrong:
    for place, size, sha256, payload in connection.execute(SQL["contents"]):
        if (len(payload), hashlib.sha256(payload).hexdigest()) != (size, sha256):
            yield place, "its bytes are not those that were stored"


def _macs(connection: sqlite3.Connection, secret: DeploymentSecret) -> Wrong:
    """Tips, anchors and checkpoints were stored by processes that hold the ledger secret."""
    for stream_id, number, record_hash, mac in connection.execute(SQL["tips"]):
        if mac != secret.tip_mac(stream_id, number, record_hash):
            yield f"stream {stream_id}", f"its tip {number} was not stored by a lane of this deployment"
    for stream_id, number, record_hash, closed, checkpoint, mac in connection.execute(SQL["anchors"]):
        if mac != secret.anchor_mac(stream_id, number, record_hash, closed, checkpoint):
            yield f"stream {stream_id}", f"its anchor {number} was not stored by a checkpoint of this deployment"
    for row in connection.execute(SQL["checkpoints"]):
        checkpoint = StoredCheckpoint(*row)
        if not checkpoint.is_authentic(secret):
            yield f"checkpoint {checkpoint.number}", "it was not stored by a process of this deployment"


def _keys(connection: sqlite3.Connection, secret: DeploymentSecret) -> Wrong:
    """The registered keys are this deployment's, and each checkpoint is signed with the one of its time."""
    keys = registered_keys(executing(connection), secret)
    for row in connection.execute(SQL["checkpoints"]):
        checkpoint = StoredCheckpoint(*row)
        of_its_time = [key.fingerprint for key in keys if key.first_checkpoint <= checkpoint.number]
        if checkpoint.fingerprint not in of_its_time[-1:]:
            yield (
                f"checkpoint {checkpoint.number}",
                f"it is signed with {checkpoint.fingerprint}, which signed elsewhere",
            )


def _survey(connection: sqlite3.Connection, secret: DeploymentSecret) -> Wrong:
    """What the next checkpoint would refuse, and what earlier ones did."""
    for one in survey(executing(connection), secret).refused:
        yield f"stream {one.stream_id}", one.reason


def _verify(connection: sqlite3.Connection, secret: DeploymentSecret) -> Wrong:
    """What a stranger would find who holds a complete copy and the public keys."""
    keys = [load_pem_public_key(key.public_pem.encode()) for key in registered_keys(executing(connection), secret)]
    report = verify(
        records_in(connection, "database"), public_keys=[key for key in keys if isinstance(key, Ed25519PublicKey)]
    )
    for finding in report.findings:
        place = "ledger" if finding.stream_id is None else f"stream {finding.stream_id} number {finding.number}"
        yield place, f"{finding.code}: {finding.detail}"


_COMPUTED: Final[Mapping[str, Check]] = {
    "integrity": _integrity,
    "schema": _schema,
    "foreign_keys": _foreign_keys,
    "document_differs": _documents,
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
"""Every check by its name, in the order in which they are carried out."""

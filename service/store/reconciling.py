"""The reconciliation of any database: its checks, and how they are carried out.

A check is a function in this file, or the statement of the same name in the dialect's `reconciliation/queries.sql`.
"""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from typing import ClassVar, Final, TypeAlias

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from service.errors import AuditraceError, SettingsError, TryLaterError
from service.key_coverage import coverage_of, named_by, shown
from service.ports import Discrepancy, KeyRecord
from service.secrets import DeploymentSecret
from service.store.anchors import StoredCheckpoint
from service.store.columns import contradicting
from service.store.configurations import stored_configuration
from service.store.opening import records_in
from service.store.queries import Execute, Row
from service.store.rows import keys_on_record
from service.store.signing_keys import keys_and_forged
from service.store.survey import survey
from telemetry.audit.canonical import sha256_hex
from telemetry.audit.verify import verify

Contradictions: TypeAlias = Iterator[tuple[str, str]]
"""Yields each thing that is wrong: its place, and a description."""


class DamagedError(Exception):
    """A check could not be carried out, because the database is damaged."""


class Examined(ABC):
    """One snapshot of a database, as the checks read it."""

    driver_error: ClassVar[type[Exception]]

    def __init__(self, execute: Execute, secret: DeploymentSecret, source: str) -> None:
        """Read the snapshot with statements of the store.

        Args:
            execute: executes them in the snapshot.
            secret: the ledger secret of the deployment.
            source: the name of the database in findings of the verifier.
        """
        self.execute = execute
        self.secret = secret
        self.source = source

    @abstractmethod
    def rows(self, name: str) -> Iterator[Row]:
        """Yield the rows of a reconciliation statement; the rows of a check are places and descriptions."""

    @contextmanager
    def attempt(self) -> Generator[None]:
        """Open a block for one check; after a failure in it, the next checks can still read the snapshot.

        Raises:
            DamagedError: the check failed because the database is damaged.
            AuditraceError: it failed for another reason.
        """
        try:
            with self._savepoint():
                yield
        except self.driver_error as error:
            raise self._meaning(error) from error

    def _savepoint(self) -> AbstractContextManager[object]:
        """Open a block; after a failure in it, the transaction is as it was before."""
        return nullcontext()

    @abstractmethod
    def _meaning(self, error: Exception) -> Exception:
        """Return the exception that `attempt` raises for an error of the driver."""

    @abstractmethod
    def integrity(self) -> Contradictions:
        """Yield what the database itself finds wrong in its storage."""

    @abstractmethod
    def schema(self) -> Contradictions:
        """Yield every object that is not as the migrations make it, such as a missing trigger."""

    @abstractmethod
    def foreign_keys(self) -> Contradictions:
        """Yield the rows that refer to rows which do not exist."""


def reconciled(examined: Examined) -> Iterator[Discrepancy]:
    """Yield everything that is wrong in a database, check by check, each with its place; nothing is changed.

    All checks read one snapshot, so processes can write meanwhile without any effect on either side. If damage prevents
    a check, that is a discrepancy too, and the other checks are carried out.

    Raises:
        SettingsError: the database needs a migration, has another ledger secret, or this process may not read it.
        TryLaterError: the database cannot be read now.
    """
    # The checks report the damage.
    with suppress(DamagedError), examined.attempt():
        _require_own(examined)
    for name in CHECKS:
        try:
            with examined.attempt():
                for place, detail in _wrong(examined, name):
                    yield Discrepancy(name, place, detail)
        except DamagedError as error:
            yield Discrepancy(name, "database", f"it is damaged, so that this cannot be checked: {error}")
        except (TryLaterError, SettingsError):
            # This says nothing about the database, because it was not read.
            raise
        except AuditraceError as error:
            yield Discrepancy(name, "database", str(error))


def _require_own(examined: Examined) -> None:
    belongs = [
        mac == examined.secret.tip_mac(stream_id, number, record_hash)
        for stream_id, number, record_hash, mac in examined.rows("tips")
    ]
    if belongs and not any(belongs):
        raise SettingsError(["the ledger secret is not the one that this database was begun with: restore its file"])


def _wrong(examined: Examined, name: str) -> Contradictions:
    if name in _CODE:
        yield from _CODE[name](examined)
    else:
        yield from examined.rows(name)


def _documents(examined: Examined) -> Contradictions:
    for job_id, document, expected in examined.rows("last_documents"):
        if hashlib.sha256(document.encode()).hexdigest() != expected:
            yield f"job {job_id}", "its document is not the one of its last version"


def _columns(examined: Examined) -> Contradictions:
    """Yield the records with a column, searched by the query API, that contradicts the body."""
    yield from contradicting(examined.rows("columns_of_records"))


def _contents(examined: Examined) -> Contradictions:
    for place, size, sha256, payload in examined.rows("contents"):
        if (len(payload), hashlib.sha256(payload).hexdigest()) != (size, sha256):
            yield place, "its bytes are not those that were stored"


def _macs(examined: Examined) -> Contradictions:
    """Yield the tips, anchors and checkpoints that no process with the ledger secret stored."""
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


def _keys(examined: Examined) -> Contradictions:
    """Yield keys that this deployment did not register, and checkpoints not signed with the key of their time."""
    keys, forged = keys_and_forged(examined.execute, examined.secret)
    for fingerprint in forged:
        yield f"signing key {fingerprint}", "it was not registered by a process of this deployment"
    for row in examined.rows("checkpoints"):
        stored = StoredCheckpoint(*row)
        of_its_time = [key.fingerprint for key in keys if key.first_checkpoint <= stored.number]
        if stored.fingerprint not in [*of_its_time[-1:], *forged]:
            yield f"checkpoint {stored.number}", f"it is signed with {stored.fingerprint}, which signed elsewhere"


def _configurations(examined: Examined) -> Contradictions:
    """Yield the configurations that are not those that their records state, and the records without one."""
    for *columns, stated in examined.rows("configurations"):
        stored = stored_configuration(columns)
        if not stored.is_authentic(examined.secret):
            yield f"configuration {stored.number}", "it was not stored by a process of this deployment"
        elif stated != sha256_hex(stored.document.encode()):
            yield f"configuration {stored.number}", f"record {stored.record_id} does not state it"
    for (record_id,) in examined.rows("configured"):
        yield f"record {record_id}", "the configuration that it states is not there"


def _api_keys(examined: Examined) -> Contradictions:
    """Yield the API keys that are not what their records state, and the records whose keys are gone."""
    for one in keys_on_record(examined.execute("keys_on_record", {"key_id": None}, ())):
        problem = coverage_of(one.key, one.records, examined.secret).problem
        if problem is not None:
            yield shown(one.key), problem
    for row in examined.execute("created_without_key", {}):
        record = KeyRecord(*row)
        yield named_by(record), f"record {record.record_id} states that it was made, and it is not there"


def _refused(examined: Examined) -> Contradictions:
    """Yield the streams that the next checkpoint would refuse, with the disowned ones."""
    for one in survey(examined.execute, examined.secret).refused:
        yield f"stream {one.stream_id}", one.reason


def _verify(examined: Examined) -> Contradictions:
    """Yield the findings of a verification of the whole ledger with its public keys."""
    registered, forged = keys_and_forged(examined.execute, examined.secret)
    if forged and not registered:
        yield "ledger", "there is no signing key left by which a signature can be checked"
    keys = [load_pem_public_key(key.public_pem.encode()) for key in registered]
    report = verify(
        records_in(examined.execute, examined.source),
        public_keys=[key for key in keys if isinstance(key, Ed25519PublicKey)],
    )
    for finding in report.findings:
        place = "ledger" if finding.stream_id is None else f"stream {finding.stream_id} number {finding.number}"
        yield place, f"{finding.code}: {finding.detail}"


_CODE: Final[Mapping[str, Callable[[Examined], Contradictions]]] = {
    "integrity": lambda examined: examined.integrity(),
    "schema": lambda examined: examined.schema(),
    "foreign_keys": lambda examined: examined.foreign_keys(),
    "document_differs": _documents,
    "column_differs": _columns,
    "content_differs": _contents,
    "mac": _macs,
    "signing_key": _keys,
    "key_without_record": _api_keys,
    "configuration_differs": _configurations,
    "refused": _refused,
    "verify": _verify,
}

CHECKS: Final = (
    *("integrity", "schema", "foreign_keys"),
    # Jobs and records
    *("version_without_record", "record_without_version", "version_gap", "job_differs", "document_differs"),
    *("change_differs", "column_differs", "run_differs", "content_differs", "input_without_record"),
    *("key_without_record", "configuration_differs"),
    # Streams and delivery
    *("tip_differs", "cursor_differs", "outbox_differs", "parked"),
    # Checkpoints
    *("checkpoint_differs", "anchor_differs", "mac", "signing_key", "refused", "verify"),
)
"""The names of all checks, in the order in which they are carried out."""

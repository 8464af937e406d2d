"""One process of the deployment: its ledger, its telemetry and everything that operations need."""

import random
import secrets
import time
import uuid
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from service.bootstrap.checked import checked
from service.bootstrap.database import LedgerParts
from service.bootstrap.databases import database_of
from service.bootstrap.examined import COMMAND
from service.bootstrap.invocation import context_of
from service.bootstrap.ledger_records import LedgerRecords, service_context
from service.bootstrap.webhooks import webhooks_of
from service.config import Settings
from service.errors import ConflictError
from service.ids import new_id_from
from service.jobs.backoff import retry_delay_s
from service.jobs.model import DEFAULT_TENANT, Plan
from service.operations.base import Services
from service.operations.covered_keys import CoveredKeys
from service.operations.key_adoption import KeyAdoption
from service.operations.keys import KeyOperations
from service.operations.runs import RunOperations
from service.operations.templates_in_force import TemplatesInForce
from service.ports import RegisteredKey
from service.private_files import create_private_file
from service.records import AuditContext, Invocation
from service.roles import ADMIN
from service.store.watermark import REFUSALS_SHARE, DiskWatermark, WatermarkedLedger
from service.store.writability import WatchedLedger
from service.webhooks import WebhookEndpoint, Webhooks
from telemetry.audit.ledger import AuditLogger
from telemetry.audit.record import Source
from telemetry.audit.verify import Found
from telemetry.setup import set_up
from telemetry.tracing import Tracing

VERSION = version("auditrace")

_NS_PER_MS = 1_000_000


class Node:
    """One process of the deployment, opened: its ledger, telemetry and everything that operations need.

    Raises (on opening):
        SettingsError: settings, key files, templates or folders are wrong; all problems at once.
        TryLaterError: the database cannot be used now.
    """

    def __init__(
        self,
        settings: Settings,
        source: Source,
        *,
        is_daemon: bool,
        checks: Sequence[str] = COMMAND,
        invocation: Invocation | None = None,
    ) -> None:
        """Open it after the checks of these names; if they find something wrong, nothing is made.

        What operators ask for is recorded as the act of `invocation`; None where the service acts by itself.
        """
        self.settings = settings
        self.source: Source = source
        instance_id = str(uuid.uuid4())
        self.clock: Callable[[], int] = time.time_ns
        self.monotonic: Callable[[], float] = time.monotonic
        self.random: Callable[[], float] = random.SystemRandom().random
        self.new_id = new_id_from(self.clock, secrets.randbits)
        named = checked(settings, checks)
        self.keys, self.signer, self.secret = named.keys, named.signer, named.secret
        self.telemetry = set_up(
            settings.environment,
            instance_id=instance_id,
            version=VERSION,
            certificate=self.signer.fingerprint,
            is_daemon=is_daemon,
        )
        self.tracing = Tracing(self.telemetry.tracer)
        service = service_context(source)
        self._operator = service if invocation is None else context_of(invocation)
        records = LedgerRecords(
            tracing=self.tracing, new_id=self.new_id, clock=self.clock, service=service, operator=self._operator
        )
        self.owner = f"node-{instance_id}"
        self.committed: list[Callable[[], None]] = []
        self.recorded: list[Callable[[AuditContext, int], None]] = []
        self._database = named.database
        named.database.migrate()
        self.opened = named.database.open(
            LedgerParts(
                owner=self.owner,
                audit_log=AuditLogger(self.telemetry.audit_resource, VERSION),
                secret=self.secret,
                clock=self.clock,
                new_stream_id=lambda: str(uuid.uuid4()),
                system_record=records.of_service,
                operator_record=records.of_operator,
                on_commit=self._on_commit,
                on_hint=self._wake,
                private_key=self.keys.find,
                lanes=settings.lanes,
            )
        )
        self.reads, self.checkpoints = self.opened.reads, self.opened.checkpoints
        self.checkpoints.register(self.signer)
        volume = named.database.volume
        self.watermark = DiskWatermark(volume, settings.min_free_bytes, self.monotonic) if volume else None
        self.writes = WatchedLedger(self.opened.ledger, records.trial, self.monotonic)
        self.services = Services(
            ledger=self.writes,
            templates=TemplatesInForce(named.templates),
            secret=self.secret,
            tracing=self.tracing,
            clock=self.clock,
            new_id=self.new_id,
            on_records=self._on_records,
        )

    def covered_keys(self) -> CoveredKeys:
        """Return the API keys of the ledger, which are checked against it; those of older versions are adopted."""
        adoption = KeyAdoption(self.services, self.reads, self._public_keys, self.checkpoints.holds)
        return CoveredKeys(self.reads, self.secret, adoption.adopt, self.monotonic)

    def _public_keys(self) -> Sequence[Ed25519PublicKey]:
        pems = [key.public_pem.encode() for key in self.registered_keys()]
        return [key for key in map(load_pem_public_key, pems) if isinstance(key, Ed25519PublicKey)]

    def client_services(self) -> Services:
        """Return the services for operations of clients, which are refused while the disk is nearly full."""
        if self.watermark is None:
            return self.services
        return msgspec.structs.replace(self.services, ledger=WatermarkedLedger(self.writes, self.watermark))

    def tally_services(self) -> Services:
        """Return the services for records of refusals, which still have room when work of clients is refused."""
        if self.watermark is None:
            return self.services
        kept = WatermarkedLedger(self.writes, self.watermark, share=REFUSALS_SHARE)
        return msgspec.structs.replace(self.services, ledger=kept)

    @property
    def place(self) -> str:
        """Which database this is: the absolute path of a file, or the host and name of a database on a server."""
        return self._database.place

    def webhooks(self, endpoints: Sequence[WebhookEndpoint]) -> Webhooks | None:
        """Open the webhooks of these endpoints; None when there are none."""
        return webhooks_of(endpoints, self._database, f"{self.owner}-webhooks", self.telemetry.instruments)

    def registered_keys(self) -> Sequence[RegisteredKey]:
        """Return the public keys of the ledger, read on a connection of its own; any thread may call this."""
        return self._database.keys(self.secret)

    def committed_records(self) -> Iterator[Found]:
        """Yield every committed record of one snapshot, read on a connection of its own; any thread may call this."""
        return self._database.records()

    @contextmanager
    def key_operations(self) -> Generator[KeyOperations]:
        """Yield the key operations of an operator's command on this machine, in a trace of its own."""
        context = msgspec.structs.replace(self._operator, roles=frozenset({ADMIN}))
        span = self.tracing.root("auditrace keys")
        try:
            yield KeyOperations(self.services, context, span)
        finally:
            # A span that never ends is never exported, and then the records would point to a missing span.
            span.end()

    def run_operations(self, isolation: Callable[[Plan | None], str]) -> RunOperations:
        """Return the operations of this process's worker; `isolation` returns what keeps a run from the service."""

        def retry_delay_ns(attempt: int) -> int:
            return int(retry_delay_s(attempt, self.random) * 1_000_000_000)

        lease_ns = self.settings.run_lease_ms * _NS_PER_MS
        intake, most = self.client_services().ledger, self.settings.limits.tenant_bytes
        return RunOperations(self.services, self.owner, lease_ns, retry_delay_ns, intake, most, isolation)

    def ensure_admin_key(self) -> Path | None:
        """Make the first key of a database without keys; return the file that holds it, or None.

        If several processes start first at the same time, one of them makes it. If a process dies after it committed
        the key and before it wrote the file, that key is lost: `auditrace keys create` makes another one.
        """
        if self.reads.keys():
            return None
        try:
            with self.key_operations() as operations:
                created = operations.create("admin", [ADMIN], DEFAULT_TENANT)
        except ConflictError:
            return None
        path = self.settings.admin_key
        # An existing file belongs to an earlier database, and its key is no longer accepted.
        path.unlink(missing_ok=True)
        create_private_file(path, created.value.key.encode() + b"\n")
        return path

    def close(self, telemetry_s: float | None = None) -> None:
        """Close everything, the ledger first; telemetry is sent for at most `telemetry_s` seconds."""
        self.opened.close_ledger()
        # Before the reads are closed, because the last collection of metrics reads the outbox and the jobs.
        self.telemetry.shutdown(telemetry_s)
        self.opened.close()

    def _on_commit(self, outcomes: Sequence[str]) -> None:
        for outcome in outcomes:
            self.telemetry.instruments.record_committed(outcome)
        self._wake()

    def _on_records(self, context: AuditContext, number: int) -> None:
        for note in self.recorded:
            note(context, number)

    def _wake(self) -> None:
        for wake in self.committed:
            wake()


@contextmanager
def open_ledger(settings: Settings, invocation: Invocation) -> Generator[Node]:
    """Open the existing ledger for a person's command; none is made, because it would be in the wrong folder.

    Raises:
        SettingsError: there is no ledger, or settings are wrong.
    """
    if not settings.problems:
        database_of(settings.database).require()
    with open_node(settings, "cli", invocation) as node:
        yield node


@contextmanager
def open_node(settings: Settings, source: Source, invocation: Invocation | None = None) -> Generator[Node]:
    """Open the ledger for one command, and close it with its records committed; a missing ledger is made."""
    node = Node(settings, source, is_daemon=False, invocation=invocation)
    try:
        yield node
    finally:
        node.close()

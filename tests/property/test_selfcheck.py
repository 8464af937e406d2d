"""On real stores: whatever the processes do and suffer, neither the self-verification nor any window finds anything."""

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from service.bootstrap.databases import database_of
from service.errors import LedgerBusyError
from service.selfcheck import SelfCheck
from telemetry.audit.signer import Signer
from telemetry.audit.verify import Found, Scope, verify
from tests.property.test_tampering import IS_LONG
from tests.support.both_stores import BOTH, SQLITE, Store
from tests.support.ledger_maker import KEY
from tests.support.postgres_stores import PostgresStore
from tests.support.restored import backed_up
from tests.support.sqlite_stores import SqliteStore
from tests.support.stores import SECRET

pytestmark = pytest.mark.stores(*BOTH)

FEW = settings(
    derandomize=not IS_LONG,
    deadline=None,
    max_examples=200 if IS_LONG else 8,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
SIGNERS = [Signer(KEY), *(Signer(Ed25519PrivateKey.from_private_bytes(bytes([at] * 32))) for at in range(1, 9))]
ACTS = (
    *("write", "write", "checkpoint", "checkpoint", "open", "close", "stop", "kill", "die idle", "pause"),
    *("rotate", "restart", "back up", "restore", "set the clock back", "set the clock ahead"),
)


class Deployment:
    """Processes on one ledger, and the self-verification of one of them, which looks after each act."""

    def __init__(self, store: Store, request: pytest.FixtureRequest, folder: Path) -> None:
        self.store = store
        self.opened = [store]
        self.request = request
        self.folder = folder
        self.backup: tuple[Callable[[], Store], int] | None = None
        self.rotations = 0
        self.processes: list[tuple[Any, Any]] = []
        for _ in range(3):
            self.open()
        self.check = self.new_check()

    def new_check(self) -> SelfCheck:
        """Return the self-verification of a process that has just started."""
        store = self.store
        return SelfCheck(
            store.reads,
            _not_asked,
            lambda: store.keys_of(SECRET),
            lambda: True,
            60.0,
            lambda: 0.0,
        )

    def open(self) -> None:
        """Start a process."""
        lane = self.store.lane("node")
        self.processes.append((lane, self.store.checkpoints(lane, *SIGNERS)))
        self.commit(lane)

    def commit(self, lane: Any) -> None:
        """Commit a fact."""
        lane.submit(lambda transaction: transaction.save(self.store.fact())).result()

    def checkpoint(self, at: int) -> None:
        """Write a checkpoint, and leave the lease to whoever writes the next one."""
        _, writer = self.processes[at % len(self.processes)]
        assert writer.write() is not None
        writer.release()

    def kill(self, at: int) -> None:
        """End a process without a word."""
        lane, _ = self.processes.pop(at % len(self.processes))
        self.store.kill(lane)
        if not self.processes:
            self.open()

    def do(self, act: str, at: int) -> None:
        """Let something happen."""
        lane, writer = self.processes[at % len(self.processes)]
        match act:
            case "write":
                self.commit(lane)
            case "checkpoint":
                self.checkpoint(at)
            case "open":
                self.open()
            case "close" | "stop":
                lane.close(writer.write_last if act == "stop" else None)
                self.processes.remove((lane, writer))
                self.processes or self.open()
            case "kill":
                self.kill(at)
            case "die idle":
                # Covered to its end by one checkpoint, and closed by the next one.
                self.checkpoint(at + 1)
                self.kill(at)
                self.checkpoint(at)
            case "pause":
                # Longer than every lease: whoever writes next closes the streams of the others.
                self.store.clock.advance(11)
                self.checkpoint(at)
                self.commit(lane)
            case "set the clock back" | "set the clock ahead":
                self.store.clock.advance(-3600 if act == "set the clock back" else 3600)
                self.commit(lane)
            case "rotate" if self.rotations < len(SIGNERS) - 1:
                self.rotations += 1
                writer.rotate(SIGNERS[self.rotations])
            case "restart":
                for _ in self.processes[1:]:
                    self.kill(0)
                self.kill(0)
                self.check = self.new_check()
            case "back up":
                self.backup = (
                    backed_up(self.store, self.folder, self.request, len(self.opened)),
                    self.rotations,
                )
            case "restore" if self.backup is not None:
                self.go_back(*self.backup)
            case _:
                pass

    def go_back(self, restore: Callable[[], Store], rotations: int) -> None:
        """Lose what came after the backup, and say so, as `auditrace migrate --after-restore` does."""
        for lane, _ in self.processes:
            self.store.kill(lane)
        self.processes, self.backup, self.rotations = [], None, rotations
        self.store = restore()
        self.opened.append(self.store)
        lane = self.store.lane("operator")
        writer = self.store.checkpoints(lane, *SIGNERS)
        try:
            writer.restore()
        except LedgerBusyError:
            # The clock was set back to when the leases of the backup had not ended.
            self.store.clock.advance(20)
            writer.restore()
        lane.close(writer.write_last)
        self.open()
        self.check = self.new_check()

    def look(self) -> None:
        """Take a turn, which finds nothing."""
        self.check.turn()
        state = self.check.state()
        assert (state.findings, state.first) == (0, None)

    def verify_windows(self) -> None:
        """Verify the whole ledger, and through every window."""
        found = list(database_of(self.store.database).records())
        keys = [signer.public_key for signer in SIGNERS[: self.rotations + 1]]
        times = {time for (time,) in self.store.rows("SELECT observed_ns FROM audit_records")}
        numbers = {number for (number,) in self.store.rows("SELECT number FROM audit_checkpoints")}
        scopes = [Scope(), *(Scope(since_ns=time) for time in times), *(Scope(behind=number) for number in numbers)]
        for scope in scopes:
            report = verify(found, public_keys=keys, scope=scope)
            assert report.findings == (), scope

    def close(self) -> None:
        """Close everything."""
        for store in self.opened:
            store.close()
            if isinstance(store, PostgresStore):
                self.request.getfixturevalue("postgres_server").drop_database(store.url)


def _not_asked() -> Iterator[Found]:
    raise AssertionError("a turn found something")


@FEW
@given(st.lists(st.tuples(st.sampled_from(ACTS), st.integers(0, 5)), min_size=6, max_size=16))
def test_nothing_that_happens_to_processes_is_a_finding(
    store_kind: str, request: pytest.FixtureRequest, acts: list[tuple[str, int]]
) -> None:
    """Turn after turn as the ledger grows, and at last through every window of it, on either store.

    Streams are closed by their own processes, by others and by a restore; keys change; processes start anew; the clock
    is set.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if store_kind == SQLITE:
            store: Store = SqliteStore(folder)
        else:
            store = PostgresStore(request.getfixturevalue("postgres_server"), folder)
        deployment = Deployment(store, request, folder)
        try:
            for act, at in acts:
                deployment.do(act, at)
                deployment.look()
            for _ in range(3):
                # After a step of the clock this many may be needed, until all that looks late is covered.
                deployment.checkpoint(0)
                deployment.look()
            deployment.verify_windows()
        finally:
            deployment.close()

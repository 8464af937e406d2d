"""A PostgreSQL and its streaming standby, which takes over when the primary is lost."""

import os
import signal
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final, TypeAlias

import psycopg
from psycopg.sql import SQL, Composed, Identifier, Literal

from tests.support.poll_until import poll_until
from tests.support.postgres import SUPERUSER, PostgresServer, require_binaries

PATIENCE_S: Final = 60.0
_NAME: Final = "standby"
_SETTINGS: Final = {"max_connections": "300", "shared_buffers": "128MB", "wal_retrieve_retry_interval": "100ms"}

Statement: TypeAlias = SQL | Composed


class Standby(PostgresServer):
    """A server that begins as a copy of another one and follows it."""

    def __init__(self, folder: Path, primary: PostgresServer) -> None:
        self._primary = primary
        super().__init__(folder, fsync=True, settings=_SETTINGS)

    def disconnect(self) -> None:
        """Let nothing more arrive from the primary, as when the network between them is gone."""
        self.execute(SQL("ALTER SYSTEM SET primary_conninfo = ''"))
        self.execute(SQL("SELECT pg_reload_conf()"))
        receivers = SQL("SELECT count(*) FROM pg_stat_wal_receiver")
        poll_until(lambda: self.execute(receivers) == [(0,)], "the standby to be cut off", PATIENCE_S)

    def freeze(self) -> int:
        """Freeze the process that receives from the primary, and return it."""
        ((receiver,),) = self.execute(SQL("SELECT pid FROM pg_stat_wal_receiver"))
        os.kill(receiver, signal.SIGSTOP)
        return int(receiver)

    def promote(self) -> None:
        """Make a primary of it, which takes writes when this returns."""
        assert self.execute(SQL("SELECT pg_promote(true, 60)")) == [(True,)]

    def execute(self, statement: Statement) -> list[tuple[Any, ...]]:
        """Execute a statement as its administrator."""
        return _administer(self, statement)

    def _make_data(self) -> None:
        primary = f"host={self._primary.folder} user={SUPERUSER} application_name={_NAME}"
        self._run("pg_basebackup", "-d", primary, "--write-recovery-conf", "--wal-method=stream", "--checkpoint=fast")


class Pair:
    """A primary with fsync and one standby, which it waits for or not."""

    def __init__(self, primary: PostgresServer, standby: Standby) -> None:
        self.primary = primary
        self.standby = standby

    @property
    def hosts(self) -> str:
        """Both, as libpq takes them; the standby comes first, so that a client that asks for no primary gets it."""
        return f"{self.standby.folder},{self.primary.folder}"

    def url(self, database: str, attributes: str = "&target_session_attrs=read-write") -> str:
        """Return the URL of a database, by which it is found on whichever of the two takes writes."""
        return f"postgresql:///{database}?host={self.hosts}&user={SUPERUSER}{attributes}"

    def create_database(self, name: str = "audit") -> str:
        """Make an empty database, and return its URL."""
        _administer(self.primary, SQL("CREATE DATABASE {} TEMPLATE template0").format(Identifier(name)))
        return self.url(name)

    def require_confirmation(self) -> None:
        """Let each commit on the primary wait until the standby has it on disk."""
        _administer(self.primary, SQL("ALTER SYSTEM SET synchronous_standby_names = {}").format(Literal(_NAME)))
        _administer(self.primary, SQL("SELECT pg_reload_conf()"))
        self._await("sync")

    def fail_over(self) -> None:
        """Kill the primary at any instruction, and let the standby take over."""
        self.primary.kill()
        self.standby.promote()

    def fail_over_behind_the_last_commit(self, receiver: int) -> None:
        """Lose the primary once all is sent that the frozen standby did not confirm; it takes that, and takes over."""
        ((written,),) = _administer(self.primary, SQL("SELECT pg_current_wal_flush_lsn()::text"))
        is_sent = SQL("SELECT sent_lsn >= {}::pg_lsn FROM pg_stat_replication").format(Literal(written))
        poll_until(lambda: _administer(self.primary, is_sent) == [(True,)], "all to be sent", PATIENCE_S)
        self.primary.kill()
        os.kill(receiver, signal.SIGCONT)
        is_taken = SQL("SELECT pg_last_wal_receive_lsn() >= {}::pg_lsn").format(Literal(written))
        poll_until(lambda: self.standby.execute(is_taken) == [(True,)], "the standby to take it", PATIENCE_S)
        self.standby.promote()

    def await_following(self) -> None:
        """Wait until the standby has replayed everything that was written so far."""
        ((written,),) = _administer(self.primary, SQL("SELECT pg_current_wal_flush_lsn()::text"))
        is_there = SQL("SELECT pg_last_wal_replay_lsn() >= {}::pg_lsn").format(Literal(written))
        poll_until(lambda: self.standby.execute(is_there) == [(True,)], "the standby to follow", PATIENCE_S)

    def waiting_commits(self) -> int:
        """Return how many lanes are within a commit that waits for the standby."""
        ((count,),) = _administer(
            self.primary,
            SQL(
                "SELECT count(*) FROM pg_stat_activity"
                " WHERE wait_event = 'SyncRep' AND application_name = 'auditrace' AND query = 'COMMIT'"
            ),
        )
        return int(count)

    def _await(self, state: str) -> None:
        asked = SQL("SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming' AND sync_state = {}")
        poll_until(
            lambda: _administer(self.primary, asked.format(Literal(state))) == [(1,)],
            f"the standby to stream ({state})",
            PATIENCE_S,
        )


@contextmanager
def running_pair(*, synchronous: bool) -> Iterator[Pair]:
    """Run a primary and its standby for as long as the block lasts."""
    require_binaries()
    with ExitStack() as stack:
        primary = PostgresServer(_folder(stack, "primary"), fsync=True, settings=_SETTINGS)
        stack.callback(primary.discard)
        primary.start()
        standby = Standby(_folder(stack, "standby"), primary)
        stack.callback(standby.discard)
        standby.start()
        pair = Pair(primary, standby)
        if synchronous:
            pair.require_confirmation()
        else:
            pair.await_following()
        yield pair


def _folder(stack: ExitStack, name: str) -> Path:
    # Not the folder of the test: an unprivileged process may not look into that.
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix=f"auditrace-{name}-")))
    folder.chmod(0o755)
    return folder


def _administer(server: PostgresServer, statement: Statement) -> list[tuple[Any, ...]]:
    with psycopg.connect(server.url(), autocommit=True) as session:
        done = session.execute(statement)
        return done.fetchall() if done.description else []

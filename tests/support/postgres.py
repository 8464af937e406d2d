"""PostgreSQL as a child process of the tests: unprivileged, on a socket of its own; it ends with the tests."""

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import psycopg
import pytest
from psycopg.sql import SQL, Identifier

from service.store.postgres.connection import connect
from service.store.postgres.migrate import migrate
from service.store.postgres.rights import grant
from tests.support.poll_until import poll_until
from tests.support.processes import Process, start_process

SUPERUSER: Final = "auditrace"
"""It also owns the tables."""
SERVICE: Final = "auditrace_service"
"""The role with which the stores of tests work, as `auditrace migrate --grants` makes it."""
_TEMPLATE: Final = "auditrace_template"
_DEBIAN: Final = Path("/usr/lib/postgresql")
_FAST: Final = {"fsync": "off", "full_page_writes": "off", "max_wal_size": "256MB"}
_IN_MEMORY: Final = Path("/dev/shm")
_ROOM: Final = 2 * 2**30
_SETTINGS: Final = {
    "listen_addresses": "",
    "max_connections": "100",
    "shared_buffers": "64MB",
    "logging_collector": "off",
    "deadlock_timeout": "200ms",
}


def binaries() -> Path | None:
    """Return the folder of `initdb` and `postgres`: on the path, or where Debian puts them; None without one."""
    for name in ("postgres", "initdb"):
        found = shutil.which(name)
        if found is None:
            break
    else:
        return Path(found).resolve().parent
    versions = sorted(_DEBIAN.glob("*/bin/postgres"), key=lambda path: int(path.parent.parent.name))
    return versions[-1].parent if versions else None


def require_binaries() -> Path:
    """Return the folder of the binaries; without one the test is skipped, in CI it fails."""
    folder = binaries()
    if folder is not None:
        return folder
    reason = "no PostgreSQL on this machine: run deploy/postgres-for-tests.sh, or install the package postgresql"
    if os.environ.get("CI"):  # noqa: TID251 - a test that is not run must be seen in CI
        pytest.fail(reason)
    pytest.skip(reason)


def as_service(url: str) -> str:
    """Return the URL of a database that a server made, for the role of the service."""
    return url.replace(f"user={SUPERUSER}", f"user={SERVICE}")


def as_owner(url: str) -> str:
    """Return the URL that `as_service` was given."""
    return url.replace(f"user={SERVICE}", f"user={SUPERUSER}")


class PostgresServer:
    """One server in a folder of its own. `fsync` is on only where a test ends it without a shutdown."""

    def __init__(self, folder: Path, *, fsync: bool = False, settings: Mapping[str, str] | None = None) -> None:
        self._binaries = require_binaries()
        self.folder = folder
        self.data = folder / "data"
        self.log = folder / "postgres.log"
        self._settings = {**_SETTINGS, **({} if fsync else _FAST), **(settings or {})}
        self._process: Process | None = None
        self._databases = 0
        self._has_template = False
        if os.geteuid() == 0:
            account = pwd.getpwnam("nobody")
            os.chown(folder, account.pw_uid, account.pw_gid)
        self._make_data()

    @property
    def pid(self) -> int:
        """The process id of the postmaster."""
        assert self._process is not None
        return self._process.pid

    def url(self, database: str = "postgres") -> str:
        """Return the URL of one of its databases."""
        return f"postgresql:///{database}?host={self.folder}&user={SUPERUSER}"

    def start(self) -> None:
        """Start the server, and return once it takes connections."""
        options = [part for name, value in self._settings.items() for part in ("-c", f"{name}={value}")]
        command = [str(self._binaries / "postgres"), "-D", str(self.data), "-k", str(self.folder), *options]
        with self.log.open("ab") as log:
            self._process = start_process(
                _unprivileged(command, death_signal="QUIT"), stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        poll_until(self._answers, "PostgreSQL to take connections")

    def stop(self) -> None:
        """Shut down fast: sessions are ended, what was committed is on disk."""
        self._end(signal.SIGINT)

    def discard(self) -> None:
        """Kill a server whose data nobody needs any more."""
        self._end(signal.SIGQUIT)

    def kill(self) -> None:
        """End the server as a crash does; the next start recovers."""
        self._end(signal.SIGKILL)

    def create_database(self, template: str = _TEMPLATE) -> str:
        """Make a database of a test's own, with the newest schema, and return its URL."""
        if template == _TEMPLATE and not self._has_template:
            self._make_template()
            self._has_template = True
        self._databases += 1
        name = f"test_{self._databases}"
        statement = SQL("CREATE DATABASE {} TEMPLATE {}").format(Identifier(name), Identifier(template))
        if self._copies_files:
            # Several times as fast as by the log, where nothing has to be flushed.
            statement += SQL(" STRATEGY FILE_COPY")
        self._administer(statement)
        return self.url(name)

    def drop_database(self, url: str) -> None:
        """Remove a database, whoever is still connected."""
        name = url.split("///")[1].split("?")[0]
        self._administer(SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(Identifier(name)))

    @property
    def _copies_files(self) -> bool:
        """Older servers than 15 know no other way, and no word for it."""
        version = int((self.data / "PG_VERSION").read_text(encoding="ascii"))
        return self._settings.get("fsync") == "off" and version >= 15

    def _make_template(self) -> None:
        self._administer(SQL("CREATE DATABASE {}").format(Identifier(_TEMPLATE)))
        self._administer(SQL("CREATE ROLE {} LOGIN").format(Identifier(SERVICE)))
        with connect(self.url(_TEMPLATE)) as connection:
            migrate(connection)
            grant(connection, SERVICE)

    def _administer(self, statement: psycopg.sql.Composed) -> None:
        with psycopg.connect(self.url(), autocommit=True) as connection:
            connection.execute(statement)

    def _make_data(self) -> None:
        """Make the folder that it starts from."""
        self._run("initdb", "-U", SUPERUSER, "--auth=trust", "--encoding=UTF8", "--locale=C", "--no-instructions")

    def _run(self, program: str, *arguments: str) -> None:
        """Run a program of PostgreSQL on the data, without waiting for the disk."""
        command = [str(self._binaries / program), "-D", str(self.data), "--no-sync", *arguments]
        done = subprocess.run(_unprivileged(command), capture_output=True, check=False, cwd="/")
        assert done.returncode == 0, done.stderr.decode()

    def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, self.log.read_text()
        try:
            psycopg.connect(self.url(), connect_timeout=5).close()
        except psycopg.OperationalError:
            return False
        return True

    def _end(self, number: int) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(number)
        # Started directly and waited for: a postmaster that is not reaped keeps the next one from starting.
        process.wait()
        poll_until(lambda: not self._has_children(process.pid), "its backends to end")

    def _has_children(self, postmaster: int) -> bool:
        """Tell whether backends of a killed postmaster still hold its memory; they end by themselves."""
        for path in Path("/proc").glob("[0-9]*/cwd"):
            try:
                if path.readlink() == self.data and path.parent.name != str(postmaster):
                    return True
            except OSError:
                continue
        return False


@contextmanager
def running_server(*, fsync: bool = False, settings: Mapping[str, str] | None = None) -> Iterator[PostgresServer]:
    """Run a server for as long as the block lasts."""
    require_binaries()
    # Not the folder of the test: an unprivileged process may not look into that.
    with tempfile.TemporaryDirectory(prefix="auditrace-postgres-", dir=_fast_folder(fsync=fsync)) as name:
        Path(name).chmod(0o755)
        server = PostgresServer(Path(name), fsync=fsync, settings=settings)
        server.start()
        try:
            yield server
        finally:
            server.discard()


def _fast_folder(*, fsync: bool) -> Path | None:
    """Return a folder in memory, where databases are made ten times as fast, for a server without fsync."""
    has_room = _IN_MEMORY.is_dir() and shutil.disk_usage(_IN_MEMORY).free > _ROOM
    return _IN_MEMORY if has_room and not fsync else None


def _unprivileged(command: list[str], death_signal: str = "KILL") -> list[str]:
    """Run as nobody where we are root, which PostgreSQL refuses; end with the tests, however they end."""
    identity = ["--reuid=nobody", "--regid=nogroup", "--clear-groups"] if os.geteuid() == 0 else []
    return ["setpriv", f"--pdeathsig={death_signal}", *identity, "--", *command]

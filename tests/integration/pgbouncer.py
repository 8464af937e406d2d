"""PgBouncer as a child process of the tests: a real pooler before a real PostgreSQL, in the mode that a test says."""

import os
import pwd
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Final

import psycopg
import pytest

from tests.support.poll_until import poll_until
from tests.support.postgres import SUPERUSER, PostgresServer
from tests.support.processes import Process, start_process

_PORT: Final = 6432
_DEBIAN: Final = Path("/usr/sbin/pgbouncer")


def _require_program() -> Path:
    """Return the program; without one the test is skipped, in CI it fails."""
    found = shutil.which("pgbouncer")
    if found is not None:
        return Path(found)
    if _DEBIAN.exists():
        return _DEBIAN
    reason = "no PgBouncer on this machine: install the package pgbouncer"
    if os.environ.get("CI"):  # noqa: TID251 - a test that is not run must be seen in CI
        pytest.fail(reason)
    pytest.skip(reason)


class PgBouncer:
    """One pooler in a folder of its own, on a socket; it ends with the test run, or earlier."""

    def __init__(self, folder: Path, server: PostgresServer, mode: str, *, in_turns: bool = False) -> None:
        """Make its configuration; `in_turns` lends the session next that was lent longest ago, and not the last one."""
        self._in_turns = in_turns
        self._program = _require_program()
        self._server = server
        self.folder = folder
        self._config = folder / "pgbouncer.ini"
        self._log = folder / "pgbouncer.log"
        self._process: Process | None = None
        (folder / "users.txt").write_text(f'"{SUPERUSER}" ""\n', encoding="utf-8")
        if os.geteuid() == 0:
            account = pwd.getpwnam("nobody")
            os.chown(folder, account.pw_uid, account.pw_gid)
        self._write(mode)

    def url(self, url: str) -> str:
        """Return the URL of one of the server's databases by way of this pooler."""
        name = psycopg.conninfo.conninfo_to_dict(url)["dbname"]
        return f"postgresql:///{name}?host={self.folder}&port={_PORT}&user={SUPERUSER}"

    def start(self) -> None:
        """Start it, and return once it takes connections."""
        identity = ["--reuid=nobody", "--regid=nogroup", "--clear-groups"] if os.geteuid() == 0 else []
        with self._log.open("ab") as log:
            self._process = start_process(
                ["setpriv", "--pdeathsig=KILL", *identity, "--", self._program, self._config],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        poll_until(self._answers, "PgBouncer to take connections")

    def stop(self) -> None:
        """End it at once, and every connection through it."""
        process, self._process = self._process, None
        if process is not None:
            process.send_signal(signal.SIGTERM)
            process.wait()

    def restart(self, mode: str) -> None:
        """Start it again, in this mode; every connection through it is lost."""
        self.stop()
        self._write(mode)
        self.start()

    def change(self, mode: str) -> None:
        """Pool by another mode from now on, as an operator does who edits the configuration and reloads it."""
        assert self._process is not None
        self._write(mode)
        self._process.send_signal(signal.SIGHUP)
        poll_until(lambda: self._mode() == mode, "PgBouncer to pool in another way")

    def _mode(self) -> str:
        with psycopg.connect(self.url("postgresql:///pgbouncer"), autocommit=True, prepare_threshold=None) as console:
            return {row[0]: row[1] for row in psycopg.ClientCursor(console).execute("SHOW CONFIG")}["pool_mode"]

    def _write(self, mode: str) -> None:
        self._config.write_text(
            "[databases]\n"
            f"* = host={self._server.folder} user={SUPERUSER}\n"
            "[pgbouncer]\n"
            f"pool_mode = {mode}\n"
            f"listen_port = {_PORT}\n"
            f"unix_socket_dir = {self.folder}\n"
            "listen_addr =\n"
            "auth_type = trust\n"
            f"auth_file = {self.folder / 'users.txt'}\n"
            f"admin_users = {SUPERUSER}\n"
            "default_pool_size = 40\n"
            "max_client_conn = 200\n"
            f"server_round_robin = {int(self._in_turns)}\n",
            encoding="utf-8",
        )

    def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, self._log.read_text()
        try:
            psycopg.connect(self.url("postgresql:///pgbouncer"), connect_timeout=5).close()
        except psycopg.OperationalError:
            return False
        return True

"""Whatever stops a start is said in a line for each mistake, stands in `doctor`'s table, and leaves nothing behind."""

import json
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any, Final

import psycopg
import pytest

from service.bootstrap.node import open_node
from service.cli.main import main
from service.config import read_settings
from tests.contract.start_breaks import (
    BEFORE_THE_FIRST_START,
    DATABASE,
    JWT,
    KEPT_OUT,
    KEYS,
    LATER,
    OTLP,
    SECRET,
    private,
)
from tests.support.collector import ROOT
from tests.support.ports import ReservedPorts
from tests.support.postgres import PostgresServer
from tests.support.service import Service

# What makes root see every file: without them it is a user like any other. Others have none to give up.
_AS_ANYBODY: Final = ("setpriv", "--bounding-set=-dac_override,-dac_read_search", "--") if os.geteuid() == 0 else ()


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the service has started once, with its defaults."""
    folder = tmp_path_factory.mktemp("begun")
    before = Path.cwd()
    os.chdir(folder)
    try:
        with open_node(read_settings({}), "cli") as node:
            node.ensure_admin_key()
    finally:
        os.chdir(before)
    (folder / "var" / "archive").mkdir()
    return folder


class Start:
    """Starts the service and asks the doctor in one folder, in this process or in one that permissions hold for."""

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder = folder
        self.is_kept_out = False
        self._patch, self._capsys = patch, capsys
        patch.chdir(folder)
        self.set({"AUDITRACE_PORT": "0"})

    def set(self, variables: Mapping[str, str]) -> None:
        """Set variables, of this process too."""
        for name, value in variables.items():
            self._patch.setenv(name, value)

    def run(self, *arguments: str) -> tuple[int, str, str]:
        """Run a command, and return its exit status and what it wrote."""
        if self.is_kept_out:
            command = [*_AS_ANYBODY, sys.executable, "-m", "service", *arguments]
            environment = {**os.environ, "PYTHONPATH": str(ROOT)}  # noqa: TID251 - of the test run
            done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=60)
            return done.returncode, done.stdout, done.stderr
        # A start that is not refused would go on for ever, and is to end as a failed test.
        ending = threading.Timer(60, os.kill, [os.getpid(), signal.SIGTERM])
        ending.start()
        try:
            status = main(arguments)
        finally:
            ending.cancel()
        return status, *self._capsys.readouterr()

    def tree(self) -> dict[str, tuple[int, bytes]]:
        """Return what is in the folder, modes and contents; nothing where it may not be looked at."""
        if self.is_kept_out:
            return {}
        return {
            str(path.relative_to(self.folder)): (path.lstat().st_mode, path.read_bytes() if path.is_file() else b"")
            for path in self.folder.rglob("*")
            # SQLite's own, beside a database that is read.
            if not path.name.endswith(("-wal", "-shm"))
        }

    def refused(self, check: str, said: list[str]) -> dict[str, Any]:
        """See that a start is refused and the doctor says the same; return its rows."""
        before = self.tree()
        status, _, errors = self.run("serve")
        assert "Traceback" not in errors
        lines = [line.removeprefix("auditrace: ") for line in errors.splitlines()]
        assert (status, len(lines)) == (2, len(said)), errors
        assert all(part in line for part, line in zip(said, lines, strict=True)), errors
        assert self.tree() == before
        status, table, errors = self.run("doctor", "--json")
        assert errors == ""
        rows = {row["check"]: row for row in json.loads(table)["checks"]}
        assert status == (1 if "wrong" in {row["status"] for row in rows.values()} else 2)
        assert rows[check]["status"] in {"wrong", "unknown"}
        assert lines[0] in rows[check]["detail"]
        not_right = "; ".join(row["detail"] for row in rows.values() if row["status"] != "ok")
        assert all(line in not_right for line in lines)
        assert self.tree() == before
        assert SECRET not in "".join(lines) + table
        return rows


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Start:
    """An empty folder."""
    return Start(tmp_path, monkeypatch, capsys)


@pytest.mark.parametrize("what", BEFORE_THE_FIRST_START)
def test_a_refused_first_start_leaves_the_folder_as_it_was(start: Start, what: str) -> None:
    """No database, no keys, no folder; and the doctor knows why, before and after."""
    spoil, check, said = BEFORE_THE_FIRST_START[what]
    port = str(ReservedPorts(1).numbers[0])
    start.set({name: value.replace("{port}", port) for name, value in spoil(start.folder).items()})
    start.refused(check, said)


@pytest.mark.parametrize("what", LATER)
def test_a_refused_start_leaves_a_ledger_as_it_was(start: Start, begun: Path, what: str) -> None:
    """Nothing is made in the place of what is missing or wrong."""
    shutil.copytree(begun, start.folder, dirs_exist_ok=True)
    spoil, check, said = LATER[what]
    start.set(spoil(start.folder))
    start.refused(check, said)


@pytest.mark.parametrize("what", KEPT_OUT)
def test_what_may_not_be_read_is_unknown_and_the_other_rows_go_on(start: Start, begun: Path, what: str) -> None:
    """The service is refused in one line, and the doctor says that it could not look, and looks at the rest."""
    shutil.copytree(begun, start.folder, dirs_exist_ok=True)
    spoil, check, said = KEPT_OUT[what]
    start.set(spoil(start.folder))
    start.is_kept_out = True
    # The test looks at the folder as itself, which may be nobody to whom it is open.
    rows = start.refused(check, said)
    assert rows[check]["status"] == "unknown"
    assert {"settings", "listening", "templates", "telemetry", "outbox", "durability"} <= rows.keys()
    assert rows["settings"]["status"] == rows["telemetry"]["status"] == "ok"


def test_a_port_in_use_leaves_nothing(start: Start) -> None:
    """The port is taken before anything is made, and both say which one it is."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        start.set({"AUDITRACE_PORT": str(other.getsockname()[1])})
        start.refused("listening", [f"cannot listen on 127.0.0.1:{other.getsockname()[1]}: Address already in use"])


def test_all_mistakes_of_all_settings_come_at_once(start: Start) -> None:
    """One start lists everything: nobody has to start ten times."""
    taken = socket.create_server(("127.0.0.1", 0))
    with taken:
        start.set(
            {
                "AUDITRACE_PORT": str(taken.getsockname()[1]),
                "AUDITRACE_WORKER_SLOTS": "none",
                "AUDITRACE_CHECKPONT_INTERVAL": "1s",
                "AUDITRACE_DATABASE": "sqlite:///",
                "AUDITRACE_TEMPLATES": "nowhere.toml",
                "OTEL_TRACES_SAMPLER": "sometimes",
                "OTEL_EXPORTER_OTLP_TIMEOUT": "soon",
                **OTLP,
                "HTTP_PROXY": "foo://x",
                "AUDITRACE_SIGNING_KEY": "jobs/signing.pem",
                "AUDITRACE_LEDGER_SECRET": "jobs/ledger.secret",
                **JWT,
                "AUDITRACE_JWT_JWKS": "nowhere.json",
                "AUDITRACE_WORK_FOLDER": "jobs/runs",
            }
        )
        private(start.folder / "jobs", b"a file")
        start.refused(
            "settings",
            [
                "AUDITRACE_WORKER_SLOTS: 'none'",
                "AUDITRACE_CHECKPONT_INTERVAL: there is no such setting; did you mean AUDITRACE_CHECKPOINT_INTERVAL?",
                "cannot listen on",
                "AUDITRACE_DATABASE is 'sqlite:///'",
                "nowhere.toml cannot be read",
                "OTEL_EXPORTER_OTLP_TIMEOUT: 'soon' is not a number of seconds up to 3600",
                "HTTP_PROXY: foo://",
                "OTEL_TRACES_SAMPLER: 'sometimes'",
                "jobs is no folder",
                "jobs is no folder",
                "AUDITRACE_JWT_JWKS: there is no file nowhere.json",
                "AUDITRACE_WORK_FOLDER: ",
            ],
        )


@pytest.mark.parametrize("command", ["serve", "doctor"])
def test_what_the_sdk_reads_while_it_is_loaded_is_refused_in_lines_too(tmp_path: Path, command: str) -> None:
    """No traceback of OpenTelemetry comes before them, and none instead of them."""
    wrong = {
        "OTEL_PYTHON_CONTEXT": "nowhere",
        "OTEL_EXPERIMENTAL_RESOURCE_DETECTORS": "none-such",
        "OTEL_RESOURCE_ATTRIBUTES": "a,=b",
        "OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT": "-5",
    }
    environment = {"PYTHONPATH": str(ROOT), "AUDITRACE_PORT": "0", **wrong}
    done = subprocess.run(
        [sys.executable, "-m", "service", command],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == (2 if command == "serve" else 1)
    told = (
        done.stderr.splitlines()
        if command == "serve"
        else [line for line in done.stdout.splitlines() if "OTEL" in line]
    )
    assert len(told) == 5, done.stderr
    assert all(any(name in line for line in told) for name in wrong)
    assert command == "serve" or done.stderr == ""


def test_no_command_ends_in_the_sdk_while_it_is_loaded(tmp_path: Path) -> None:
    """A command that loads it late says in lines what is wrong, as those do that load it at their start."""
    environment = {"PYTHONPATH": str(ROOT), "OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT": "-5"}
    command = [sys.executable, "-m", "service", "keys", "create", "ann", "--role", "viewer"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("auditrace: there is no ledger at ")
    assert done.stderr.count("\n") == 1


def test_a_relay_that_does_not_end_prints_no_document(start: Start) -> None:
    """`--json` is one document on standard output, and a process that runs on has none to print."""
    status, printed, errors = start.run("relay", "--json")
    assert (status, printed, len(errors.splitlines())) == (2, "", 1)
    assert "--json belongs to what ends by itself" in errors


def test_options_are_settings_too(start: Start) -> None:
    """`--port` is refused together with what else is wrong."""
    start.set({"AUDITRACE_LANES": "many"})
    status, _, errors = start.run("serve", "--port", "99999")
    assert (status, len(errors.splitlines())) == (2, 2)
    assert "AUDITRACE_LANES" in errors
    assert "--port 99999 is not a whole number from 0 to 65535" in errors


@pytest.mark.parametrize("command", ["work", "relay"])
def test_the_other_processes_refuse_alike(start: Start, command: str) -> None:
    """Every mistake that concerns them in one go, with nothing left behind."""
    start.set({"AUDITRACE_LANES": "many", "OTEL_CONFIG_FILE": "x", "AUDITRACE_TEMPLATES": "nowhere"})
    status, _, errors = start.run(command)
    lines = (
        ["AUDITRACE_LANES", "nowhere", "OTEL_CONFIG_FILE"] if command == "work" else ["AUDITRACE_LANES", "OTEL_CONF"]
    )
    assert (status, len(errors.splitlines())) == (2, len(lines)), errors
    assert all(part in line for part, line in zip(lines, errors.splitlines(), strict=True))
    assert start.tree() == {}


def test_an_address_where_an_auditrace_answers_is_as_it_should_be(start: Start) -> None:
    """The doctor is asked beside a running service more often than not, and does not take it for a stranger."""
    with Service(start.folder / "service") as service:
        start.set({"AUDITRACE_PORT": service.url.rpartition(":")[2]})
        _, table, _ = start.run("doctor", "--json")
        row = next(row for row in json.loads(table)["checks"] if row["check"] == "listening")
        assert (row["status"], row["detail"]) == ("ok", "an auditrace answers there")


def test_a_server_that_a_start_cannot_work_on_is_refused(start: Start, postgres_server: PostgresServer) -> None:
    """A newer schema, and a role that may not migrate an older one, are found before any key is made."""
    url = postgres_server.create_database()
    start.set({"AUDITRACE_DATABASE": url})
    assert start.run("migrate")[0] == 0
    with psycopg.connect(url, autocommit=True) as session:
        session.execute("INSERT INTO schema_steps (number, name) VALUES (99, 'later')")
    start.refused("database", ["written by a newer version"])
    with psycopg.connect(url, autocommit=True) as session:
        session.execute("DELETE FROM schema_steps WHERE number > 1")
        session.execute("REVOKE CREATE ON SCHEMA public FROM PUBLIC")
        session.execute("CREATE ROLE lowly LOGIN")
        session.execute("GRANT SELECT ON schema_steps, schema_additions TO lowly")
    start.set({"PGOPTIONS": "-c role=lowly"})
    start.refused("database", ["steps of this version, and the role lowly does not own it: run `auditrace migrate"])
    start.set({"PGOPTIONS": ""})
    postgres_server.drop_database(url)


def test_a_server_where_another_program_has_the_names_of_the_ledger_is_refused(
    start: Start, postgres_server: PostgresServer
) -> None:
    """Before any key is made: the schema would fail half-way, and the keys would belong to no database."""
    url = postgres_server.create_database("template0")
    with psycopg.connect(url, autocommit=True) as session:
        session.execute("CREATE TABLE jobs (text text)")
        session.execute("CREATE VIEW leases AS SELECT 1")
    start.set({"AUDITRACE_DATABASE": url})
    start.refused("database", ["the schema public has jobs, leases of another program"])
    with psycopg.connect(url, autocommit=True) as session:
        session.execute("DROP TABLE jobs")
        session.execute("ALTER VIEW leases RENAME TO lease_holders")
    assert start.run("migrate")[0] == 0
    postgres_server.drop_database(url)


LOOKING: Final = (
    "keys list",
    "keys public",
    "keys revoke anna",
    "keys rotate",
    "keys create anna --role admin",
    "export",
    "relay --once",
    "relay --retry-parked",
    "verify --without-key --database",
    "copy --from sqlite:///var/auditrace.db --to postgresql:///x",
    "migrate --after-restore",
)


@pytest.mark.parametrize("command", LOOKING)
def test_a_command_in_the_wrong_folder_makes_nothing_and_says_where_it_looked(start: Start, command: str) -> None:
    """There is no ledger here: the line names the database as it is set, and its absolute path."""
    status, _, errors = start.run(*command.split())
    assert status == 2
    (line,) = errors.splitlines()
    assert f"there is no ledger at sqlite:///{DATABASE} ({start.folder / DATABASE})" in line
    assert start.tree() == {}


FOREIGN: Final = (
    *(command for command in LOOKING if not command.startswith("copy")),
    "relay",
    "relay --once --json",
    "relay --replay-all",
)


@pytest.mark.parametrize("command", FOREIGN)
def test_a_command_makes_no_ledger_in_the_database_of_another_program(start: Start, command: str) -> None:
    """A path that is off by one leads to a file of something else, which stays as it is to the byte."""
    (start.folder / "var").mkdir()
    with closing(sqlite3.connect(start.folder / DATABASE)) as connection:
        connection.execute("CREATE TABLE recipes (text)")
    before = start.tree()
    status, printed, errors = start.run(*command.split())
    assert (status, printed) == (2, "")
    (line,) = errors.splitlines()
    assert str(start.folder / DATABASE) in line
    assert start.tree() == before


@pytest.mark.parametrize("command", ["keys list", "keys revoke anna", "keys public", "export", "relay --once"])
def test_a_file_that_is_no_database_is_named(start: Start, command: str) -> None:
    """Whoever looks at the wrong file is told at which one."""
    private(start.folder / DATABASE, b"no database" * 1000)
    status, _, errors = start.run(*command.split())
    assert (status, len(errors.splitlines())) == (2, 1)
    assert f"{start.folder / DATABASE}: " in errors


@pytest.mark.parametrize("command", ["keys revoke anna", "keys create anna --role admin", "relay --once"])
def test_a_schema_alone_is_no_ledger(start: Start, command: str) -> None:
    """After `auditrace migrate` nothing was committed yet: the first start makes the keys, and no other command."""
    assert start.run("migrate")[0] == 0
    before = start.tree()
    status, _, errors = start.run(*command.split())
    assert (status, len(errors.splitlines())) == (2, 1)
    assert f"there is no ledger at sqlite:///{DATABASE}" in errors
    assert start.tree() == before


@pytest.mark.parametrize("command", ["doctor", "templates", "doctor --ledger"])
def test_a_command_that_needs_no_ledger_makes_none(start: Start, command: str) -> None:
    """It says what there is."""
    assert start.run(*command.split())[0] == (2 if "--ledger" in command else 0)
    assert start.tree() == {}


def test_a_ledger_is_looked_at_without_its_keys(start: Start, begun: Path) -> None:
    """Listing keys needs neither the signing key nor templates, and leaves no record."""
    shutil.copytree(begun, start.folder, dirs_exist_ok=True)
    shutil.rmtree(start.folder / KEYS)
    before = start.tree()
    status, listed, _ = start.run("keys", "list", "--json")
    assert (status, [key["name"] for key in json.loads(listed)]) == (0, ["admin"])
    assert start.tree() == before

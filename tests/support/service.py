"""Runs the real service as operators do: `auditrace serve` as a process of its own over a folder, asked over HTTP."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx

from service.processes.serve import LISTENING
from telemetry.audit.verify import Report, read_copy, verify
from tests.support.collector import ROOT
from tests.support.keys import public_key
from tests.support.poll_until import poll_until
from tests.support.processes import Process, start_process

START_S = 60.0
STOP_S = 60.0

TEMPLATES = """
[templates.greet]
description = "Say hello"
command = ["echo", "hello", "{name}"]
[templates.greet.parameters.name]
type = "string"

[templates.approved]
description = "Say hello, once another person has confirmed it"
command = ["echo", "hello"]
requires_confirmation = true
distinct_confirmer = true

[templates.environment]
description = "Print the environment"
command = ["env"]

[templates.fail]
description = "Fail"
command = ["sh", "-c", "exit 3"]
retry_exit_codes = []

[templates.store]
description = "Keep the uploaded files"
command = ["sh", "-c", "cp in/* out/"]

[templates.missing]
description = "Read a file that is not there"
command = ["cat", "/no/such/file"]
retry_exit_codes = []

[templates.sleep]
description = "Sleep, for as long as nobody objects"
command = ["sleep", "{seconds}"]
[templates.sleep.parameters.seconds]
type = "integer"

[templates.wait]
description = "Wait until there is a file"
reads = ["/tmp"]
command = ["sh", "-c", 'until [ -e "$0" ]; do sleep 0.05; done', "{file}"]
[templates.wait.parameters.file]
type = "string"
pattern = ".*"
"""


class Service:
    """One `auditrace serve` over one folder; killing and restarting it keeps database, keys, archive and log.

    Args:
        folder: gets everything that the service writes, and `service.log`.
        settings: environment variables over the defaults of this harness.
        arguments: of `auditrace serve`.
    """

    def __init__(self, folder: Path, settings: Mapping[str, str] | None = None, arguments: Sequence[str] = ()) -> None:
        self.folder = folder
        self.database = folder / "auditrace.db"
        self.archive = folder / "archive" / "audit.jsonl"
        self.log = folder / "service.log"
        self.root = ROOT
        """Whose code runs: that of the checkout in this folder."""
        self.url = ""
        self.said: list[str] = []
        """The lines that it wrote on standard output, over restarts."""
        self._arguments = arguments
        self._keys: dict[str, str] = {}
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "jobs.toml").write_text(TEMPLATES, encoding="utf-8")
        self.environment = {
            "PATH": os.environ["PATH"],  # noqa: TID251 - of the test run
            "AUDITRACE_DATABASE": f"sqlite:///{self.database}",
            "AUDITRACE_AUDIT_ARCHIVE": str(self.archive),
            "AUDITRACE_SIGNING_KEY": str(folder / "keys" / "signing.pem"),
            "AUDITRACE_LEDGER_SECRET": str(folder / "keys" / "ledger.secret"),
            "AUDITRACE_ADMIN_KEY": str(folder / "keys" / "admin.key"),
            "AUDITRACE_TEMPLATES": str(folder / "jobs.toml"),
            **(settings or {}),
        }
        self.process: Process | None = None
        self.around: Sequence[str] = ()
        """The command that starts it, with the beginning of its arguments; it can make namespaces for it."""
        self.terminal: int | None = None
        """A descriptor of the terminal that controls it; without one it has none, whatever the test run has."""

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            assert self.stop() == 0, self.log.read_text(errors="replace")[-4000:]
        else:
            self.kill()

    def start(self) -> None:
        """Start it and return when it takes requests."""
        session = ["setsid"] if self.terminal is None else ["setsid", "--ctty"]
        with self.log.open("ab") as log:
            self.process = start_process(
                [*self.around, *session, sys.executable, "-m", "service", "serve", "--port", "0", *self._arguments],
                env=self.environment,
                cwd=self.root,
                stdin=self.terminal if self.terminal is not None else subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        started = threading.Event()
        threading.Thread(target=self._read, args=[self.process, started], daemon=True).start()
        assert started.wait(START_S), "the service neither listens nor ends"
        assert self.url, self.log.read_text(errors="replace")[-4000:]

    def stop(self) -> int:
        """End it with SIGTERM and return its exit status; 0 when it does not run."""
        if self.process is None:
            return 0
        self.process.send_signal(signal.SIGTERM)
        status = self.process.wait(STOP_S)
        self.process = None
        return status

    def kill(self) -> None:
        """End it with SIGKILL; does nothing when it has ended."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def command(self, *arguments: str, check: bool = True) -> "subprocess.CompletedProcess[str]":
        """Run another `auditrace` command over the same folder."""
        done = subprocess.run(
            [sys.executable, "-m", "service", *arguments],
            env=self.environment,
            cwd=self.root,
            capture_output=True,
            text=True,
            check=False,
            timeout=STOP_S,
        )
        assert not check or done.returncode == 0, done.stderr
        return done

    def key(self, name: str, *roles: str) -> str:
        """Return the API key of this name; made the first time, and kept over restarts."""
        if name not in self._keys:
            given = [part for role in roles or ("admin",) for part in ("--role", role)]
            self._keys[name] = json.loads(self.command("keys", "create", name, *given, "--json").stdout)["key"]
        return self._keys[name]

    def admin(self) -> str:
        """Return the key that the first start made."""
        return (self.folder / "keys" / "admin.key").read_text().strip()

    def client(self, key: str | None = None) -> "Client":
        """Return a client of the running service; without a key, the administrator's."""
        return Client(self.url, key or self.admin())

    def verify(self, *paths: Path) -> Report:
        """Verify a copy with the public key alone; without paths, the embedded archive."""
        key = public_key(self.folder / "keys" / "signing.pem")
        return verify(read_copy(paths or [self.archive.parent]), public_keys=[key])

    def rows(self, sql: str, *values: object) -> list[tuple[Any, ...]]:
        """Read straight from the database file."""
        with closing(sqlite3.connect(f"file:{self.database}?mode=ro", uri=True, timeout=30)) as connection:
            return connection.execute(sql, values).fetchall()

    def _read(self, process: Process, started: threading.Event) -> None:
        for line in process.stdout or ():
            self.said.append(line.rstrip("\n"))
            if line.startswith(LISTENING):
                self.url = line.removeprefix(LISTENING).strip()
                started.set()
        started.set()


class Client:
    """An API client that speaks to the service over the network."""

    def __init__(self, url: str, key: str) -> None:
        self.http = httpx.Client(base_url=url, headers={"Authorization": f"Bearer {key}"}, timeout=30.0)

    def post(self, path: str, body: Any = None, *, expect: int = 200, headers: Mapping[str, str] | None = None) -> Any:
        """Send a POST, and return the document of the expected answer."""
        answer = self.http.post(path, json=body, headers=headers)
        assert answer.status_code == expect, answer.text
        return answer.json()

    def get(self, path: str, **parameters: Any) -> Any:
        """Send a GET, and return its document."""
        answer = self.http.get(path, params=parameters)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def create(self, template: str, **parameters: Any) -> dict[str, Any]:
        """Create a job."""
        job: dict[str, Any] = self.post("/v1/jobs", {"template": template, "parameters": parameters}, expect=201)
        return job

    def run(self, template: str, headers: Mapping[str, str] | None = None, **parameters: Any) -> str:
        """Create, draft and trigger a job that needs no confirmation; return its id."""
        body = {"template": template, "parameters": parameters}
        job_id = str(self.post("/v1/jobs", body, expect=201, headers=headers)["id"])
        self.post(f"/v1/jobs/{job_id}/draft", headers=headers)
        self.post(f"/v1/jobs/{job_id}/run", headers=headers)
        return job_id

    def until(self, job_id: str, *statuses: str, timeout_s: float = 60.0) -> dict[str, Any]:
        """Wait until the job is in one of these states, and return it."""
        seen: list[dict[str, Any]] = []

        def is_there() -> bool:
            seen[:] = [self.get(f"/v1/jobs/{job_id}")]
            return seen[0]["status"] in statuses

        poll_until(is_there, f"{' or '.join(statuses)}", timeout_s)
        return seen[0]

    def trail(self, job_id: str) -> list[dict[str, Any]]:
        """Return the records of a job, oldest first."""
        return list(reversed(self.get(f"/v1/jobs/{job_id}/audit", limit=1000)["records"]))

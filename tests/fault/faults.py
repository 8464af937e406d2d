"""Lets a process die or fail at each of its system calls in turn, by strace, and says what it had told its client.

Source: strace(1), `inject`; the method is that of tessera's fault tests.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import msgspec
import pytest

from tests.support.processes import start_process

ROOT: Final = Path(__file__).resolve().parents[2]

# Those that a machine does not have are passed over, by the question mark.
WRITING: Final = (
    "?open,openat,?creat,write,pwrite64,?writev,?pwritev,fsync,fdatasync,?sync_file_range,ftruncate,?fallocate,"
    "?rename,?renameat,?renameat2,?unlink,?unlinkat,?link,?linkat,?mkdir,?mkdirat,?fchmod,?fchown"
)
"""The calls that change files, or are about to."""

_CALL: Final = re.compile(r"^([a-z0-9_]+)\(", re.MULTILINE)


class Fault(msgspec.Struct, frozen=True):
    """What happens at one system call of a thread: a signal or an error, once, or at every call from there on."""

    what: str
    """As strace has it: `signal=KILL`, `error=EIO`."""
    calls: Sequence[str]
    """The calls that the thread makes when nothing happens to it, in order."""
    place: int
    """Which of them it is, from 0."""
    is_lasting: bool

    def __str__(self) -> str:
        call = self.calls[self.place]
        number = self._before(call) + 1
        lasting = " and from there on" if self.is_lasting else ""
        return f"{self.what} at call {self.place + 1}, {call} {number}{lasting}"

    @property
    def options(self) -> Sequence[str]:
        """The options of strace for it; each name of a call has a count of its own."""
        call = self.calls[self.place]
        if not self.is_lasting:
            return ["-e", f"trace={call}", "-e", f"inject={call}:{self.what}:when={self._before(call) + 1}"]
        names = sorted(set(self.calls))
        injections = [f"inject={name}:{self.what}:when={self._before(name) + 1}+" for name in names]
        options = ["-e", f"trace={','.join(names)}"]
        return [*options, *(option for injection in injections for option in ("-e", injection))]

    def _before(self, call: str) -> int:
        return self.calls[: self.place].count(call)


class Ended(msgspec.Struct, frozen=True):
    """What a child had said, in order, and how it ended: its exit status, or minus the signal that killed it."""

    said: Sequence[Mapping[str, Any]]
    status: int

    def values(self, key: str) -> Sequence[Any]:
        """Return what was said under this key, in order."""
        return tuple(line[key] for line in self.said if key in line)


def require_strace() -> str:
    """Returns the path of strace; without it the test is skipped, or fails where `CI` is set."""
    found = shutil.which("strace")
    if found is not None:
        return found
    reason = "NO STRACE: no process is killed at its system calls here; install the Debian package strace"
    # The variable belongs to the test run; the rule against the environment is about the service's settings.
    if os.environ.get("CI"):  # noqa: TID251
        pytest.fail(reason)
    pytest.skip(reason)


class Children:
    """The process that forks the children (tests/fault/fault_child.py), one at a time."""

    def __init__(self, log: Path) -> None:
        self._strace = require_strace()
        self._log = log

    def __enter__(self) -> Self:
        with self._log.open("ab") as log:
            self._server = start_process(
                [sys.executable, "-m", "tests.fault.fault_child"],
                cwd=ROOT,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                bufsize=1,
            )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.communicate()

    def calls(self, work: str, folder: Path, **more: Any) -> Sequence[str]:
        """Let a child work undisturbed, and return the calls that its watched thread made, in order."""
        trace = folder / "calls.strace"
        self._run(work, folder, ["-o", str(trace), "-e", f"trace={WRITING}"], more)
        return tuple(_CALL.findall(trace.read_text()))

    def run(self, work: str, folder: Path, fault: Fault, **more: Any) -> Ended:
        """Let a child work with this fault, and return what it said."""
        return self._run(work, folder, ["-o", str(folder / "fault.strace"), *fault.options], more)

    def _run(self, work: str, folder: Path, options: Sequence[str], more: Mapping[str, Any]) -> Ended:
        self._tell(json.dumps({"work": work, "folder": str(folder), **more}))
        first = self._hear()
        if "thread" not in first:
            raise AssertionError(f"the child did not get ready: {first}")
        said: list[Mapping[str, Any]] = []
        with self._watching(str(first["thread"]), options):
            self._tell("go")
            while "ended" not in (line := self._hear()):
                said.append(line)
        return Ended(said, line["ended"])

    @contextmanager
    def _watching(self, thread: str, options: Sequence[str]) -> Iterator[None]:
        command = [self._strace, "-p", thread, *options]
        with start_process(command, stderr=subprocess.PIPE, text=True) as tracer:
            assert tracer.stderr is not None
            answer = tracer.stderr.readline()
            if "attached" not in answer:
                self._tell("no")
                raise AssertionError(f"strace cannot watch the child: {answer}")
            yield

    def _tell(self, line: str) -> None:
        assert self._server.stdin is not None
        self._server.stdin.write(line + "\n")

    def _hear(self) -> dict[str, Any]:
        assert self._server.stdout is not None
        line = self._server.stdout.readline()
        if not line:
            raise AssertionError(f"the process that forks the children is gone: {self._log.read_text()}")
        return dict(json.loads(line))

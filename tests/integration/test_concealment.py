"""What other users of the machine get of a process holds no secret: its command line, and a core dump."""

import os
import resource
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.poll_until import poll_until
from tests.support.processes import heeds, start_process
from tests.support.service import Service

PASSWORD = "c4n4ry-of-a-password"


def test_a_password_in_a_command_line_is_not_shown_by_ps() -> None:
    """It reads `***` while the command runs; the other arguments stay, so that the process can be told from others."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        options = f"sslpassword={PASSWORD}&connect_timeout=600"
        url = f"postgresql://anna:{PASSWORD}@127.0.0.1:{listener.getsockname()[1]}/audit?{options}"
        with start_process(
            [sys.executable, "-m", "service", "verify", "--without-key", "--database", url], stderr=subprocess.PIPE
        ) as command:
            # A command that connects is at work; this server never answers it.
            connection, _ = listener.accept()
            shown = Path(f"/proc/{command.pid}/cmdline").read_bytes()
            command.kill()
            connection.close()
    assert PASSWORD.encode() not in shown
    assert b"\0verify\0--without-key\0--database\0postgresql://***@127.0.0.1:" in shown


@pytest.fixture
def dumping() -> Iterator[bool]:
    """Let child processes write core dumps as large as this process may; False when it may write none."""
    before = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (before[1], before[1]))
    yield before[1] != 0
    resource.setrlimit(resource.RLIMIT_CORE, before)


def _crash(pid: int) -> bool:
    """Send SIGABRT, and return whether the kernel wrote a core dump."""
    os.kill(pid, signal.SIGABRT)
    _, status = os.waitpid(pid, 0)
    assert os.WIFSIGNALED(status)
    return os.WCOREDUMP(status)


@pytest.mark.parametrize("command", ["serve", "work", "relay"])
def test_a_crash_leaves_no_core_dump(tmp_path: Path, dumping: bool, command: str) -> None:
    """Memory holds keys and passwords: a process that is killed by SIGABRT writes none, whatever its limit was."""
    with start_process([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, cwd=tmp_path) as other:
        assert _crash(other.pid) == dumping
    service = Service(tmp_path / "service")
    service.root = tmp_path
    service.start()
    assert service.process is not None
    if command == "serve":
        assert not _crash(service.process.pid)
        service.process = None
        return
    process = start_process(
        [sys.executable, "-m", "service", command], env=service.environment, cwd=tmp_path, stderr=subprocess.DEVNULL
    )
    poll_until(lambda: heeds(process, signal.SIGTERM), "its start")
    assert not _crash(process.pid)
    service.kill()

"""What the tests themselves rest on: processes and ports that depend on nothing inherited, and outlive no test."""

import os
import re
import signal
import socket
import subprocess
import sys
import textwrap
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.support.collector import ROOT
from tests.support.ids import record_ids
from tests.support.otlp_sink import OtlpSink
from tests.support.poll_until import poll_until
from tests.support.ports import ReservedPorts
from tests.support.processes import start_process

# The C library keeps these two for itself: nobody gets them to their defaults again, and nobody sends them.
_OF_LIBC = 1 << 32 - 1 | 1 << 33 - 1


def _is_gone(pid: int) -> bool:
    """Tell whether a process has ended; one that nobody has waited for yet counts as ended."""
    try:
        return ") Z " in Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return True


def _until_it_sleeps(pid: int) -> None:
    """Wait for the program itself: before, the process is still `setpriv` or `env`."""
    poll_until(lambda: Path(f"/proc/{pid}/comm").read_text() == "sleep\n", "the program itself")


def test_a_process_hears_signals_that_the_test_run_ignores_or_blocks() -> None:
    """Under `nohup`, or in a shell that ignores signals, what tests start still has all of them at their defaults."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with start_process(["sleep", "600"]) as process:
            _until_it_sleeps(process.pid)
            status = Path(f"/proc/{process.pid}/status")
            unheard = [int(mask, 16) for mask in re.findall(r"Sig(?:Ign|Blk):\t(\w+)", status.read_text())]
            assert [mask & ~_OF_LIBC for mask in unheard] == [0, 0]
            process.send_signal(signal.SIGHUP)
            assert process.wait(60) == -signal.SIGHUP
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_process_dies_with_a_test_run_that_is_killed() -> None:
    """SIGKILL of the test run ends what it started, though no code of it runs any more."""
    script = """
        from tests.support.processes import start_process
        print(start_process(["sleep", "600"]).pid, flush=True)
        input()
    """
    command = [sys.executable, "-c", textwrap.dedent(script)]
    with start_process(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as run:
        assert run.stdout is not None
        pid = int(run.stdout.readline())
        _until_it_sleeps(pid)
        run.kill()
    poll_until(lambda: _is_gone(pid), "the end of the process")


@pytest.mark.parametrize("ends", ["pass", "raise AssertionError"])
def test_what_a_test_leaves_behind_is_killed_and_told(tmp_path: Path, ends: str) -> None:
    """A test that starts a process and does not end it fails, whether it passed or not, and the process is gone."""
    file = tmp_path / "test_left.py"
    file.write_text(
        "from tests.conftest import *\n"
        "from tests.support.processes import start_process\n"
        "def test_left():\n"
        f"    open({str(tmp_path / 'pid')!r}, 'w').write(str(start_process(['sleep', '600']).pid))\n"
        f"    {ends}\n"
    )
    command = [sys.executable, "-m", "pytest", "-p", "tests.conftest", "-p", "no:cacheprovider", str(file)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stdout
    assert "the test left processes behind" in done.stdout
    assert _is_gone(int((tmp_path / "pid").read_text()))


def test_what_a_fixture_of_many_tests_starts_is_its_own(tmp_path: Path) -> None:
    """Also when the first test asks for it in the midst of its code: the second one still finds it."""
    file = tmp_path / "below" / "test_shared.py"
    file.parent.mkdir()
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    (file.parent / "conftest.py").write_text("from tests.conftest import *\n")
    file.write_text(
        "import pytest\n"
        "from tests.support.processes import start_process\n"
        "@pytest.fixture(scope='session')\n"
        "def shared():\n"
        "    process = start_process(['sleep', '600'])\n"
        "    yield process\n"
        "    process.kill()\n"
        "    process.wait()\n"
        "@pytest.mark.parametrize('turn', range(2))\n"
        "def test_shared(turn, request):\n"
        "    assert request.getfixturevalue('shared').poll() is None\n"
    )
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--import-mode=importlib", str(file)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_a_reserved_port_is_for_its_server_alone() -> None:
    """Nobody gets it by asking for any port; its server may listen, end and listen again; without one it refuses."""
    reserved = ReservedPorts(20)
    assert len(set(reserved.numbers)) == 20
    port = reserved.numbers[0]
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port))
    for _ in range(2):
        with socket.create_server(("127.0.0.1", port)), socket.create_connection(("127.0.0.1", port)) as client:
            assert client.getpeername()[1] == port
    with socket.socket() as other, pytest.raises(OSError, match="in use"):
        other.bind(("127.0.0.1", port))


def test_settings_of_whoever_runs_the_tests_are_not_those_of_the_tests() -> None:
    """Variables that set up a service, its telemetry, a database or a proxy do not reach any test."""
    environment = {**os.environ, "HTTPS_PROXY": "http://127.0.0.1:1", "PGHOST": "nowhere", "AUDITRACE_PORT": "1"}  # noqa: TID251 - of the test run
    script = "import os, tests.conftest as conftest; print(conftest.inherited_settings(sorted(os.environ)))"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.stdout == "['AUDITRACE_PORT', 'HTTPS_PROXY', 'PGHOST']\n", done.stderr


def test_several_threads_take_ids_at_the_same_time() -> None:
    """A test makes records while its lane makes those of the ledger: each gets an id, and no id is given twice."""
    ids, taken = record_ids(), list[str]()

    def take() -> None:
        taken.extend(next(ids) for _ in range(20_000))

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(4) as pool:
            for future in [pool.submit(take) for _ in range(4)]:
                future.result()
    finally:
        sys.setswitchinterval(before)
    assert len(taken) == len(set(taken)) == 80_000


@pytest.mark.parametrize("body", [b"", b"half a"])
def test_a_request_whose_sender_dies_before_its_end_was_not_received(body: bytes) -> None:
    """A sink keeps whole requests only, as servers do: a relay may be killed while it sends one."""
    with OtlpSink() as sink:
        url = urlsplit(sink.http_endpoint)
        with socket.create_connection((url.hostname, url.port)) as connection:
            head = f"POST /v1/logs HTTP/1.1\r\nHost: {url.netloc}\r\nContent-Type: application/x-protobuf\r\n"
            connection.sendall(f"{head}Content-Length: 20\r\n\r\n".encode() + body)
            connection.shutdown(socket.SHUT_WR)
            assert connection.recv(1) == b""
        assert sink.request_count == 0

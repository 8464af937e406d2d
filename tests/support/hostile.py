"""Commands that do what no job should, and a service in namespaces of its own that runs them.

Never run them elsewhere. The service has its own mounts and process ids: a mount that a command makes is seen by nobody
else, and all processes end with the process that started the service.
"""

import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Final, NamedTuple

import pytest

from tests.support.service import Service

ISOLATIONS: Final[Mapping[str, Mapping[str, str]]] = {
    "off": {"AUDITRACE_ISOLATION": "off"},
    "uid": {"AUDITRACE_ISOLATION": "preferred"},
    "bubblewrap": {"AUDITRACE_ISOLATION": "required"},
}
"""The settings under which every program runs, by the name of the isolation."""

MOST_PIDS: Final = 3000
"""What the kernel allows in the namespace (Linux 6.14), so that a bomb that nobody stops stays within it."""
_INIT: Final = """
echo "$1" 2>/dev/null > /proc/sys/kernel/pid_max
# Without bubblewrap there is no sandbox, and the run has only a user of its own.
[ "$2" != uid ] || mount --bind /dev/null "$(command -v bwrap)"
shift 2
"$@" &
wait $!
exec sleep infinity
"""


class Hostile(NamedTuple):
    """A program in Python, and what must come of it. `error_types` are those that are right; None is a success."""

    script: str
    error_types: tuple[str | None, ...]
    limits: str = ""
    artifacts: frozenset[str] = frozenset()
    """What it leaves beside its two streams."""
    isolated: tuple[str | None, ...] = ()
    """What must come of it where the run has a user of its own, if that is something else: the kernel refuses it."""


_IMPORTS: Final = "import os, sys, time, signal, socket, threading, resource, stat\n"
_IDLE: Final = "\ntime.sleep(300)"
_NOTED: Final = frozenset({"notes"})

PROGRAMS: Final = {
    "fork bomb": Hostile("while True: os.fork()", ("processes",), "processes = 64", isolated=("exit",)),
    "fork bomb of sessions": Hostile(
        "while True:\n if os.fork() == 0: os.setsid()", ("processes",), "processes = 64", isolated=("exit",)
    ),
    "thread bomb": Hostile(
        "while True: threading.Thread(target=time.sleep, args=[300]).start()",
        ("processes",),
        'processes = 64\nmemory = "1GiB"',
        isolated=("timeout",),
    ),
    "children that end at once": Hostile(
        "while True:\n if os.fork() == 0: os._exit(0)\n os.wait()", ("cpu",), "cpu_seconds = 1"
    ),
    "memory by many processes": Hostile(
        "[os.fork() for _ in range(3)]\nx = bytearray(b'x') * (40 << 20)" + _IDLE, ("memory",), 'memory = "128MiB"'
    ),
    "many files": Hostile(
        "for n in range(100_000): open(str(n), 'w').close()" + _IDLE, ("folder_limit",), "folder_files = 2000"
    ),
    "many small files fill the disk": Hostile(
        "for n in range(10**6): open(str(n), 'wb').write(bytes(500_000))", ("folder_limit",), 'folder = "16MiB"'
    ),
    "a deleted file that is open": Hostile(
        "held = []\nfor n in range(100):\n held.append(open('x', 'wb', 0)); held[-1].write(bytes(500_000))\n"
        " os.unlink('x')" + _IDLE,
        ("folder_limit",),
        'folder = "16MiB"',
    ),
    "a deep tree": Hostile("for n in range(10_000): os.mkdir('d'); os.chdir('d')" + _IDLE, ("folder_limit",)),
    "a sparse file": Hostile(
        "f = open('big', 'wb'); f.truncate(1 << 30)", ("output_limit", "exit", "signal"), 'output = "1MiB"'
    ),
    "open files": Hostile(
        "try:\n held = [os.open('/dev/null', 0) for _ in range(1000)]\nexcept OSError as e: sys.exit(e.errno)",
        ("exit",),
        "open_files = 32",
    ),
    "a daemon that closes everything": Hostile(
        "if os.fork() == 0:\n os.setsid()\n if os.fork() == 0:\n  os.closerange(0, 1024); os.chdir('/')"
        + _IDLE.replace("\n", "\n  "),
        (None,),
    ),
    "it stops itself": Hostile("os.kill(os.getpid(), signal.SIGSTOP)", ("timeout",)),
    "it stops its supervisor": Hostile(
        "os.kill(os.getppid(), signal.SIGSTOP)" + _IDLE, ("supervisor_lost",), isolated=("timeout", "signal", "exit")
    ),
    "it kills its supervisor": Hostile(
        "os.kill(os.getppid(), signal.SIGKILL)" + _IDLE, ("supervisor_lost",), isolated=("signal", "exit")
    ),
    "a flood of output": Hostile("while True: os.write(1, bytes(65536))", ("output_limit",), 'output = "1MiB"'),
    "names with line breaks": Hostile("open('out/a\\nb', 'w'); open(b'out/\\xff', 'w')", (None,), artifacts=_NOTED),
    "its folder cannot be read": Hostile(
        "open('out/x', 'w'); os.chmod('out', 0); os.chmod('.', 0); os.chmod('..', 0)",
        (None,),
        artifacts=frozenset({"out/x"}),
        isolated=("exit",),
    ),
    "its folder is gone": Hostile(
        "os.rename('../work', '../gone'); os.rename('out', 'in/out')", (None,), artifacts=_NOTED, isolated=("exit",)
    ),
    "links in out": Hostile(
        "os.symlink('/etc/passwd', 'out/a'); os.symlink('/proc/self/environ', 'out/b'); os.mkfifo('out/c')",
        (None,),
        artifacts=_NOTED,
    ),
    "out is a link": Hostile("os.rmdir('out'); os.symlink('/etc', 'out')", (None,), artifacts=_NOTED),
    "hard links": Hostile(
        "open('x', 'w').write('x'); os.link('x', 'out/x'); open('out/y', 'w')",
        (None,),
        artifacts=frozenset({"out/y", "notes"}),
    ),
    "a file of another user": Hostile(
        "open('out/x', 'w'); os.chown('out/x', 12345, 12345)", (None,), artifacts=_NOTED, isolated=("exit",)
    ),
    "a device": Hostile(
        "os.mknod('out/null', stat.S_IFCHR | 0o666, os.makedev(1, 3))", (None,), artifacts=_NOTED, isolated=("exit",)
    ),
    "it ignores SIGTERM": Hostile("signal.signal(signal.SIGTERM, signal.SIG_IGN)" + _IDLE, ("timeout",)),
    "its children still write": Hostile(
        "if os.fork() == 0:\n while True: open('out/x', 'w').write('x')\ntime.sleep(0.2)",
        (None,),
        artifacts=frozenset({"out/x"}),
    ),
    "it lowers its own limits": Hostile(
        "[resource.setrlimit(each, (1, 1)) for each in (resource.RLIMIT_FSIZE, resource.RLIMIT_CPU)]\nwhile True: pass",
        ("cpu", "signal"),
    ),
    "it closes its output": Hostile("os.closerange(0, 3)\nos._exit(3)", ("exit",)),
    "it rewrites its output": Hostile("print('a' * 1000, flush=True); os.ftruncate(1, 0); print('b')", (None,)),
}


def template_of(name: str) -> str:
    """Return the name of the template that runs a program."""
    return name.lower().replace(" ", "-")


def hostile_service(folder: Path, isolation: str) -> Service:
    """Return a service that is not started yet, with a template for each program, and `calm` ones.

    Needs root, for the namespaces; without it the test is skipped, or fails where `CI` is set.
    """
    wrapped = ["unshare", "--mount", "--pid", "--ipc", "--uts", "--fork", "--kill-child", "--mount-proc"]
    done = subprocess.run([*wrapped, "true"], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip(f"NO NAMESPACES: hostile jobs are not tested: {done.stderr.strip()}")
    settings = {"AUDITRACE_WORK_FOLDER": str(folder / "runs"), "AUDITRACE_WORKER_SLOTS": "3"}
    settings |= {"AUDITRACE_RUN_LEASE": "10s", "AUDITRACE_RUN_RENEW": "500ms", **ISOLATIONS[isolation]}
    service = Service(folder / "data", settings)
    service.around = [*wrapped, "sh", "-c", _INIT, "sh", str(MOST_PIDS), isolation]
    templates = (folder / "data" / "jobs.toml").open("a", encoding="utf-8")
    with templates as file:
        for name, program in PROGRAMS.items():
            file.write(_template(template_of(name), program.script, program.limits))
        limits = 'processes = 32768\nmemory = "16GiB"'
        script = (
            "for _ in range(150):\n if os.fork() == 0: os.setsid(); time.sleep(300)\n"
            "for _ in range(4):\n if os.fork() == 0:\n  while True:\n   if os.fork(): os._exit(0)\n   os.setsid()"
            + _IDLE
        )
        file.write(_template("storm", script, limits))
    return service


def _template(name: str, script: str, limits: str) -> str:
    return f"""
[templates.{name}]
description = "Hostile"
command = ["python3", "-I", "-c", {_toml(_IMPORTS + script)}, "{{marker}}"]
timeout = "15s"
max_attempts = 1
parameters.marker = {{ type = "string" }}
[templates.{name}.limits]
{limits}
"""


def _toml(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return '"' + escaped.replace("{", "{{").replace("}", "}}") + '"'

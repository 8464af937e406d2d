"""The sandbox of a run: made by bubblewrap, and then entered by the command, which stays a child of the supervisor.

It uses only the standard library, because the supervisor imports it. bubblewrap makes the namespaces and the file
system, and holds them open with a program that waits. The command is forked into them. So its exit status and its
signal are exact, its process group gets signals, and it is measured as without a sandbox. The first process in the
sandbox is bubblewrap's. It dies with the supervisor, and the kernel then kills all others, however they left their
parents.
"""

import ctypes
import json
import os
import signal
from collections.abc import Sequence

from service.execution.command import control_process, keep_descriptors
from service.execution.procfs import descendants

_PR_SET_PDEATHSIG = 1
_PR_SET_DUMPABLE = 4
_NEWNS = 0x00020000
_NEWCGROUP = 0x02000000
_NEWUTS = 0x04000000
_NEWIPC = 0x08000000
_NEWUSER = 0x10000000
_NEWPID = 0x20000000
_NEWNET = 0x40000000
_HELD_BY = "cat"
"""It answers as soon as the sandbox is there, and waits until its input is closed."""


class SandboxError(Exception):
    """The sandbox could not be made or entered; the text says why."""


class Sandbox:
    """A sandbox without a command. `machinery` are the processes that hold it."""

    def __init__(self, bwrap: str, arguments: Sequence[str]) -> None:
        """Make a sandbox.

        Args:
            bwrap: path of bubblewrap.
            arguments: its options.

        Raises:
            SandboxError: bubblewrap could not make it. The caller reaps its processes.
        """
        self._namespaces = _NEWNS | _NEWCGROUP | _NEWUTS | _NEWIPC | _NEWPID
        self._namespaces |= _NEWNET if "--unshare-net" in arguments else 0
        self._namespaces |= _NEWUSER if "--unshare-user" in arguments else 0
        given, info, said, answer = (os.pipe2(os.O_CLOEXEC) for _ in range(4))
        asked, self._held = os.pipe2(os.O_CLOEXEC)
        self._bwrap = os.fork()
        if self._bwrap == 0:
            try:
                _become_bwrap(bwrap, (asked, answer[1], said[1]), given[0], info[1])
            finally:
                os._exit(127)
        for descriptor in (given[0], info[1], said[1], answer[1], asked):
            os.close(descriptor)
        try:
            os.write(self._held, b"\n")
            # Through a pipe, because the sandbox can read the command line of its first process.
            _write_all(given[1], b"".join(os.fsencode(argument) + b"\0" for argument in arguments))
        except BrokenPipeError:
            pass
        os.close(given[1])
        is_there = os.read(answer[0], 1)
        os.close(answer[0])
        with os.fdopen(info[0], "rb") as document, os.fdopen(said[0], "rb") as failures:
            if not is_there:
                reason = failures.read().decode("utf-8", "replace").strip().rpartition("\n")[2]
                raise SandboxError(reason or f"{bwrap} could not be executed")
            self._first: int = json.loads(document.read())["child-pid"]
        self.machinery = frozenset([self._bwrap, self._first, *descendants(self._first)])

    def fork(self) -> int:
        """Fork a child of this process, a subreaper, into the sandbox; return its process id, and 0 in the child.

        Raises:
            SandboxError: the sandbox could not be entered.
        """
        reading, writing = os.pipe2(os.O_CLOEXEC)
        gate, opened = os.pipe2(os.O_CLOEXEC)
        supervisor_side = os.fork()
        if supervisor_side == 0:
            pid = self._fork_within(writing)
            if pid:
                os._exit(0)
            # The parent has to be gone first: its death would count as the death of the supervisor.
            os.close(writing)
            os.close(opened)
            if os.read(gate, 1):
                return 0
            os._exit(127)
        os.close(writing)
        os.close(gate)
        with os.fdopen(reading, "rb") as answer:
            said = answer.read().decode()
        os.waitpid(supervisor_side, 0)
        try:
            if not said.isdigit():
                raise SandboxError(said or "the sandbox could not be entered")
            os.write(opened, b"\n")
        finally:
            os.close(opened)
        return int(said)

    def _fork_within(self, writing: int) -> int:
        """Join the namespaces and fork; return 0 in the child, and anything else in the parent."""
        try:
            _join(self._first, self._namespaces)
            pid = os.fork()
        except OSError as error:
            os.write(writing, f"its namespaces could not be joined: {error.strerror}".encode())
            return -1
        if pid:
            os.write(writing, str(pid).encode())
        return pid


def leave_machinery() -> None:
    """Enter a user namespace of its own, with the same user, so that a run can neither trace nor read the machinery.

    The machinery has the user of the run here, and no filter of system calls.

    Raises:
        OSError: the kernel refused a call.
    """
    user, group = os.geteuid(), os.getegid()
    # Otherwise the files below belong to root.
    control_process(_PR_SET_DUMPABLE, 1)
    if ctypes.CDLL(None, use_errno=True).unshare(_NEWUSER) != 0:
        raise OSError(ctypes.get_errno(), f"no user namespace for the run: {os.strerror(ctypes.get_errno())}")
    for name, text in (("setgroups", "deny"), ("uid_map", f"{user} {user} 1"), ("gid_map", f"{group} {group} 1")):
        descriptor = os.open(f"/proc/self/{name}", os.O_WRONLY | os.O_CLOEXEC)
        try:
            # As bytes: the files of an encoding need not be seen in the sandbox.
            os.write(descriptor, text.encode())
        finally:
            os.close(descriptor)


def _join(pid: int, namespaces: int) -> None:
    if ctypes.CDLL(None, use_errno=True).setns(os.pidfd_open(pid), namespaces) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def _become_bwrap(bwrap: str, streams: Sequence[int], given: int, info: int) -> None:
    control_process(_PR_SET_PDEATHSIG, signal.SIGKILL)
    for target, descriptor in enumerate(streams):
        os.dup2(descriptor, target)
    keep_descriptors()
    for descriptor in (given, info):
        os.set_inheritable(descriptor, True)
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        signal.signal(number, signal.SIG_DFL)
    options = ["--args", str(given), "--info-fd", str(info)]
    os.execve(bwrap, [bwrap, *options, "--", _HELD_BY], {"PATH": os.defpath})  # noqa: S606 - no shell is the point


def _write_all(descriptor: int, message: bytes) -> None:
    while message:
        message = message[os.write(descriptor, message) :]

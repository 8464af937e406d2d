"""What a run is given, what it may use, and what comes back of it: proven with real processes."""

import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import pytest

from service.bootstrap.templates import load_templates
from service.execution.excerpt import WINDOW_BYTES
from service.execution.outcome import Reason, RunResult
from service.execution.procfs import descendants
from service.execution.spec import DEFAULT_PATH, RunSpec
from service.execution.supervised import SupervisedRun
from service.jobs.plan import executable_argv, render_plan, run_environment
from tests.support.poll_until import poll_until
from tests.support.runs import ISOLATIONS, TRACEPARENT, alive, confinement, open_to_all, run_spec


@pytest.fixture(params=ISOLATIONS, autouse=True)
def isolation(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """Every test holds under every isolation; another user may pass through the folder of the test."""
    open_to_all(tmp_path)
    token = confinement.set(request.param)
    yield request.param
    confinement.reset(token)


def _end(spec: RunSpec) -> RunResult:
    result = SupervisedRun(spec).wait()
    assert spec.workdir_root is not None
    assert list(spec.workdir_root.iterdir()) == [], "the folder of a run is removed, however the run ends"
    return result


def _artifacts(result: RunResult) -> dict[str, bytes]:
    return dict(result.artifacts)


def _python(
    root: Path,
    script: str,
    *arguments: str,
    memory_bytes: int = 256 * 2**20,
    cpu_seconds: int = 30,
    timeout_ms: int = 60_000,
) -> RunSpec:
    return run_spec(
        root,
        "python3",
        "-I",
        "-c",
        script,
        *arguments,
        memory_bytes=memory_bytes,
        cpu_seconds=cpu_seconds,
        timeout_ms=timeout_ms,
    )


# What a run is given.


def test_a_run_sees_only_what_it_is_given(tmp_path: Path) -> None:
    """The environment is exactly PATH, the plan's variables, the trace context and the run's own names."""
    result = _end(run_spec(tmp_path, "env", "-0", environment={"LANG": "C", "SPACED": "a\nb"}))
    variables = dict(entry.split("=", 1) for entry in _artifacts(result)["stdout"].decode().strip("\0").split("\0"))
    work = variables.pop("HOME")
    assert Path(work).parents[1] == tmp_path
    assert variables == {
        "PATH": DEFAULT_PATH,
        "LANG": "C",
        "SPACED": "a\nb",
        "TMPDIR": work,
        "TRACEPARENT": TRACEPARENT,
        "TRACESTATE": "vendor=1",
        "AUDITRACE_JOB_ID": "job-1",
        "AUDITRACE_RUN": "2",
        "AUDITRACE_TEMPLATE": "test",
    }


def test_a_plan_cannot_replace_the_trace_context(tmp_path: Path) -> None:
    """The names that the runner sets win over the plan's; PATH alone may be given."""
    environment = {"TRACEPARENT": "forged", "AUDITRACE_RUN": "9", "PATH": "/bin"}
    result = _end(run_spec(tmp_path, "sh", "-c", "echo $TRACEPARENT $AUDITRACE_RUN $PATH", environment=environment))
    assert _artifacts(result)["stdout"].decode() == f"{TRACEPARENT} 2 /bin\n"


def test_a_run_has_a_session_of_its_own(tmp_path: Path) -> None:
    """The command leads its own session and process group, apart from the worker's and the supervisor's."""
    result = _end(_python(tmp_path, "import os; print(os.getpid() == os.getsid(0) == os.getpgid(0), os.getppid())"))
    is_leader, supervisor = _artifacts(result)["stdout"].split()
    assert is_leader == b"True"
    assert int(supervisor) != os.getpid()


def test_a_run_holds_no_descriptor_of_the_worker(tmp_path: Path) -> None:
    """The command has standard input (empty), output and error; inheritable descriptors of the worker are closed."""
    reading, writing = os.pipe()
    os.set_inheritable(writing, True)
    try:
        result = _end(_python(tmp_path, "import os, sys; print(sorted(os.listdir('/proc/self/fd')), sys.stdin.read())"))
    finally:
        os.close(reading)
        os.close(writing)
    # The fourth is the folder that is being listed.
    assert _artifacts(result)["stdout"] == b"['0', '1', '2', '3'] \n"


def test_the_supervisor_holds_the_owner_descriptor(tmp_path: Path) -> None:
    """While a run lives its supervisor keeps the worker's lock, so that nobody takes the worker for dead."""

    def holders() -> list[bytes]:
        found: list[bytes] = []
        for pid in descendants(os.getpid()):
            links = [entry.readlink() for entry in Path(f"/proc/{pid}/fd").iterdir() if entry.is_symlink()]
            if lock in links:
                found.append(Path(f"/proc/{pid}/cmdline").read_bytes())
        return found

    lock = tmp_path / "lock"
    with lock.open("wb") as file:
        spec = run_spec(tmp_path / "runs", "sh", "-c", "mkfifo go; read x < go", owner_descriptor=file.fileno())
        run = SupervisedRun(spec)
        poll_until(lambda: list(tmp_path.glob("runs/*/work/go")) != [], "the command")
        [held] = holders()
        assert b"service.execution.supervisor" in held
        run.kill()
        run.wait()


def test_a_run_starts_with_ordinary_signals(tmp_path: Path) -> None:
    """No signal is ignored or blocked in the command, whatever the worker and the supervisor do with theirs."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
    try:
        result = _end(run_spec(tmp_path, "grep", "-E", "^Sig(Blk|Ign):", "/proc/self/status"))
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGUSR1})
    blocked, ignored = (int(mask, 16) for mask in _artifacts(result)["stdout"].split()[1::2])
    # 32 and 33 are the C library's own: no program can set them, and some are started with them ignored.
    assert (blocked, ignored & ~(0b11 << 31)) == (0, 0)


def test_a_run_cannot_gain_privileges(tmp_path: Path) -> None:
    """Set-user-id programs do not elevate in a run, so that the supervisor can always kill it."""
    result = _end(run_spec(tmp_path, "grep", "NoNewPrivs", "/proc/self/status"))
    assert _artifacts(result)["stdout"].split() == [b"NoNewPrivs:", b"1"]


def test_inputs_lie_in_in(tmp_path: Path) -> None:
    """Uploaded bytes are found by their names in in/, unchanged; without any, the folder is empty."""
    inputs = {"a.bin": bytes(range(256)), "-b c": b"x"}
    result = _end(run_spec(tmp_path, "sh", "-c", "ls in; cat in/a.bin", inputs=inputs))
    assert _artifacts(result)["stdout"] == b"-b c\na.bin\n" + bytes(range(256))
    assert _artifacts(_end(run_spec(tmp_path, "ls", "in")))["stdout"] == b""


@pytest.mark.parametrize("name", ["../escaped", "/escaped", "a/b", "..", ".", "", "a\0b"])
def test_the_name_of_an_input_is_never_a_path(tmp_path: Path, name: str) -> None:
    """An input whose name is not a plain file name stops the run before it begins, and nothing is written."""
    with pytest.raises(ValueError, match="is not the name of a file"):
        SupervisedRun(run_spec(tmp_path / "runs", "true", inputs={name: b"x"}))
    assert list(tmp_path.rglob("*escaped*")) == []
    assert list((tmp_path / "runs").iterdir()) == []


def test_long_arguments_arrive(tmp_path: Path) -> None:
    """Arguments of 100,000 characters, more than a pipe holds at once, arrive whole."""
    arguments = ["ä" * 60_000, "b" * 100_000]
    result = _end(_python(tmp_path, "import sys; print(*map(len, sys.argv[1:]))", *arguments))
    assert _artifacts(result)["stdout"] == b"60000 100000\n"


# What comes back.


@pytest.mark.parametrize("code", [0, 1, 75, 127, 255])
def test_exit_codes_are_exact(tmp_path: Path, code: int) -> None:
    """The exit code is the command's own; 0 alone is success."""
    result = _end(run_spec(tmp_path, "sh", "-c", f"exit {code}"))
    assert (result.exit_code, result.signal) == (code, None)
    assert result.reason is (Reason.EXIT if code else Reason.SUCCESS)
    assert result.error_type == ("exit" if code else None)


@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGKILL, signal.SIGTERM, signal.SIGPIPE])
def test_signals_are_exact(tmp_path: Path, number: signal.Signals) -> None:
    """A command that was killed has a signal and no exit code, and the result names it."""
    result = _end(run_spec(tmp_path, "sh", "-c", f"kill -{int(number)} $$"))
    assert (result.reason, result.exit_code, result.signal) == (Reason.SIGNAL, None, number)
    assert result.detail == f"the command was killed by {number.name}"


def test_a_command_that_does_not_exist(tmp_path: Path) -> None:
    """The result names the program and why it could not be started, and no exit code is made up."""
    result = _end(run_spec(tmp_path, "no-such-command", "secret"))
    assert (result.reason, result.error_type, result.exit_code) == (Reason.START_FAILED, "start_failed", None)
    assert result.detail == "no-such-command: No such file or directory"
    assert result.artifacts == ()


def test_a_command_that_may_not_be_executed(tmp_path: Path) -> None:
    """A file that is not a program is a failed start with the kernel's reason."""
    program = tmp_path / "program"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o644)
    result = _end(run_spec(tmp_path / "runs", str(program)))
    assert (result.reason, result.detail) == (Reason.START_FAILED, f"{program}: Permission denied")


def test_arguments_beyond_the_kernels_limit(tmp_path: Path) -> None:
    """What the kernel does not execute is a failed start, not a lost run."""
    result = _end(run_spec(tmp_path, "true", "x" * 200_000))
    assert (result.reason, result.detail) == (Reason.START_FAILED, "true: Argument list too long")


def test_output_and_files_become_artifacts(tmp_path: Path) -> None:
    """Both streams and the files in out/ come back byte for byte, in a fixed order; other files do not."""
    script = "printf 'a\\377'; echo e >&2; printf 'x' > out/z; : > out/a; echo scratch > scratch"
    assert _end(run_spec(tmp_path, "sh", "-c", script)).artifacts == (
        ("stdout", b"a\xff"),
        ("stderr", b"e\n"),
        ("out/a", b""),
        ("out/z", b"x"),
    )


def test_only_regular_files_are_kept(tmp_path: Path) -> None:
    """Links, pipes, folders and devices in out/ are never followed or opened; the notes name them."""
    secret = tmp_path / "secret"
    secret.write_text("SECRET")
    script = f"cd out; ln -s {secret} link; ln -s /proc/self/environ env; mkfifo pipe; mkdir folder; echo ok > file"
    result = _end(run_spec(tmp_path / "runs", "sh", "-c", script))
    artifacts = _artifacts(result)
    assert set(artifacts) == {"stdout", "stderr", "out/file", "notes"}
    assert result.reason is Reason.SUCCESS
    for name in ("link", "env", "pipe", "folder"):
        assert f"out/{name} is not a regular file and was left out\n" in artifacts["notes"].decode()


@pytest.mark.parametrize("script", ["rmdir out; ln -s {target} out", "rmdir out; : > out", "rm -rf ../work"])
def test_out_itself_is_not_followed(tmp_path: Path, script: str) -> None:
    """A run that puts a link in the place of out/ hands out nothing of the worker."""
    target = tmp_path / "target"
    target.mkdir()
    (target / "secret").write_text("SECRET")
    result = _end(run_spec(tmp_path / "runs", "sh", "-c", script.format(target=target)))
    assert set(_artifacts(result)) == {"stdout", "stderr", "notes"}


def test_streams_are_not_followed(tmp_path: Path, isolation: str) -> None:
    """A run that replaces the file of its own output by a link hands out nothing of the worker."""
    result = _end(run_spec(tmp_path, "sh", "-c", "ln -sf /proc/self/environ ../stdout; echo x"))
    assert _artifacts(result)["stdout"] == (b"x\n" if isolation in {"uid", "bubblewrap"} else b"")


def test_odd_names_are_left_out(tmp_path: Path) -> None:
    """Names with line breaks, broken encoding or of great length get into no listing; the others are kept."""
    script = "open(b'out/a\\nb', 'w'); open(b'out/\\xff', 'w'); open('out/' + 'n' * 250, 'w'); open('out/ü &?', 'w')"
    artifacts = _artifacts(_end(_python(tmp_path, script)))
    assert set(artifacts) == {"stdout", "stderr", "out/ü &?", "notes"}
    assert len(artifacts["notes"].splitlines()) == 3


def test_too_many_files_are_left_out(tmp_path: Path) -> None:
    """Of a thousand files the first 64 by name are kept, and the notes say how many were left out."""
    artifacts = _artifacts(_end(_python(tmp_path, "[open(f'out/{n:04}', 'w') for n in range(1000)]")))
    assert sorted(name for name in artifacts if name.startswith("out/")) == [f"out/{n:04}" for n in range(64)]
    assert b"936 of the 1000 files" in artifacts["notes"]


def test_a_large_artifact_is_cut(tmp_path: Path) -> None:
    """An artifact beyond its own limit is cut there, and the result and the notes say so."""
    script = "head -c 5000 /dev/zero > out/big; echo done"
    result = _end(run_spec(tmp_path, "sh", "-c", script, max_artifact_bytes=1000))
    assert result.reason is Reason.SUCCESS
    assert len(_artifacts(result)["out/big"]) == 1000
    assert result.detail == "out/big was cut from 5000 to 1000 bytes"
    assert _artifacts(result)["notes"] == b"out/big was cut from 5000 to 1000 bytes\n"


def test_the_end_of_standard_error_is_known_though_the_artifact_is_cut(tmp_path: Path) -> None:
    """What a command said last stands in the result, however much it wrote before."""
    script = "head -c 100000 /dev/zero >&2; echo the reason >&2; exit 1"
    result = _end(run_spec(tmp_path, "sh", "-c", script, max_artifact_bytes=1000))
    assert _artifacts(result)["stderr"] == bytes(1000)
    assert len(result.stderr_end) == WINDOW_BYTES
    assert result.stderr_end.endswith(b"\0the reason\n")


def test_folders_without_permission_are_removed(tmp_path: Path) -> None:
    """A run cannot keep its folder by taking permissions away."""
    _end(run_spec(tmp_path, "sh", "-c", "mkdir -p a/b; : > a/b/c; chmod 0 a/b a . .."))


# What a run may use.


def test_a_run_that_takes_too_long_is_asked_to_end(tmp_path: Path) -> None:
    """At the timeout the process group gets SIGTERM; what it still writes, children too, is kept."""
    script = "trap 'echo shell; exit 0' TERM; (trap 'sleep 0.3; echo child; exit' TERM; sleep 99 & wait) & wait; wait"
    result = _end(run_spec(tmp_path, "sh", "-c", script, timeout_ms=300))
    assert (result.reason, result.error_type) == (Reason.TIMEOUT, "timeout")
    assert set(_artifacts(result)["stdout"].split()) == {b"shell", b"child"}
    assert result.duration_ms >= 300


def test_a_run_that_ignores_the_request_is_killed(tmp_path: Path) -> None:
    """A command that ignores SIGTERM is killed 5 s after its timeout."""
    script = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)\nwhile True: signal.pause()"
    result = _end(_python(tmp_path, script, timeout_ms=500))
    assert (result.reason, result.signal) == (Reason.TIMEOUT, signal.SIGKILL)
    assert result.duration_ms >= 5_500


def test_the_most_memory_of_a_run_is_reported(tmp_path: Path) -> None:
    """The peak is the kernel's, so that it counts although the memory was free again before any sample of it."""
    peaks = [_end(_python(tmp_path, f"bytearray({size} * 2**20)")).peak_memory_bytes for size in (1, 100)]
    assert [100 * 2**20 <= (peak or 0) < 200 * 2**20 for peak in peaks] == [False, True]


def test_the_supervisor_is_not_taken_for_the_command(tmp_path: Path) -> None:
    """A command that is smaller than its supervisor has its own peak, or none if it ended before a sample."""
    peak = _end(run_spec(tmp_path, "sleep", "0.5")).peak_memory_bytes
    assert peak is not None
    assert peak < 6 * 2**20


def test_the_sizes_of_streams_are_those_before_the_cut(tmp_path: Path) -> None:
    """What a command wrote is counted, also where the artifact holds only its beginning."""
    spec = _python(tmp_path, "import sys; print('x' * 69_999); print('y' * 9, file=sys.stderr)")
    result = _end(msgspec.structs.replace(spec, max_artifact_bytes=100))
    assert (result.stdout_bytes, result.stderr_bytes) == (70_000, 10)
    assert len(_artifacts(result)["stdout"]) == 100


def test_memory_that_is_used_counts(tmp_path: Path) -> None:
    """A process that fills more memory than allowed is killed, and the result says for what."""
    script = "x = bytearray(b'x') * (200 << 20); import signal; signal.pause()"
    result = _end(_python(tmp_path, script, memory_bytes=64 * 2**20))
    assert (result.reason, result.error_type) == (Reason.MEMORY, "memory")


def test_memory_counts_for_all_processes_together(tmp_path: Path) -> None:
    """Four processes of 40 MiB exceed 100 MiB, though none does alone."""
    script = "import os, signal\n[os.fork() for _ in range(2)]\nx = bytearray(b'x') * (40 << 20); signal.pause()"
    assert _end(_python(tmp_path, script, memory_bytes=100 * 2**20)).reason is Reason.MEMORY


def test_memory_that_processes_share_counts_once(tmp_path: Path) -> None:
    """Four processes that share 60 MiB stay within 150 MiB."""
    script = (
        "import os, threading\nx = bytearray(b'x') * (60 << 20)\n[os.fork() for _ in range(2)]\n"
        "threading.Event().wait(0.5)"
    )
    assert _end(_python(tmp_path, script, memory_bytes=150 * 2**20)).reason is Reason.SUCCESS


def test_memory_that_cannot_be_had(tmp_path: Path) -> None:
    """An allocation far beyond the limit is refused, and the failure of the command is named after it."""
    result = _end(_python(tmp_path, "x = bytes(3 << 30)", memory_bytes=64 * 2**20))
    assert (result.reason, result.exit_code) == (Reason.MEMORY, 1)


def test_processor_time_is_limited(tmp_path: Path) -> None:
    """A command that computes for longer than allowed is stopped, and the result says for what."""
    result = _end(_python(tmp_path, "while True: pass", cpu_seconds=1))
    assert (result.reason, result.error_type) == (Reason.CPU, "cpu")
    assert result.duration_ms >= 500


def test_processor_time_counts_for_all_processes_together(tmp_path: Path) -> None:
    """Children that each stay below the limit exceed it together, those that ended included."""
    script = (
        "import os, time\n"
        "for _ in range(8):\n"
        " if os.fork() == 0:\n"
        "  while time.process_time() < 0.4: pass\n"
        "  os._exit(0)\n"
        " os.wait()\n"
    )
    assert _end(_python(tmp_path, script, cpu_seconds=1)).reason is Reason.CPU


@pytest.mark.parametrize(
    "argv",
    [
        ("yes",),
        ("sh", "-c", "yes >&2"),
        ("sh", "-c", "yes > out/file"),
        ("python3", "-c", "while True: print('x' * 1000)"),
        ("sh", "-c", "while :; do head -c 60000 /dev/zero; head -c 60000 /dev/zero >&2; done"),
        ("sh", "-c", "i=0; while :; do i=$((i+1)); head -c 60000 /dev/zero > out/$i; done"),
        ("sh", "-c", "head -c 60000 /dev/zero; head -c 60000 /dev/zero > out/a"),
    ],
)
def test_output_is_limited(tmp_path: Path, argv: tuple[str, ...]) -> None:
    """More output than allowed, in one stream, in files or together, ends the run; what fits is kept."""
    result = _end(run_spec(tmp_path, *argv, output_bytes=100_000))
    assert (result.reason, result.error_type) == (Reason.OUTPUT_LIMIT, "output_limit")
    artifacts = _artifacts(result)
    assert b" was cut from " in artifacts.pop("notes")
    assert sum(map(len, artifacts.values())) == 100_000


def test_the_kernel_limits_open_files_and_processes(tmp_path: Path, isolation: str) -> None:
    """Processes exactly where the run has a user of its own, else with room for the others of its user."""
    script = "import resource as r; print(r.getrlimit(r.RLIMIT_NOFILE), r.getrlimit(r.RLIMIT_NPROC)[1])"
    spec = _python(tmp_path, script)
    limits = msgspec.structs.replace(spec.limits, open_files=99, processes=77)
    spec = msgspec.structs.replace(spec, limits=limits)
    files, processes = _artifacts(_end(spec))["stdout"].rsplit(b" ", 1)
    assert files == b"(99, 99)"
    assert int(processes) == 77 if isolation in {"uid", "bubblewrap"} else int(processes) > 77 + 1024


def test_processes_within_the_limit_are_left_alone(tmp_path: Path) -> None:
    """A run with as many processes and threads as it may have, and many that end, succeeds."""
    script = (
        "import subprocess, threading\n"
        "threads = [threading.Thread(target=threading.Event().wait, args=[2]) for _ in range(5)]\n"
        "[thread.start() for thread in threads]\n"
        "[subprocess.run(['sh', '-c', 'true & true'], check=True) for _ in range(200)]\n"
    )
    spec = _python(tmp_path, script)
    limits = msgspec.structs.replace(spec.limits, processes=20)
    result = _end(msgspec.structs.replace(spec, limits=limits))
    assert (result.reason, result.detail) == (Reason.SUCCESS, None)


def test_what_a_run_leaves_in_its_folder_counts_at_its_end(tmp_path: Path) -> None:
    """The result does not depend on the moment of a sample: a run that fills its folder and ends at once failed."""
    spec = run_spec(tmp_path, "sh", "-c", "head -c 500000 /dev/zero > a; head -c 700000 /dev/zero > b")
    limits = msgspec.structs.replace(spec.limits, folder_bytes=2**20)
    result = _end(msgspec.structs.replace(spec, limits=limits))
    assert (result.reason, result.error_type) == (Reason.FOLDER_LIMIT, "folder_limit")
    assert result.detail == "stopped: its folder took more than 1048576 bytes"


def test_output_that_just_fits(tmp_path: Path) -> None:
    """A run that writes exactly its limit succeeds, and nothing is cut."""
    result = _end(run_spec(tmp_path, "sh", "-c", "head -c 100000 /dev/zero", output_bytes=100_000))
    assert (result.reason, result.detail) == (Reason.SUCCESS, None)
    assert len(_artifacts(result)["stdout"]) == 100_000


# How a run is followed and stopped.


def test_a_run_is_cancelled_from_another_thread(tmp_path: Path) -> None:
    """Cancelling ends a run that another thread waits for; the first reason given is its error type."""
    run = SupervisedRun(run_spec(tmp_path, "sleep", "300"))
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(run.wait)
        run.cancel("worker_shutdown")
        run.cancel("cancelled")
        result = waiting.result()
    assert (result.reason, result.error_type) == (Reason.CANCELLED, "worker_shutdown")
    run.cancel("too_late")


def test_runs_side_by_side_do_not_mix(tmp_path: Path) -> None:
    """Forty runs in eight threads each come back with their own output and exit code."""

    def run(number: int) -> tuple[int | None, bytes]:
        inputs = {"n": b"%d" % number}
        result = SupervisedRun(run_spec(tmp_path, "sh", "-c", f"cat in/n; exit {number}", inputs=inputs)).wait()
        return result.exit_code, _artifacts(result)["stdout"]

    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(run, range(40))) == [(number, b"%d" % number) for number in range(40)]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "parameters", "inputs", "artifact", "expected"),
    [
        ("line-count", {"path": "/etc/passwd"}, {}, "stdout", b" /etc/passwd\n"),
        # Not /tmp, where other tests make and remove files while it looks.
        ("disk-usage", {"path": "/opt", "depth": 0}, {}, "stdout", b"\t/opt\n"),
        (
            "sha256-files",
            {},
            {"abc.txt": b"abc"},
            "out/SHA256SUMS",
            b"ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad  abc.txt\n",
        ),
        (
            "csv-profile",
            {"delimiter": "semicolon"},
            {"a.csv": b"\xef\xbb\xbfid;name\r\n9;Zoe\r\n10;\r\n9;Ann\r\n10\r\n"},
            "out/profile.csv",
            b"file,column,count,empty,distinct,min,max\r\na.csv,id,4,0,2,9,10\r\na.csv,name,2,2,2,Ann,Zoe\r\n",
        ),
    ],
)
def test_the_shipped_templates_run(
    tmp_path: Path, name: str, parameters: dict[str, object], inputs: dict[str, bytes], artifact: str, expected: bytes
) -> None:
    """Each harmless template of the distribution does on this machine what its description says."""
    template = load_templates(Path(__file__).parents[2] / "jobs.toml").get(name)
    assert template is not None
    plan = render_plan(template, template.check(parameters), (), str)
    argv = executable_argv(plan, {})
    spec = run_spec(
        tmp_path,
        *argv,
        environment=run_environment(plan, {}),
        inputs=inputs,
        network=plan.network,
        reads=plan.reads,
        writes=plan.writes,
    )
    result = _end(spec)
    assert (result.reason, result.detail) == (Reason.SUCCESS, None)
    assert _artifacts(result)[artifact].endswith(expected)


def test_the_template_that_deletes_spares_what_is_young(tmp_path: Path) -> None:
    """Old files go, young files, folders and what links point to stay."""
    template = load_templates(Path(__file__).parents[2] / "jobs.toml").get("delete-old-files")
    assert template is not None
    folder = tmp_path / "cache"
    (folder / "sub").mkdir(parents=True)
    outside = tmp_path / "outside"
    for path in (folder / "old", folder / "sub" / "old", outside):
        path.write_text("x")
        os.utime(path, (0, 0))
    (folder / "young").write_text("x")
    (folder / "link").symlink_to(outside)
    plan = render_plan(template, {"path": str(folder), "days": 7}, (), str)
    spec = run_spec(tmp_path / "runs", *executable_argv(plan, {}), reads=plan.reads, writes=plan.writes)
    result = _end(spec)
    assert result.reason is Reason.SUCCESS
    assert sorted(path.name for path in folder.iterdir()) == ["link", "sub", "young"]
    assert outside.exists()


def test_alive_finds_what_it_looks_for(tmp_path: Path) -> None:
    """The search for survivors, on which other tests rely, finds a process that runs and none that ended."""
    run = SupervisedRun(run_spec(tmp_path, "sh", "-c", "sleep 300; true", "marker-alive-7c1"))
    poll_until(lambda: alive("marker-alive-7c1") != [], "the command runs")
    run.cancel("cancelled")
    run.wait()
    assert alive("marker-alive-7c1") == []

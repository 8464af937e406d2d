"""What a process says and does when it is asked to stop: once, twice, and with sinks that never answer."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.support.collector import NOBODY_HTTP, ROOT
from tests.support.otlp_sink import Answer, OtlpSink
from tests.support.poll_until import poll_until
from tests.support.processes import Process, heeds, start_process
from tests.support.service import STOP_S, Service

GRACE_S = 8
LONG = "3600s"
"""A grace that no test waits for."""


@contextmanager
def _process(service: Service, *arguments: str) -> Iterator[Process]:
    """Run another long-running command over the folder of a service."""
    with service.log.open("ab") as log:
        process = start_process(
            [sys.executable, "-m", "service", *arguments],
            env=service.environment,
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
    with process:
        yield process


def _log(service: Service) -> list[dict[str, str]]:
    return [json.loads(line) for line in service.log.read_text().splitlines() if line.startswith("{")]


def test_sinks_that_never_answer_do_not_prolong_the_grace(tmp_path: Path) -> None:
    """Traces, metrics and logs have the last part of the grace, and nobody reads what is closed after it."""
    with OtlpSink(lambda _: Answer(hang=True)) as sink:
        settings = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": sink.http_endpoint,
            "OTEL_BSP_SCHEDULE_DELAY": "50",
            "OTEL_METRIC_EXPORT_INTERVAL": "200",
            "AUDITRACE_SHUTDOWN_GRACE": f"{GRACE_S}s",
        }
        service = Service(tmp_path, settings)
        service.start()
        service.client().run("greet", name="you")
        poll_until(lambda: sink.request_count >= 2, "requests without an answer")
        assert service.stop() == 0
    (dropped,) = [one["message"] for one in _log(service) if "was dropped" in one["message"]]
    assert 0 < float(dropped.split("within ")[1].split()[0]) <= GRACE_S / 2
    assert [one for one in _log(service) if "closed" in one["message"] or "exception" in one] == []
    assert service.rows("SELECT count(*) FROM audit_streams WHERE closed = 0") == [(0,)]


@pytest.mark.parametrize("role", ["serve", "work"])
def test_a_stop_says_which_runs_it_waits_for_and_a_second_one_ends_them_at_once(tmp_path: Path, role: str) -> None:
    """Ctrl-C names the run and the time; Ctrl-C again hands the run back, closes the stream and exits with 0."""
    service = Service(tmp_path, {"AUDITRACE_SHUTDOWN_GRACE": LONG}, ["--no-worker"] if role == "work" else [])
    with service, ExitStack() as stack:
        worker = stack.enter_context(_process(service, "work")) if role == "work" else service.process
        assert worker is not None
        client = service.client()
        job_id = client.run("sleep", seconds=600)
        client.until(job_id, "running")
        worker.send_signal(signal.SIGINT)
        if role == "work":
            assert worker.stdout is not None
            said = worker.stdout.readline()
        else:
            poll_until(lambda: any("stops" in line for line in service.said), "what it waits for")
            said = next(line for line in service.said if "stops" in line)
        assert f"run 1 of job {job_id}" in said
        assert "1800 s" in said
        worker.send_signal(signal.SIGINT)
        assert worker.wait(STOP_S) == 0
        # Handed back with its attempt: the next worker begins it again.
        assert service.rows("SELECT status FROM job_runs WHERE job_id = ?", job_id) == [("released",)]
        assert service.rows("SELECT status FROM jobs WHERE job_id = ?", job_id) == [("queued",)]
        if role == "serve":
            service.process = None
            assert sum("stops: it waits" in line for line in service.said) == 1
    assert [one for one in _log(service) if "closed" in one["message"]] == []
    assert service.rows("SELECT count(*) FROM audit_streams WHERE closed = 0") == [(0,)]
    assert service.verify().verdict == "intact"


def test_a_second_stop_also_ends_requests_that_are_waited_for(tmp_path: Path) -> None:
    """A client that does not send the rest of its body does not hold up a process that is asked to stop twice."""
    service = Service(tmp_path, {"AUDITRACE_SHUTDOWN_GRACE": LONG})
    service.start()
    client = service.client()
    job = client.create("greet", name="you")

    def halves() -> Iterator[bytes]:
        yield b"half"
        assert service.process is not None
        service.process.send_signal(signal.SIGTERM)
        # Two that come at once count as one.
        poll_until(lambda: not _takes_connections(service), "the first one to be heard")
        service.process.send_signal(signal.SIGTERM)
        # Kept open until the process has ended.
        assert service.process.wait(STOP_S) == 0
        yield b"never read"

    with pytest.raises(Exception, match=r"disconnected|reset|closed|Broken pipe"):
        client.http.put(f"/v1/jobs/{job['id']}/inputs/a.txt", content=halves())
    assert service.process is not None
    assert service.process.wait(STOP_S) == 0
    service.process = None
    assert service.verify().verdict == "intact"


def _takes_connections(service: Service) -> bool:
    host, _, port = service.url.removeprefix("http://").partition(":")
    try:
        socket.create_connection((host, int(port)), timeout=60).close()
    except ConnectionError:
        return False
    return True


@pytest.mark.parametrize("role", ["serve", "work", "relay"])
def test_a_process_says_in_one_line_that_it_stopped_and_that_nothing_is_left(tmp_path: Path, role: str) -> None:
    """The last line on standard output says it, of each kind of process; a worker leaves records to the relays."""
    service = Service(tmp_path)
    with service:
        service.client().create("greet", name="you")
        if role != "serve":
            with _process(service, role) as process:
                poll_until(lambda: heeds(process, signal.SIGTERM), "its start")
                process.send_signal(signal.SIGTERM)
                said, _ = process.communicate(timeout=STOP_S)
                assert process.returncode == 0
    last = service.said[-1] if role == "serve" else said.splitlines()[-1]
    if role == "work":
        assert last.startswith("auditrace stopped: ")
        last = service.said[-1]
    assert last == "auditrace stopped: every record is delivered"


@pytest.mark.parametrize("role", ["serve", "relay"])
def test_a_process_says_what_it_could_not_deliver_and_why(tmp_path: Path, role: str) -> None:
    """What is left in the outbox is counted, and the reason is that of the last attempt."""
    settings = {"AUDITRACE_AUDIT_ENDPOINT": f"{NOBODY_HTTP}/v1/logs", "AUDITRACE_SHUTDOWN_GRACE": "1s"}
    service = Service(tmp_path, settings, ["--no-relay"] if role == "relay" else [])
    with service:
        service.client().create("greet", name="you")
        if role == "serve":
            poll_until(lambda: "are held" in service.client().get("/health/ready")["checks"]["delivery"], "a failure")
    if role == "relay":
        assert "for a relay that runs or for the next start" in service.said[-1]
        with _process(service, "relay") as process:
            poll_until(lambda: any("audit records are held" in one["message"] for one in _log(service)), "a failure")
            process.send_signal(signal.SIGTERM)
            said, _ = process.communicate(timeout=STOP_S)
        last = said.splitlines()[-1]
    else:
        last = service.said[-1]
    assert last.startswith("auditrace stopped: ")
    assert "left in the outbox" in last
    assert "the sink takes none" in last


def test_a_terminal_that_says_twice_that_it_closes_ends_nothing_at_once(tmp_path: Path) -> None:
    """Two SIGHUPs are one request to stop: the run that is waited for goes on to its end."""
    service = Service(tmp_path / "service", {"AUDITRACE_SHUTDOWN_GRACE": LONG})
    master, service.terminal = os.openpty()
    with os.fdopen(master), os.fdopen(service.terminal), service:
        client = service.client()
        job_id = client.run("wait", file=str(tmp_path / "end"))
        client.until(job_id, "running")
        assert service.process is not None
        service.process.send_signal(signal.SIGHUP)
        poll_until(lambda: any("stops" in line for line in service.said), "what it waits for")
        service.process.send_signal(signal.SIGHUP)
        (tmp_path / "end").touch()
        assert service.process.wait(STOP_S) == 0
        service.process = None
    assert service.rows("SELECT status FROM jobs WHERE job_id = ?", job_id) == [("succeeded",)]

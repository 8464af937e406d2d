"""What the whole service promises, asked of a real process over its real database, worker, relay and archive."""

import json
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from service.config import read_settings
from service.processes.serve import serve
from telemetry import names
from tests.support.poll_until import poll_until
from tests.support.service import STOP_S, Service


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A running service, shared by the tests that leave it running."""
    with Service(tmp_path_factory.mktemp("service")) as running:
        yield running


def test_every_step_of_a_job_is_on_record_with_who_asked_for_it(service: Service) -> None:
    """Four eyes, end to end: each step is a record, a worker's record names who triggered the run."""
    maker, approver = (
        service.client(service.key("omar", "operator", "approver")),
        service.client(service.key("ann", "approver")),
    )
    job = maker.create("approved")
    plan = maker.post(f"/v1/jobs/{job['id']}/draft")["plan"]
    approval = {"confirmed": True, "plan_sha256": plan["sha256"]}
    refusal = maker.post(f"/v1/jobs/{job['id']}/confirm", approval, expect=403)
    approver.post(f"/v1/jobs/{job['id']}/confirm", approval)
    maker.until(job["id"], "succeeded")
    trail = service.client().trail(job["id"])
    told = [
        (record["event_name"], record["attributes"][names.AUDIT_ACTOR_ID], record["attributes"][names.AUDITRACE_RESULT])
        for record in trail
    ]
    worker = trail[-1]["attributes"][names.AUDIT_ACTOR_ID]
    assert told == [
        ("job.create", "omar", "success"),
        ("job.draft", "omar", "success"),
        ("job.confirm", "omar", "denied"),
        ("job.confirm", "ann", "success"),
        ("job.run.trigger", "ann", "success"),
        ("job.status.transition", worker, "success"),
        ("job.status.transition", worker, "success"),
    ]
    assert trail[2]["record_id"] == refusal["audit_record_id"]
    for record in trail[5:]:
        assert record["attributes"][names.AUDITRACE_INITIATOR_ID] == "ann"
        assert record["attributes"][names.AUDITRACE_INITIATOR_RECORD_ID] == trail[4]["record_id"]


def test_a_record_is_in_the_archive_soon_and_says_so(service: Service) -> None:
    """A record's delivery state turns to `delivered` when it stands in the embedded archive."""
    client = service.client()
    receipt = client.create("greet", name="you")["audit"]
    poll_until(
        lambda: client.get(f"/v1/audit/records/{receipt['record_id']}")["delivery"] == "delivered", "the delivery"
    )
    assert receipt["record_hash"] in service.archive.read_text()


def test_the_embedded_archive_verifies_while_the_service_runs(service: Service) -> None:
    """At any moment the archive holds no checkpoint without the records that it names."""
    service.client().create("greet", name="you")
    report = service.verify()
    assert (report.verdict, report.findings) == ("intact", ())


def test_a_client_s_trace_reaches_into_the_child_process(service: Service) -> None:
    """One trace from the client's `traceparent` to the environment of the command, whatever its sampled flag says."""
    client = service.client()
    trace_id = "4bf92f3577b34da6a3ce929d0e0e4736"
    job_id = client.run("environment", {"traceparent": f"00-{trace_id}-00f067aa0ba902b7-00"})
    run = client.until(job_id, "succeeded")["runs"][0]
    printed = client.http.get(f"/v1/jobs/{job_id}/runs/1/artifacts/stdout").text
    assert f"TRACEPARENT=00-{trace_id}-{run['span_id']}-01" in printed.splitlines()
    assert {record["trace_id"] for record in client.trail(job_id)[:5]} == {trace_id}


def test_a_second_process_on_the_same_database_is_seen_by_the_first(service: Service) -> None:
    """A key made by a command works at once, and its record is in the same ledger, in a stream of its own."""
    key = service.key("newcomer", "auditor")
    page = service.client(key).get("/v1/audit/records", event_name="key.create", target_id="newcomer")
    (record,) = page["records"]
    assert record["attributes"][names.AUDITRACE_SOURCE] == "cli"


def test_a_clean_stop_leaves_nothing_undelivered_and_nothing_unanchored(tmp_path: Path) -> None:
    """After SIGTERM the exit status is 0, and the archive holds every record up to the last checkpoint."""
    service = Service(tmp_path)
    service.start()
    job_id = service.client().run("greet", name="you")
    service.client().until(job_id, "succeeded")
    assert service.stop() == 0
    # A copy of the one file is a copy of everything.
    assert sorted(path.name for path in tmp_path.glob("auditrace.db*")) == ["auditrace.db", "auditrace.db.owners"]
    report = service.verify()
    database = json.loads(service.command("verify", "--database", "--without-key", "--json").stdout)
    assert (report.verdict, report.findings) == ("intact", ())
    assert database["records"] == report.records
    # What remains is the last checkpoint itself, which the next one names.
    assert report.unanchored == 1


def test_a_killed_service_loses_nothing_and_closes_what_it_left_open(tmp_path: Path) -> None:
    """SIGKILL in the middle of a run: after the next start the dangling run is closed as unknown and tried again."""
    service = Service(tmp_path)
    service.start()
    client = service.client()
    receipt = client.create("greet", name="you")["audit"]
    job_id = client.run("sleep", seconds=600)
    client.until(job_id, "running")
    service.kill()
    with service:
        client = service.client()
        assert client.get(f"/v1/audit/records/{receipt['record_id']}")["record_hash"] == receipt["record_hash"]
        poll_until(lambda: len(client.get(f"/v1/jobs/{job_id}")["runs"]) == 2, "the second attempt")
        first = client.get(f"/v1/jobs/{job_id}")["runs"][0]
        assert (first["status"], first["error_type"]) == ("unknown", "lease_expired")
        client.post(f"/v1/jobs/{job_id}/cancel")
        poll_until(lambda: client.get(f"/v1/jobs/{job_id}")["runs"][1]["status"] == "cancelled", "the end of the run")
    report = service.verify()
    assert (report.verdict, report.findings) == ("intact", ())


def test_sigterm_hands_a_run_back_to_the_next_process(tmp_path: Path) -> None:
    """A run that does not end within the grace is stopped and queued again, keeping its attempt."""
    service = Service(tmp_path, {"AUDITRACE_SHUTDOWN_GRACE": "250ms"})
    service.start()
    client = service.client()
    job_id = client.run("sleep", seconds=600)
    client.until(job_id, "running")
    assert service.stop() == 0
    with service:
        client = service.client()
        runs = client.get(f"/v1/jobs/{job_id}")["runs"]
        assert runs[0]["status"] == "released"
        client.post(f"/v1/jobs/{job_id}/cancel")


def test_readiness_names_the_part_that_is_in_trouble(tmp_path: Path) -> None:
    """A sink that is away is named, and leaves the service ready: clients never wait for a collector."""
    with Service(
        tmp_path, {"AUDITRACE_AUDIT_ENDPOINT": "http://127.0.0.1:1/v1/logs", "AUDITRACE_SHUTDOWN_GRACE": "1s"}
    ) as service:
        client = service.client()
        client.create("greet", name="you")
        poll_until(lambda: client.get("/health/ready")["checks"]["delivery"] != "ok", "the detail")
        ready = client.get("/health/ready")
    assert ready["status"] == "ready"
    assert "127.0.0.1:1" in ready["checks"]["delivery"]


def test_writes_are_refused_before_the_disk_is_full(tmp_path: Path) -> None:
    """Below the mark a write is answered with 503 and Retry-After, reads of jobs go on, and readiness says why."""
    with Service(tmp_path, {"AUDITRACE_MIN_FREE": "1000000GiB"}) as service:
        client = service.client()
        refused = client.http.post("/v1/jobs", json={"template": "greet", "parameters": {"name": "you"}})
        assert (refused.status_code, refused.json()["error_type"]) == (503, "disk_low")
        assert refused.headers["retry-after"] == "10"
        assert client.get("/v1/jobs")["jobs"] == []
        ready = client.http.get("/health/ready")
        assert ready.status_code == 503
        assert "AUDITRACE_MIN_FREE" in ready.json()["checks"]["ledger"]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"AUDITRACE_PORT": "99999", "AUDITRACE_RUN_LEASE": "soon"}, ["AUDITRACE_PORT", "AUDITRACE_RUN_LEASE"]),
        ({"AUDITRACE_DATABASE": "sqlite:////proc/nowhere/a.db"}, ["/proc/nowhere"]),
        ({"AUDITRACE_DATABASE": "oracle://x"}, ["AUDITRACE_DATABASE"]),
        ({"OTEL_SDK_DISABLED": "true"}, ["OTEL_SDK_DISABLED"]),
        ({"AUDITRACE_TRACE_URL_TEMPLATE": "http://x/"}, ["{trace_id}"]),
    ],
)
def test_wrong_settings_are_all_named_and_start_nothing(
    tmp_path: Path, change: dict[str, str], says: list[str]
) -> None:
    """Exit status 2, every mistake in one go, and no database or key is left behind."""
    service = Service(tmp_path, change)
    done = service.command("serve", check=False)
    assert done.returncode == 2
    assert all(part in done.stderr for part in says), done.stderr
    assert not service.database.exists()
    assert not (tmp_path / "keys").exists()


def test_mistakes_in_templates_are_all_listed(tmp_path: Path) -> None:
    """A `jobs.toml` with several mistakes stops the start, and each mistake is named with its place."""
    service = Service(tmp_path)
    (tmp_path / "jobs.toml").write_text(
        '[templates.a]\ncommand = []\n[templates.b]\ndescription = 5\ntimeout = "soon"\n'
    )
    done = service.command("serve", check=False)
    assert done.returncode == 2
    assert all(part in done.stderr for part in ("templates.a", "templates.b", "soon")), done.stderr
    assert not (tmp_path / "keys").exists()


def test_a_port_in_use_is_said_before_anything_is_started(service: Service, tmp_path: Path) -> None:
    """Two services on one port: the second one says so and leaves its folder as it was."""
    other = Service(tmp_path)
    done = other.command("serve", "--port", service.url.rpartition(":")[2], check=False)
    assert done.returncode == 2
    assert "cannot listen" in done.stderr
    assert not other.database.exists()


def test_a_key_file_that_others_can_read_is_refused(tmp_path: Path) -> None:
    """The private key must be its owner's alone; the message says how to mend it."""
    service = Service(tmp_path)
    with service:
        pass
    (tmp_path / "keys" / "signing.pem").chmod(0o644)
    done = service.command("serve", check=False)
    assert done.returncode == 2
    assert "chmod 600" in done.stderr


def test_the_demo_ends_with_an_intact_ledger(tmp_path: Path) -> None:
    """`auditrace demo` tells its story against a real server and exits 0 only when its archive verifies."""
    done = Service(tmp_path).command("demo", "--json")
    last = json.loads(done.stdout)
    assert "omar creates a job" in done.stderr
    assert last["report"]["verdict"] == "intact"
    results = {record["attributes"][names.AUDITRACE_RESULT] for record in last["records"]}
    assert results == {"success", "denied", "rejected", "error"}
    assert names.EVENT_JOB_REJECT in {record["event_name"] for record in last["records"]}
    assert "rejects the plan, and says why" in done.stderr


def test_a_stop_that_is_asked_for_during_the_start_is_heeded(tmp_path: Path) -> None:
    """SIGTERM at any moment of the start ends the process cleanly; there is no moment in which it is lost."""
    service = Service(tmp_path)
    service.start()
    assert service.process is not None
    os.kill(service.process.pid, signal.SIGTERM)
    os.kill(service.process.pid, signal.SIGTERM)
    assert service.process.wait(30) == 0
    service.process = None


def test_a_stop_that_is_asked_for_before_the_api_is_up_is_heeded(tmp_path: Path) -> None:
    """Between its first line and the one that says where it listens, a process ends cleanly as well."""
    service = Service(tmp_path)
    asked: list[str] = []

    def ask(line: str) -> None:
        asked.append(line)
        if len(asked) == 1:
            os.kill(os.getpid(), signal.SIGTERM)

    settings = read_settings({**service.environment, "AUDITRACE_PORT": "0"})
    # A stop that was not heeded is asked for again, so that the test fails and does not hang.
    again = threading.Timer(STOP_S, os.kill, (os.getpid(), signal.SIGTERM))
    again.start()
    try:
        assert serve(settings, ask, with_worker=False, with_relay=True) == 0
        assert again.is_alive()
    finally:
        again.cancel()
    assert service.verify().verdict == "intact"


def test_a_terminal_that_is_closed_ends_the_service_as_cleanly_as_a_stop(tmp_path: Path) -> None:
    """The hang-up closes the stream and writes the last checkpoint, as SIGTERM does."""
    service = Service(tmp_path)
    master, service.terminal = os.openpty()
    service.start()
    assert service.process is not None
    os.close(service.terminal)
    os.close(master)
    assert service.process.wait(30) == 0
    service.process = None
    assert service.rows("SELECT count(*) FROM audit_streams WHERE closed = 0") == [(0,)]

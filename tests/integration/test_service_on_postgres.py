"""Many processes on one PostgreSQL are one service: any of them answers, any of them runs jobs, one ledger results."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from service.bootstrap.databases import database_of
from telemetry import names
from telemetry.audit.verify import Report, verify
from tests.support.keys import public_key
from tests.support.otlp_sink import OtlpSink
from tests.support.poll_until import poll_until
from tests.support.postgres import SERVICE, PostgresServer, as_owner, as_service
from tests.support.service import Service


class Cluster(NamedTuple):
    """Two processes on one database, and what stands where a collector would."""

    first: Service
    second: Service
    sink: OtlpSink

    def verify(self) -> Report:
        """Return what a stranger finds in a snapshot of the database."""
        key = public_key(self.first.folder / "keys" / "signing.pem")
        return verify(database_of(self.first.environment["AUDITRACE_DATABASE"]).records(), public_keys=[key])


@pytest.fixture
def cluster(tmp_path: Path, postgres_server: PostgresServer) -> Iterator[Cluster]:
    """The first process takes requests and delivers, the second runs jobs; with the role of the service."""
    url = postgres_server.create_database()
    with OtlpSink() as sink:
        settings = {
            "AUDITRACE_DATABASE": as_service(url),
            "AUDITRACE_AUDIT_ENDPOINT": f"{sink.http_endpoint}/v1/logs",
            "AUDITRACE_CHECKPOINT_INTERVAL": "1s",
        }
        first = Service(tmp_path, settings, ["--no-worker"])
        second = Service(tmp_path, settings, ["--no-relay"])
        with first, second:
            yield Cluster(first, second, sink)
    postgres_server.drop_database(url)


def test_a_job_goes_through_several_processes_and_leaves_one_story(cluster: Cluster) -> None:
    """Created here, confirmed there, run by a third lane: the trail is complete, delivered, and verifies."""
    client, other = cluster.first.client(), cluster.second.client()
    job_id = client.run("greet", name="you")
    assert other.until(job_id, "succeeded")["runs"][0]["status"] == "succeeded"
    trail = client.trail(job_id)
    assert [record["event_name"] for record in trail] == [
        "job.create",
        "job.draft",
        "job.run.trigger",
        "job.status.transition",
        "job.status.transition",
    ]
    assert {record["attributes"][names.AUDITRACE_SOURCE] for record in trail} == {"api", "worker"}
    poll_until(
        lambda: {each["delivery"] for each in other.trail(job_id)} == {"delivered"}, "the delivery by the first", 30
    )
    poll_until(lambda: cluster.verify().checkpoints >= 2, "two checkpoints")
    report = cluster.verify()
    assert (report.verdict, report.findings) == ("intact", ())
    assert report.streams >= 2


def test_a_cancel_reaches_a_run_in_another_process(cluster: Cluster) -> None:
    """A run in the second process is killed soon after the first one was asked to cancel its job."""
    client = cluster.first.client()
    job_id = client.run("sleep", seconds=600)
    client.until(job_id, "running")
    client.post(f"/v1/jobs/{job_id}/cancel")
    poll_until(lambda: client.get(f"/v1/jobs/{job_id}")["runs"][0]["status"] == "cancelled", "the end of the run")


def test_a_killed_worker_s_run_is_taken_over(cluster: Cluster) -> None:
    """The second process dies in the middle of a run: its lease ends, and the run is closed as unknown and repeated."""
    client = cluster.first.client()
    for service in (cluster.first, cluster.second):
        service.environment |= {"AUDITRACE_RUN_LEASE": "2s", "AUDITRACE_RUN_RENEW": "1s"}
    cluster.second.stop()
    cluster.second.start()
    job_id = client.run("sleep", seconds=600)
    client.until(job_id, "running")
    cluster.second.kill()
    cluster.second.start()
    poll_until(lambda: len(client.get(f"/v1/jobs/{job_id}")["runs"]) == 2, "the second attempt")
    first = client.get(f"/v1/jobs/{job_id}")["runs"][0]
    assert (first["status"], first["error_type"]) == ("unknown", "lease_expired")
    client.post(f"/v1/jobs/{job_id}/cancel")
    poll_until(lambda: cluster.verify().verdict == "intact", "an intact ledger")


def test_commands_work_on_the_same_database(cluster: Cluster) -> None:
    """`keys`, `doctor` and `verify` find their way to a PostgreSQL as they do to a file; one check is for the owner."""
    key = cluster.first.key("someone", "auditor")
    assert cluster.second.client(key).get("/v1/audit/records", limit=1)["records"]
    found = json.loads(cluster.first.command("doctor", "--ledger", "--json", check=False).stdout)
    rows = {each["check"]: each["detail"] for each in found["checks"]}
    assert rows["rights"] == f"the role {SERVICE} may do what the service needs, and nothing else"
    assert "use the role that migrates" in rows["ledger"]
    cluster.second.environment["AUDITRACE_DATABASE"] = as_owner(cluster.first.environment["AUDITRACE_DATABASE"])
    found = json.loads(cluster.second.command("doctor", "--ledger", "--json", check=False).stdout)
    assert {each["check"] for each in found["checks"] if each["status"] == "unknown"} == set()
    assert found["ledger"] == []
    (tmp := cluster.first.folder / "public.pem").write_text(cluster.first.command("keys", "public").stdout)
    poll_until(lambda: cluster.verify().checkpoints >= 1, "a checkpoint")
    done = cluster.first.command("verify", "--database", "--public-key", str(tmp), "--json")
    assert json.loads(done.stdout)["verdict"] == "intact"

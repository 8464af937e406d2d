"""The whole story of a job over a database whose settings are all hostile, and the settings under which none begins."""

import json
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from tests.support.poll_until import poll_until
from tests.support.postgres import PostgresServer
from tests.support.postgres_hostile import HOSTILE, make_evil_schema, set_hostile
from tests.support.service import Service


@pytest.fixture
def url(postgres_server: PostgresServer) -> Iterator[str]:
    """A database of the test's own, with the newest schema."""
    made = postgres_server.create_database()
    yield made
    postgres_server.drop_database(made)


@pytest.mark.parametrize("level", ["database", "role"])
def test_a_job_s_story_is_the_same_under_hostile_settings(url: str, tmp_path: Path, level: str) -> None:
    """Create, draft, confirm, run, audit, checkpoint, export, verify and doctor: all of it, in every session."""
    make_evil_schema(url)
    set_hostile(url, level, *HOSTILE)
    with Service(tmp_path, {"AUDITRACE_DATABASE": url, "AUDITRACE_CHECKPOINT_INTERVAL": "1s"}) as service:
        maker = service.client(service.key("omar", "operator"))
        approver = service.client(service.key("ann", "approver"))
        job_id = maker.create("approved")["id"]
        plan = maker.post(f"/v1/jobs/{job_id}/draft")["plan"]
        approver.post(f"/v1/jobs/{job_id}/confirm", {"confirmed": True, "plan_sha256": plan["sha256"]})
        maker.until(job_id, "succeeded")
        client = service.client()
        trail = client.trail(job_id)
        assert [record["event_name"] for record in trail] == [
            "job.create",
            "job.draft",
            "job.confirm",
            "job.run.trigger",
            "job.status.transition",
            "job.status.transition",
        ]
        poll_until(lambda: len(client.get("/v1/audit/checkpoints")["checkpoints"]) >= 2, "a second checkpoint")
        exported = client.http.get("/v1/audit/export", params={"format": "jsonl", "job_id": job_id})
        assert len(exported.text.splitlines()) == len(trail)
        assert {key["name"] for key in json.loads(service.command("keys", "list", "--json").stdout)} >= {"omar", "ann"}
    key = tmp_path / "public.pem"
    key.write_text(service.command("keys", "public").stdout)
    report = json.loads(service.command("verify", "--database", "--public-key", str(key), "--json").stdout)
    assert (report["verdict"], report["findings"]) == ("intact", [])
    found = json.loads(service.command("doctor", "--ledger", "--json", check=False).stdout)
    assert (found["ledger"], [one["check"] for one in found["checks"] if one["status"] != "ok"]) == ([], ["durability"])


@pytest.mark.parametrize(
    ("setting", "said"),
    [("default_transaction_read_only = on", "session is read-only"), ("search_path = nowhere", "names no schema")],
)
def test_a_database_that_no_ledger_can_be_kept_in_is_refused_in_one_line(
    url: str, tmp_path: Path, setting: str, said: str
) -> None:
    """The service ends at once, with exit status 2."""
    with psycopg.connect(url, autocommit=True) as session:
        session.execute(f"ALTER DATABASE {session.info.dbname} SET {setting}".encode())
    done = Service(tmp_path, {"AUDITRACE_DATABASE": url}).command("serve", "--port", "0", check=False)
    lines = done.stderr.strip().splitlines()
    assert (done.returncode, len(lines)) == (2, 1), done.stderr
    assert said in lines[0]

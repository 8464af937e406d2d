"""A deployment that outgrew its file goes on, on a PostgreSQL, as if nothing had happened."""

import json
from pathlib import Path

from service.bootstrap.databases import database_of
from telemetry.audit.verify import verify
from tests.support.keys import public_key
from tests.support.postgres import PostgresServer
from tests.support.service import Service


def test_a_service_moves_to_a_postgresql(tmp_path: Path, postgres_server: PostgresServer) -> None:
    """Stopped, copied and started on the new database: jobs, keys and the trail are there, and one ledger verifies."""
    url = postgres_server.create_database()
    service = Service(tmp_path)
    with service:
        client = service.client()
        job_id = client.run("greet", name="you")
        client.until(job_id, "succeeded")
        before = client.trail(job_id)
        refused = service.command("copy", "--from", f"sqlite:///{service.database}", "--to", url, check=False)
        assert refused.returncode == 2
        assert "stop every process" in refused.stderr
    done = json.loads(service.command("copy", "--from", f"sqlite:///{service.database}", "--to", url, "--json").stdout)
    assert done["rows"]["jobs"] == 1
    service.environment["AUDITRACE_DATABASE"] = url
    with service:
        client = service.client()
        assert [record["body"] for record in client.trail(job_id)] == [record["body"] for record in before]
        client.until(client.run("greet", name="again"), "succeeded")
    report = verify(database_of(url).records(), public_keys=[public_key(tmp_path / "keys" / "signing.pem")])
    assert (report.verdict, report.findings) == ("intact", ())
    assert report.records > done["rows"]["records"]
    postgres_server.drop_database(url)

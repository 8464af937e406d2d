"""Makes every event of the catalogue as a deployment does: clients, workers, commands, a restore, a reload."""

import json
import shutil
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.support.poll_until import poll_until
from tests.support.service import Client, Service

BEYOND_THE_BUDGET = 62
"""So many equal refusals of an actor that the last one is only counted."""


FIRST_KEY = "first.pem"
"""The file with the public key that signed first."""


def tell(folder: Path, postgres_url: str) -> Sequence[dict[str, Any]]:
    """Return the bodies of the records of the story, in the order of the ledger, which is copied into a PostgreSQL."""
    service = Service(folder, {"AUDITRACE_CHECKPOINT_INTERVAL": "1s"})
    with service:
        creator, approver = (service.client(service.key(*who)) for who in (("olga", "operator"), ("anna", "approver")))
        auditor, viewer = (service.client(service.key(name, name)) for name in ("auditor", "viewer"))
        _jobs(creator, approver)
        _reads(auditor)
        assert creator.http.get("/v1/me", headers={"Authorization": "Bearer atk_0_x"}).status_code == 401
        for _ in range(BEYOND_THE_BUDGET):
            viewer.http.post("/v1/jobs", json={"template": "greet", "parameters": {"name": "x"}})
        service.command("keys", "rotate", "auditor")
        service.command("keys", "revoke", "viewer")
        service.command("keys", "rotate")
        service.command("verify", "--database", service.environment["AUDITRACE_DATABASE"], "--without-key")
        _reload(service)
    keys = json.loads(service.command("keys", "public", "--all", "--json").stdout)
    (folder / FIRST_KEY).write_text(keys[0]["public_key"])
    service.command("relay", "--replay-all")
    service.command("migrate", "--after-restore")
    service.command("relay", "--once")
    service.command("copy", "--from", service.environment["AUDITRACE_DATABASE"], "--to", postgres_url)
    return [json.loads(body) for (body,) in service.rows("SELECT body FROM audit_records ORDER BY position")]


def _jobs(creator: Client, approver: Client) -> None:
    confirmed = creator.create("approved")
    path = f"/v1/jobs/{confirmed['id']}"
    assert creator.http.put(f"{path}/inputs/list", content=b"abc").status_code == 200
    plan = creator.post(f"{path}/draft")["plan"]["sha256"]
    approver.post(f"{path}/confirm", {"confirmed": True, "plan_sha256": plan, "notes": "the path is right"})
    approver.until(confirmed["id"], "succeeded")
    assert creator.http.get(f"{path}/runs/1/artifacts/stdout").content == b"hello\n"
    rejected = creator.create("approved")
    creator.post(f"/v1/jobs/{rejected['id']}/draft")
    approver.post(f"/v1/jobs/{rejected['id']}/reject", {"reason": "not tonight"})
    failed = creator.run("fail")
    creator.until(failed, "failed")
    creator.post(f"/v1/jobs/{failed}/retry", {"reason": "once more"})
    creator.until(failed, "failed")
    creator.post(f"/v1/jobs/{creator.create('approved')['id']}/cancel", {"reason": "made twice"})


def _reads(auditor: Client) -> None:
    (record,) = auditor.get("/v1/audit/records", event_name="job.reject")["records"]
    assert auditor.http.get("/v1/audit/export").status_code == 200
    auditor.get(f"/v1/audit/records/{record['record_id']}/proof")


def _reload(service: Service) -> None:
    templates = service.folder / "jobs.toml"
    shutil.copy(templates, service.folder / "before.toml")
    templates.write_text(templates.read_text() + '[templates.added]\ndescription = "x"\ncommand = ["true"]\n')
    assert service.process is not None
    service.process.send_signal(signal.SIGUSR1)
    sql = "SELECT count(*) FROM audit_records WHERE event_name = 'service.configure' AND target_id = 'added'"
    poll_until(lambda: service.rows(sql) == [(1,)], "the record of the reload")

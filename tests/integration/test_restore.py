"""A database that is restored from a backup goes on, and the archive of before stays evidence."""

import json
import shutil
from pathlib import Path

from service.bootstrap.databases import database_of
from telemetry.audit.verify import verify
from tests.support.keys import public_key
from tests.support.service import Service


def test_a_restored_service_goes_on_behind_numbers_that_were_used(tmp_path: Path) -> None:
    """Backed up, used, set back and told so: archive and database verify, and what was lost is named."""
    service = Service(tmp_path)
    with service:
        service.client().create("greet", name="kept")
    shutil.copy(service.database, tmp_path / "backup.db")
    with service:
        lost = service.client().create("greet", name="lost")
    shutil.copy(tmp_path / "backup.db", service.database)
    done = json.loads(service.command("migrate", "--after-restore", "--json").stdout)
    assert done["restored"]["first_checkpoint"] > 1_000_000
    with service:
        client = service.client()
        assert client.http.get(f"/v1/jobs/{lost['id']}").status_code == 404
        client.create("greet", name="after")
    report = service.verify()
    assert (report.verdict, [one for one in report.findings if one.code != "torn_line"]) == ("intact", [])
    assert report.lost >= 2
    assert report.last_checkpoint is not None
    assert report.last_checkpoint.number > done["restored"]["first_checkpoint"]
    key = public_key(tmp_path / "keys" / "signing.pem")
    alone = verify(database_of(f"sqlite:///{service.database}").records(), public_keys=[key])
    assert (alone.verdict, alone.findings, alone.lost) == ("intact", (), 0)
    assert service.command("doctor", "--ledger").returncode == 0


def test_there_must_be_something_that_was_restored(tmp_path: Path) -> None:
    """Told of a restore, the command wants a ledger, and makes none."""
    service = Service(tmp_path)
    refused = service.command("migrate", "--after-restore", check=False)
    assert refused.returncode == 2
    assert "there is no ledger" in refused.stderr
    assert not service.database.exists()

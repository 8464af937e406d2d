"""Who verifies a database at which the service works is recorded before the verdict; other copies are left alone."""

import json
import os
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.support.people import of_people, run_as, said_of
from tests.support.poll_until import poll_until
from tests.support.postgres import SUPERUSER, PostgresServer
from tests.support.service import Service

NOBODY = 65534
VERIFY = ("verify", "--database", "--without-key")


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    """A service on a file, at work."""
    service = Service(tmp_path / "service", {"AUDITRACE_CHECKPOINT_INTERVAL": "1s"})
    with service:
        service.client().create("greet", name="you")
        yield service


def _bodies(service: Service, event_name: str = "audit.verify") -> list[dict[str, Any]]:
    sql = "SELECT body FROM audit_records WHERE event_name = ? ORDER BY position"
    return [json.loads(body)["attributes"] for (body,) in service.rows(sql, event_name)]


def _public_key(service: Service) -> str:
    file = service.folder / "public.pem"
    file.write_text(service.command("keys", "public").stdout)
    return str(file)


def test_the_person_and_what_was_asked_are_recorded(service: Service) -> None:
    """Beside the filter stand the verdict and the number of findings; nothing is said on standard error."""
    key = _public_key(service)
    ((stream_id,),) = service.rows("SELECT stream_id FROM audit_streams LIMIT 1")
    plain = ("verify", "--database", "--public-key", key)
    part = (*plain, "--stream", stream_id, "--since", "2026-01-02", "--max-age", "5m")
    for arguments in (plain, part):
        done = run_as(NOBODY, service, *arguments)
        assert (done.returncode, done.stderr) == (0, "")
    whole, window = _bodies(service)
    assert [of_people(each) for each in (whole, window)] == [said_of(NOBODY, *plain), said_of(NOBODY, *part)]
    for each in (whole, window):
        assert (each["audit.action"], each["auditrace.result"], each["auditrace.source"]) == ("READ", "success", "cli")
        assert (each["audit.target.type"], each["audit.target.id"]) == ("ledger", "auditrace")
    assert whole["auditrace.changes"] == {
        "filter": {"to": "keys=1"},
        "verdict": {"to": "intact"},
        "findings": {"to": 0},
    }
    asked = f"keys=1&max_age=5m&since=2026-01-02T00%3A00%3A00.000000000Z&stream={stream_id}"
    assert window["auditrace.changes"]["filter"] == {"to": asked}


def test_its_own_records_change_no_verdict(service: Service) -> None:
    """A checkpoint of the service covers them: the next verification may ask that everything is covered."""
    key = _public_key(service)
    for _ in range(2):
        assert service.command(*VERIFY).returncode == 0
    (numbers,) = service.rows("SELECT max(number) FROM audit_checkpoints")
    poll_until(lambda: service.rows("SELECT max(number) FROM audit_checkpoints") > [numbers], "the next checkpoint")
    done = service.command("verify", "--database", "--public-key", key, "--require-anchored", "--json")
    assert json.loads(done.stdout)["findings"] == []
    assert service.stop() == 0
    assert service.verify().verdict == "intact"
    assert service.command("doctor", "--ledger").returncode == 0


def test_a_broken_ledger_is_verified_and_recorded(service: Service) -> None:
    """The exit status is that of the verdict, and the record says what was found."""
    with closing(sqlite3.connect(service.database, isolation_level=None, timeout=30)) as attacker:
        attacker.execute("DROP TRIGGER audit_records_are_not_changed")
        attacker.execute("UPDATE audit_records SET body = replace(body, '\"job.create\"', '\"job.drafts\"')")
    done = service.command(*VERIFY, "--json", check=False)
    assert (done.returncode, done.stderr) == (1, "")
    (record,) = _bodies(service)
    assert record["auditrace.changes"]["verdict"] == {"to": "broken"}
    assert record["auditrace.changes"]["findings"] == {"to": len(json.loads(done.stdout)["findings"])}
    # This service has found the forgery too, so that its own ledger may say so at its end.
    service.kill()


def test_what_could_not_be_checked_is_recorded_as_that(service: Service) -> None:
    """The copy ends before the window: exit status 2, and no verdict that nobody was given."""
    done = service.command(*VERIFY, "--behind", "99999", check=False)
    assert (done.returncode, done.stdout) == (2, "")
    (record,) = _bodies(service)
    assert record["auditrace.changes"]["filter"] == {"to": "behind=99999&keys=0"}
    assert record["auditrace.changes"]["verdict"] == {"to": "not_checked"}


def _not_recorded(service: Service, why: str, *arguments: str, uid: int | None = None) -> None:
    done = run_as(os.getuid() if uid is None else uid, service, *(arguments or VERIFY))
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("intact")
    (line,) = done.stderr.splitlines()
    assert line.startswith("auditrace: this verification is not recorded: ")
    assert why in line


def test_without_the_secret_it_is_verified_and_not_recorded(service: Service) -> None:
    """No secret, or that of another ledger: one line says so, and the verdict counts."""
    secret = service.folder / "keys" / "ledger.secret"
    for path, why in (("/nowhere/secret", "/nowhere/secret"), (service.folder / "other", "is not the one that this")):
        if isinstance(path, Path):
            path.touch(mode=0o600)
            path.write_bytes(b"another secret" * 8)
        service.environment["AUDITRACE_LEDGER_SECRET"] = str(path)
        _not_recorded(service, why)
    service.environment["AUDITRACE_LEDGER_SECRET"] = str(secret)
    assert _bodies(service) == []


def test_without_the_signing_key_it_is_recorded(service: Service) -> None:
    """The record needs no signature; so an auditor needs no key that could sign a forgery."""
    (service.folder / "keys" / "signing.pem").rename(service.folder / "signing.pem")
    assert service.command(*VERIFY).stderr == ""
    (service.folder / "signing.pem").rename(service.folder / "keys" / "signing.pem")
    assert len(_bodies(service)) == 1


def test_a_copy_and_a_ledger_at_rest_are_left_as_they_are(service: Service, tmp_path: Path) -> None:
    """A copy of the file, made while the service works, and the file itself once the service has ended."""
    copy = tmp_path / "copy.db"
    with closing(sqlite3.connect(service.database)) as source, closing(sqlite3.connect(copy)) as target:
        source.backup(target)
    _not_recorded(
        service, "no process of the service works", "verify", "--database", f"sqlite:///{copy}", "--without-key"
    )
    assert service.stop() == 0
    before = _files(service.folder)
    _not_recorded(service, "no process of the service works")
    assert _files(service.folder) == before


def _files(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def test_nothing_is_migrated_for_it(service: Service) -> None:
    """A database whose schema lacks a step of this version is verified, and stays as it is."""
    names = service.rows("SELECT name FROM schema_additions ORDER BY name")
    with closing(sqlite3.connect(service.database, isolation_level=None, timeout=30)) as connection:
        connection.execute("DELETE FROM schema_additions WHERE name = ?", names[-1])
    _not_recorded(service, "run auditrace migrate")
    assert service.rows("SELECT name FROM schema_additions ORDER BY name") == names[:-1]
    with closing(sqlite3.connect(service.database, isolation_level=None, timeout=30)) as connection:
        connection.execute("INSERT INTO schema_additions (name) VALUES (?)", names[-1])


def test_on_a_server_it_is_recorded_unless_the_role_may_only_read(
    tmp_path: Path, postgres_server: PostgresServer
) -> None:
    """A role that may only read verifies, and is told that the verification is not recorded."""
    url = postgres_server.create_database()
    with psycopg.connect(url, autocommit=True) as session:
        session.execute("DROP ROLE IF EXISTS looks")
        session.execute("CREATE ROLE looks LOGIN")
        session.execute("GRANT pg_read_all_data TO looks")
    reading = url.replace(f"user={SUPERUSER}", "user=looks")
    service = Service(tmp_path / "service", {"AUDITRACE_DATABASE": url, "AUDITRACE_CHECKPOINT_INTERVAL": "1s"})
    with service:
        service.client().create("greet", name="you")
        done = run_as(NOBODY, service, *VERIFY)
        assert (done.returncode, done.stderr) == (0, "")
        _not_recorded(service, "permission denied", "verify", "--database", reading, "--without-key")
        page = service.client().get("/v1/audit/records", event_name="audit.verify")
        (record,) = page["records"]
        assert of_people(record["attributes"]) == said_of(NOBODY, *VERIFY)
    _not_recorded(service, "no process of the service works")
    postgres_server.drop_database(url)
    with psycopg.connect(postgres_server.url("postgres"), autocommit=True) as session:
        session.execute("DROP ROLE looks")


def test_files_are_verified_as_ever(service: Service, tmp_path: Path) -> None:
    """A verification of copies in files is not recorded, and nothing is said about that."""
    shutil.copytree(service.archive.parent, tmp_path / "archive")
    done = service.command("verify", str(tmp_path / "archive"), "--without-key")
    assert done.stderr == ""
    assert _bodies(service) == []

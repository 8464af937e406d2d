"""Keys and checkpoints of a real service: its keys rotated while it runs, its ledger tampered with, its end."""

import json
import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_public_key,
)

from telemetry.audit.verify import read_copy, verify
from tests.support.poll_until import poll_until
from tests.support.service import Service

PASSPHRASE = b"open sesame"


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    """A service that writes a checkpoint every second; not started yet."""
    made = Service(tmp_path, {"AUDITRACE_CHECKPOINT_INTERVAL": "1s"})
    yield made
    made.kill()


def _checkpoints(service: Service) -> int:
    return int(service.rows("SELECT coalesce(max(number), 0) FROM audit_checkpoints")[0][0])


def _public_keys(service: Service) -> list[Ed25519PublicKey]:
    printed = json.loads(service.command("keys", "public", "--all", "--json").stdout)
    keys = [load_pem_public_key(one["public_key"].encode()) for one in printed]
    return [key for key in keys if isinstance(key, Ed25519PublicKey)]


def test_keys_are_rotated_while_the_service_runs(service: Service) -> None:
    """The running service signs with the new key from the stated checkpoint on, and the ledger stays intact."""
    service.start()
    poll_until(lambda: _checkpoints(service) >= 1, "a checkpoint")
    before = service.command("keys", "public").stdout
    rotated = json.loads(service.command("keys", "rotate", "--json").stdout)
    assert service.command("keys", "public").stdout == rotated["public_key"] != before
    poll_until(lambda: _checkpoints(service) >= rotated["first_checkpoint"] + 1, "checkpoints of the new key")
    signed = service.rows("SELECT number, fingerprint FROM audit_checkpoints ORDER BY number")
    assert [number for number, fingerprint in signed if fingerprint == rotated["fingerprint"]] == list(
        range(rotated["first_checkpoint"], len(signed) + 1)
    )
    assert service.stop() == 0
    public = _public_keys(service)
    assert len(public) == 2
    report = verify(read_copy([service.archive.parent]), public_keys=public)
    assert (report.verdict, report.findings, report.unanchored) == ("intact", (), 1)
    assert [path.name for path in (service.folder / "keys").glob("signing*")] == ["signing.pem"]
    assert service.command("doctor", "--ledger").returncode == 0


def test_an_encrypted_key_signs_with_the_passphrase_of_its_file(service: Service) -> None:
    """A key that an operator gave, encrypted, is used; without its passphrase nothing starts, and it is said why."""
    keys = service.folder / "keys"
    keys.mkdir(mode=0o700)
    key = Ed25519PrivateKey.generate()
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(PASSPHRASE))
    for name, content in {"signing.pem": pem, "passphrase": PASSPHRASE}.items():
        (keys / name).write_bytes(content)
        (keys / name).chmod(0o600)
    refused = service.command("serve", "--port", "0", check=False)
    assert refused.returncode == 2
    assert "AUDITRACE_SIGNING_KEY_PASSPHRASE_FILE" in refused.stderr
    service.environment["AUDITRACE_SIGNING_KEY_PASSPHRASE_FILE"] = str(keys / "passphrase")
    with service:
        poll_until(lambda: _checkpoints(service) >= 1, "a checkpoint")
    report = verify(read_copy([service.archive.parent]), public_keys=[key.public_key()])
    assert (report.verdict, report.findings) == ("intact", ())
    service.command("keys", "rotate")
    assert b"BEGIN ENCRYPTED PRIVATE KEY" in (keys / "signing.pem").read_bytes()


def test_a_forgery_is_refused_and_reported_by_readiness_and_doctor(service: Service) -> None:
    """What somebody writes into the database of a running service is signed over by no checkpoint, and work goes on."""
    service.start()
    client = service.client()
    job_id = client.create("greet", name="before")["id"]
    with closing(sqlite3.connect(service.database, isolation_level=None, timeout=30)) as attacker:
        ((trigger,),) = attacker.execute(
            "SELECT sql FROM sqlite_schema WHERE name = 'audit_records_are_not_changed'"
        ).fetchall()
        attacker.execute("BEGIN IMMEDIATE")
        attacker.execute("DROP TRIGGER audit_records_are_not_changed")
        ((stream_id,),) = attacker.execute(
            "UPDATE audit_records SET body = replace(body, '\"admin\"', '\"mallory\"')"
            " WHERE job_id = ? RETURNING stream_id",
            (job_id,),
        ).fetchall()
        attacker.execute(trigger)
        attacker.execute("COMMIT")
    poll_until(lambda: stream_id in client.get("/health/ready")["checks"]["checkpoints"], "readiness to name it")
    assert client.create("greet", name="after")["audit"]["stream_id"] != stream_id
    doctor = service.command("doctor", "--ledger", check=False)
    assert doctor.returncode == 1
    assert doctor.stdout.count(stream_id) >= 2
    assert service.stop() == 0
    assert service.command("verify", "--database", "--without-key", check=False).returncode == 1


def test_the_list_of_keys_shows_when_each_was_made_was_used_and_ends(service: Service) -> None:
    """People see times to the second, programs to the nanosecond; a wrong end is refused before anything is done."""
    refused = service.command("keys", "create", "late", "--role", "viewer", "--expires", "2020-01-31", check=False)
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "--expires: '2020-01-31' is not a time to come" in refused.stderr
    with service:
        service.command("keys", "create", "idle", "--role", "viewer")
        made = json.loads(
            service.command(
                *("keys", "create", "ann", "--role", "viewer", "--expires", "2h", "--person", "Ann Smith", "--json")
            ).stdout
        )
        assert made["person"] == "Ann Smith"
        seen = httpx.get(f"{service.url}/v1/me", headers={"Authorization": f"Bearer {made['key']}"}, timeout=60).json()
        assert (seen["expires_at"], seen["person"]) == (made["expires_at"], "Ann Smith")

        def is_noted() -> bool:
            (listed,) = [one for one in _listed(service) if one["name"] == "ann"]
            return listed["last_used_at"] is not None

        poll_until(is_noted, "the use to be noted")
    keys = {str(one["name"]): one for one in _listed(service)}
    assert keys["ann"]["id"] == made["id"]
    assert str(keys["ann"]["created_at"]) <= str(keys["ann"]["last_used_at"]) < str(keys["ann"]["expires_at"])
    assert (keys["idle"]["last_used_at"], keys["idle"]["expires_at"]) == (None, None)
    shown = service.command("keys", "list").stdout
    headings, *rows = [re.split(r" {2,}", line) for line in shown.splitlines()]
    assert headings == ["ID", "NAME", "TENANT", "ROLES", "PERSON", "CREATED", "LAST USE", "ROTATED", "EXPIRES"]
    (row,) = [row for row in rows if row[1] == "ann"]
    times = [f"{str(keys['ann'][name])[:19]}Z" for name in ("created_at", "last_used_at", "expires_at")]
    assert row == [made["id"], "ann", "default", "viewer", "Ann Smith", *times[:2], "never", times[2]]
    (row,) = [row for row in rows if row[1] == "idle"]
    assert (row[4], row[6:]) == ("-", ["never", "never", "never"])
    assert (keys["ann"]["person"], keys["idle"]["person"]) == ("Ann Smith", None)


def _listed(service: Service) -> list[dict[str, object]]:
    listed: list[dict[str, object]] = json.loads(service.command("keys", "list", "--json").stdout)
    return listed

"""What `auditrace doctor` says of settings, files and ledger, and with which exit status."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from service.cli.main import main
from telemetry.audit.signer import Signer
from tests.support.both_stores import BOTH, POSTGRES, Store
from tests.support.ledger_maker import FOREIGN_KEY, KEY

ROOT = Path(__file__).parents[2]


class Deployment:
    """A folder with keys and a ledger that has begun, and the doctor who looks at it."""

    def __init__(
        self, folder: Path, store: Store, patch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        self.store = store
        self.keys = folder / "keys"
        self.key = self.keys / "signing.pem"
        self.secret = self.keys / "ledger.secret"
        self._capsys = capsys
        for name, value in {
            "DATABASE": store.owner_database,
            "TEMPLATES": str(ROOT / "jobs.toml"),
            "SIGNING_KEY": str(self.key),
            "LEDGER_SECRET": str(self.secret),
            "ADMIN_KEY": str(self.keys / "admin.key"),
            "AUDIT_ARCHIVE": str(folder / "archive" / "audit.jsonl"),
        }.items():
            patch.setenv(f"AUDITRACE_{name}", value)
        self._patch = patch

    def begin(self) -> None:
        """Begin the ledger, with the tests' key and secret, and write a checkpoint."""
        self.keys.mkdir(mode=0o700)
        self.private(self.key, pem(KEY))
        self.private(self.secret, b"s" * 32)
        lane = self.store.lane()
        lane.submit(lambda transaction: transaction.save(self.store.fact())).result()
        lane.close(self.store.checkpoints(lane).write_last)

    def private(self, path: Path, content: bytes, mode: int = 0o600) -> None:
        """Write a file of this mode."""
        path.write_bytes(content)
        path.chmod(mode)

    def set(self, name: str, value: str) -> None:
        """Set a variable of the service."""
        self._patch.setenv(f"AUDITRACE_{name}", value)

    def examine(self, *arguments: str) -> tuple[int, dict[str, str], list[dict[str, str]] | None]:
        """Return the doctor's exit status, what is not right by check, and what is wrong in the ledger."""
        status = main(["doctor", "--json", *arguments])
        said: dict[str, Any] = json.loads(self._capsys.readouterr().out)
        return status, {one["check"]: one["detail"] for one in said["checks"] if one["status"] != "ok"}, said["ledger"]

    def read(self, *arguments: str) -> str:
        """Return what the doctor says to people."""
        main(["doctor", *arguments])
        return self._capsys.readouterr().out


def pem(key: Ed25519PrivateKey) -> bytes:
    """Return a private key as a PKCS#8 PEM file has it."""
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


@pytest.fixture
def deployment(
    tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Deployment:
    """A deployment of the test's own."""
    return Deployment(tmp_path, store, monkeypatch, capsys)


@pytest.fixture
def ledger(deployment: Deployment) -> Store:
    """Its ledger, which has begun."""
    deployment.begin()
    return deployment.store


def test_a_sound_deployment_is_all_right(deployment: Deployment, ledger: Store) -> None:
    """Nothing is wrong, the ledger included: exit status 0, and people read why."""
    assert deployment.examine("--ledger") == (0, {}, [])
    assert deployment.examine() == (0, {}, None)
    text = deployment.read("--ledger")
    assert "everything in the database agrees" in text
    assert "the last one is number 1" in text


def test_what_the_first_start_makes_is_not_missed_before_it(deployment: Deployment) -> None:
    """Before the first start nothing is wrong; only the ledger cannot be looked at, which is exit status 2."""
    deployment.store.close()
    deployment.store.path.unlink()
    assert deployment.examine() == (0, {}, None)
    status, not_right, found = deployment.examine("--ledger")
    assert (status, list(not_right), found) == (2, ["ledger"], [])
    assert "there is no ledger" in not_right["ledger"]


@pytest.mark.stores(*BOTH)
def test_a_database_that_was_only_migrated_lacks_no_secret(deployment: Deployment) -> None:
    """Nobody is told to restore the secret of a ledger that has not begun: it cannot be looked at, and that is said."""
    deployment.set("POSTGRES_STANDBY", "optional")
    status, not_right, found = deployment.examine("--ledger")
    not_right.pop("durability", None)
    assert (list(not_right), found) == (["ledger"], [])
    assert "there is no ledger" in not_right["ledger"]
    assert status in {1, 2}


WRONG: dict[str, tuple[Callable[[Deployment, Store], object], list[str], str]] = {
    "a key that others may read": (
        lambda deployment, _: deployment.key.chmod(0o640),
        ["signing key"],
        "chmod 600",
    ),
    "a secret that others may read": (
        lambda deployment, _: deployment.secret.chmod(0o644),
        ["signing key", "ledger secret"],
        "chmod 600",
    ),
    "a folder that others may write": (
        lambda deployment, _: deployment.keys.chmod(0o777),
        ["signing key", "ledger secret"],
        "chmod go-w",
    ),
    "an administrator's key that others may read": (
        lambda deployment, _: deployment.private(deployment.keys / "admin.key", b"atk", 0o644),
        ["admin key"],
        "chmod 600",
    ),
    "a key that is not the one that signs": (
        lambda deployment, _: deployment.private(deployment.key, pem(FOREIGN_KEY)),
        ["signing key"],
        Signer(KEY).fingerprint,
    ),
    "a key that is gone": (lambda deployment, _: deployment.key.unlink(), ["signing key"], "is missing"),
    "a secret of another deployment": (
        lambda deployment, _: deployment.private(deployment.secret, b"o" * 32),
        ["signing key", "ledger secret"],
        "not the one that this database was begun with",
    ),
    "templates that cannot be read": (
        lambda deployment, _: deployment.set("TEMPLATES", "/nowhere/jobs.toml"),
        ["templates"],
        "/nowhere/jobs.toml",
    ),
    "a stream that no checkpoint signs over": (
        lambda _, store: store.execute("INSERT INTO refused_streams VALUES ('s-1', 'it was cut', 1, 0)"),
        ["checkpoints"],
        "s-1: it was cut",
    ),
    "a parked record": (
        lambda _, store: store.execute(
            "INSERT INTO parked_records SELECT stream_id, 1, '400', 1 FROM audit_streams LIMIT 1"
        ),
        ["outbox"],
        "--retry-parked",
    ),
}


@pytest.mark.stores(*BOTH)
@pytest.mark.parametrize("what", WRONG)
def test_what_is_wrong_is_said_by_its_check(deployment: Deployment, ledger: Store, what: str) -> None:
    """Exit status 1, and the check says what is wrong and what to do."""
    spoil, expected, said = WRONG[what]
    spoil(deployment, ledger)
    status, not_right, _ = deployment.examine()
    # The tests' server is fast because it promises nothing.
    always = {"durability"} if ledger.kind == POSTGRES else set()
    assert (status, set(not_right)) == (1, always | set(expected))
    assert all(said in not_right[check] for check in expected)


def test_contradictions_in_the_ledger_are_listed(deployment: Deployment, ledger: Store) -> None:
    """With `--ledger` each contradiction is listed with its check and place, and the exit status is 1."""
    ledger.execute("DROP TRIGGER audit_records_are_not_changed")
    ledger.execute("UPDATE audit_records SET actor_id = 'mallory' WHERE number = 2")
    status, not_right, found = deployment.examine("--ledger")
    assert (status, not_right) == (1, {"ledger": "2 contradictions, listed below"})
    assert found is not None
    assert [one["check"] for one in found] == ["schema", "column_differs"]
    assert found[0]["place"] == "trigger audit_records_are_not_changed"
    text = deployment.read("--ledger")
    assert "schema: trigger audit_records_are_not_changed: it is missing" in text


@pytest.mark.stores(*BOTH)
def test_a_forged_signing_key_is_a_contradiction_beside_others(deployment: Deployment, ledger: Store) -> None:
    """It keeps the doctor from nothing: all that is wrong is listed, and no check is left open."""
    with ledger.attacking() as attacker:
        attacker.execute("UPDATE signing_keys SET mac = 'x'")
        attacker.execute("UPDATE audit_records SET actor_id = 'mallory' WHERE number = 2")
    status, not_right, found = deployment.examine("--ledger")
    assert status == 1
    assert "contradictions, listed below" in not_right["ledger"]
    assert {"signing_key", "column_differs", "verify"} <= {one["check"] for one in found or ()}
    assert "was not registered by a process of this deployment" in not_right["signing key"]


def test_a_ledger_that_cannot_be_read_is_not_called_sound(deployment: Deployment, ledger: Store) -> None:
    """What cannot be looked at is exit status 2, unless something else is known to be wrong."""
    ledger.execute("PRAGMA user_version = 1")
    assert deployment.examine("--ledger")[0] == 2
    deployment.key.chmod(0o644)
    assert deployment.examine("--ledger")[0] == 1


def test_a_file_that_is_no_database_is_wrong(deployment: Deployment, ledger: Store) -> None:
    """A damaged file is a finding, and no traceback."""
    ledger.close()
    ledger.path.write_bytes(b"no database" * 1000)
    status, not_right, _ = deployment.examine("--ledger")
    assert status == 1
    assert "file is not a database" in not_right["database"]
    assert not_right["ledger"] == "not looked at, because of the database"


def test_a_rotation_that_was_cut_short_is_mentioned(deployment: Deployment, ledger: Store) -> None:
    """The key file that it left is nothing wrong: the next start takes care of it."""
    deployment.private(deployment.keys / "signing.pem.next", pem(FOREIGN_KEY))
    assert deployment.examine() == (0, {}, None)
    assert "is of an interrupted rotation" in deployment.read()

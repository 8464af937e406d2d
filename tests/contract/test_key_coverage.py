"""An API key authenticates only as the ledger states it: a writer of the database alone makes none and changes none."""

import hashlib
import logging
from collections.abc import Sequence

import msgspec
import pytest

from service.jobs.model import TenantId
from service.ports import ApiKey
from service.roles import ADMIN, VIEWER
from telemetry import names
from tests.contract.sound_ledger import PostgresLedger, SqliteLedger
from tests.support.api import ApiUnderTest, Client
from tests.support.both_stores import BOTH, SQLITE
from tests.support.older_keys import make_as_before
from tests.support.postgres_stores import PostgresStore
from tests.support.sqlite_stores import SqliteStore

pytestmark = pytest.mark.stores(*BOTH)

ADOPT = names.EVENT_KEY_ADOPT
HASH = hashlib.sha256(b"secret").hexdigest()
OLD = ApiKey(
    key_id="k1", name="old", tenant_id=TenantId("default"), roles=(VIEWER,), secret_sha256=HASH, created_ns=1_000
)
OLD_TOKEN = "atk_k1_secret"
SECRET_ROW = (
    "INSERT INTO api_key_secrets SELECT 'k9', 1, '{hash}', 1, NULL, NULL, record_id, mac FROM api_key_secrets LIMIT 1"
)


def _attack(api: ApiUnderTest, *statements: str) -> None:
    """Carry out what no trigger, foreign key or constraint holds back."""
    store = api.store
    if isinstance(store, SqliteStore):
        SqliteLedger(store.path).attack(statements)
    else:
        assert isinstance(store, PostgresStore)
        PostgresLedger(store.server, store.url).attack(statements)


def _refused(client: Client) -> None:
    answer = client.get("/v1/me")
    assert answer.status_code == 401, answer.text
    assert "does not cover this API key" in answer.json()["detail"]


def _pass(api: ApiUnderTest) -> None:
    """Let the time pass for which an unchanged key counts as checked."""
    api.monotonic += 10.0


def _alarms(api: ApiUnderTest) -> Sequence[str]:
    api.keys.check_all()
    return sorted(api.keys.problems)


def _wrong(api: ApiUnderTest) -> set[str]:
    """Return the places that the reconciliation finds, of API keys."""
    store = api.store
    ledger = SqliteLedger(store.path) if isinstance(store, SqliteStore) else PostgresLedger(store.server, store.url)
    return {one.place for one in ledger.reconcile() if one.check == "key_without_record"}


def test_keys_as_they_were_made_are_no_alarm(api: ApiUnderTest) -> None:
    """Made, rotated, used, ended, revoked, with and without a person: nothing is found, by nobody."""
    root = api.client("root")
    for number, more in enumerate(({}, {"person": "anna@example.com"}, {"expires_at": "1h"})):
        made = root.post("/v1/keys", {"name": f"k{number}", "roles": [VIEWER], **more}).json()
        for _ in range(number):
            root.post(f"/v1/keys/{made['id']}/rotate")
    api.revoke("k2")
    api.clock.advance(7200)
    assert _alarms(api) == []
    assert _wrong(api) == set()


def test_a_row_that_an_attacker_inserted_authenticates_nobody(
    api: ApiUnderTest, caplog: pytest.LogCaptureFixture
) -> None:
    """With or without a row of its secret that is copied from another key: 401, an alarm, and a line in the log."""
    api.client("root")
    _attack(
        api,
        "INSERT INTO api_keys (key_id, tenant_id, name, roles, secret_sha256, created_ns) "
        f"VALUES ('k9', 'default', 'mallory', 'admin', '{HASH}', 1)",
    )
    mallory = Client(api, "atk_k9_secret")
    _refused(mallory)
    _attack(api, SECRET_ROW.format(hash=HASH))
    _refused(mallory)
    assert _alarms(api) == ["API key 'mallory' of tenant 'default'"]
    assert _wrong(api) == {"API key 'mallory' of tenant 'default'"}
    lines = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert len([line for line in lines if "mallory" in line.message]) == 1


@pytest.mark.parametrize(
    "change",
    [
        "api_keys SET roles = 'admin'",
        "api_keys SET tenant_id = 'other'",
        "api_keys SET name = 'root2'",
        "api_keys SET person = 'ben@example.com'",
        "api_keys SET person = NULL",
        "api_keys SET expires_ns = 9000000000000000000",
        "api_keys SET expires_ns = NULL",
        "api_keys SET created_ns = created_ns + 1",
        f"api_keys SET secret_sha256 = '{HASH}'",
        f"api_key_secrets SET secret_sha256 = '{HASH}'",
        "api_key_secrets SET made_ns = made_ns + 1",
        f"api_key_secrets SET previous_sha256 = '{HASH}', previous_until_ns = 9000000000000000000",
        "api_key_secrets SET mac = 'x'",
        "api_key_secrets SET record_id = (SELECT record_id FROM audit_records WHERE target_id = 'root')",
        "api_key_secrets SET number = 2",
    ],
)
def test_a_row_that_was_changed_authenticates_nobody(api: ApiUnderTest, change: str) -> None:
    """Whatever the column: the next request is refused, also if the key was just used, and it is an alarm."""
    root = api.client("root")
    body = {"name": "bot", "roles": [VIEWER], "person": "anna@example.com", "expires_at": "1h"}
    made = root.post("/v1/keys", body).json()
    client = Client(api, made["key"])
    assert client.get("/v1/me").status_code == 200
    _attack(api, f"UPDATE {change} WHERE key_id = '{made['id']}'")
    stored_as_secret = f"atk_{made['id']}_secret"
    for token in (made["key"], stored_as_secret):
        assert Client(api, token).get("/v1/me").status_code == 401
    assert len(_alarms(api)) >= 1
    assert len(_wrong(api)) >= 1
    assert root.get("/v1/me").status_code == 200


def test_a_revocation_that_was_undone_revives_no_key(api: ApiUnderTest) -> None:
    """The record of the revocation stands, so the key stays refused, in this process and in others."""
    made = api.key("bot", VIEWER)
    client = Client(api, made.key)
    assert client.get("/v1/me").status_code == 200
    api.revoke("bot")
    assert client.get("/v1/me").status_code == 401
    _attack(api, "UPDATE api_keys SET revoked_ns = NULL WHERE name = 'bot'")
    _pass(api)
    _refused(client)
    assert _alarms(api) == ["API key 'bot' of tenant 'default'"]
    assert _wrong(api) == {"API key 'bot' of tenant 'default'"}


def test_a_rotation_that_was_undone_revives_no_secret(api: ApiUnderTest) -> None:
    """With the row of the new secret removed the key is refused with both, and it is an alarm."""
    root = api.client("root")
    made = root.post("/v1/keys", {"name": "bot", "roles": [VIEWER]}).json()
    rotated = root.post(f"/v1/keys/{made['id']}/rotate", {"overlap": "0s"}).json()
    _attack(api, f"DELETE FROM api_key_secrets WHERE key_id = '{made['id']}' AND number = 2")
    _refused(Client(api, made["key"]))
    assert Client(api, rotated["key"]).get("/v1/me").status_code == 401
    _attack(api, f"DELETE FROM api_key_secrets WHERE key_id = '{made['id']}'")
    _refused(Client(api, made["key"]))
    assert _alarms(api) == ["API key 'bot' of tenant 'default'"]


def test_a_row_that_was_removed_is_an_alarm(api: ApiUnderTest) -> None:
    """The key is unknown, and the record of its making says that something is gone."""
    made = api.key("bot", VIEWER)
    _attack(api, "DELETE FROM api_key_secrets", "DELETE FROM api_keys")
    assert Client(api, made.key).get("/v1/me").status_code == 401
    assert _alarms(api) == [f"API key '{made.id}' of tenant 'default'"]
    assert _wrong(api) == {f"API key '{made.id}' of tenant 'default'"}


def test_a_row_without_the_record_of_its_secret_authenticates_nobody(api: ApiUnderTest) -> None:
    """Whoever removes the record of a rotation with its row removes a record; the key that is left is no older one."""
    made = api.key("bot", VIEWER)
    _attack(api, "DELETE FROM audit_records WHERE target_id = 'bot'")
    _refused(Client(api, made.key))
    assert _alarms(api) == ["API key 'bot' of tenant 'default'"]


def test_a_revocation_that_nobody_asked_for_is_an_alarm(api: ApiUnderTest) -> None:
    """The key is refused, which is the safe side, and it is found that no record states it."""
    made = api.key("bot", VIEWER)
    _attack(api, "UPDATE api_keys SET revoked_ns = 1 WHERE name = 'bot'")
    assert Client(api, made.key).get("/v1/me").status_code == 401
    assert _alarms(api) == ["API key 'bot' of tenant 'default'"]


def test_a_key_of_an_older_version_is_adopted_once_and_then_covered(api: ApiUnderTest) -> None:
    """Its first use puts its secret on record; from then on a change of it, also to an unknown secret, is refused."""
    make_as_before(api, OLD)
    client = Client(api, OLD_TOKEN)
    assert _wrong(api) == set()
    assert [client.get("/v1/me").status_code for _ in range(3)] == [200, 200, 200]
    left = api.records(event_name=ADOPT)
    assert len(left) == 1
    assert left[0].target == ("key", "old")
    assert left[0].changes == {
        "id": {"from": "k1", "to": "k1"},
        "tenant": {"from": "default", "to": "default"},
        "secret_sha256": {"to": HASH},
    }
    assert (left[0][names.AUDIT_ACTOR_ID], left[0][names.AUDIT_ACTOR_TYPE]) == ("auditrace", "system")
    assert _alarms(api) == []
    assert _wrong(api) == set()
    other = hashlib.sha256(b"other").hexdigest()
    _attack(
        api,
        "DELETE FROM api_key_secrets WHERE key_id = 'k1'",
        f"UPDATE api_keys SET secret_sha256 = '{other}' WHERE key_id = 'k1'",
    )
    _refused(Client(api, "atk_k1_other"))
    assert _alarms(api) == ["API key 'old' of tenant 'default'"]


@pytest.mark.parametrize("is_covered", [True, False], ids=["under a checkpoint", "not yet"])
@pytest.mark.parametrize("with_id", [True, False], ids=["with an id", "of the first versions"])
def test_every_key_of_an_older_version_is_adopted_by_the_check(
    api: ApiUnderTest, *, is_covered: bool, with_id: bool
) -> None:
    """Whether a checkpoint covers its record yet or not, whatever it has, revoked or not: no alarm, no refusal."""
    later = api.clock() + 3600 * 10**9
    others = (
        msgspec.structs.replace(OLD, key_id="k2", name="until", expires_ns=later, person="anna@example.com"),
        msgspec.structs.replace(OLD, key_id="k3", name="gone"),
    )
    for key in (OLD, *others):
        make_as_before(api, key, with_id=with_id)
    api.revoke("gone")
    if is_covered:
        assert api.checkpoints.hold()
        assert api.checkpoints.write() is not None
        api.lane.submit(lambda transaction: transaction.save(api.store.fact())).result()
        assert api.checkpoints.write() is not None
    assert _alarms(api) == []
    assert [record.target[1] for record in api.records(event_name=ADOPT)] == ["old", "until"]
    assert [Client(api, f"atk_{key_id}_secret").get("/v1/me").status_code for key_id in ("k1", "k2", "k3")] == [
        200,
        200,
        401,
    ]
    assert _wrong(api) == set()


@pytest.mark.parametrize("change", ["roles = 'admin'", "tenant_id = 'other'", "expires_ns = 9", "name = 'root2'"])
def test_a_key_of_an_older_version_that_was_changed_is_not_adopted(api: ApiUnderTest, change: str) -> None:
    """The record of its making states another key."""
    make_as_before(api, OLD)
    _attack(api, f"UPDATE api_keys SET {change} WHERE key_id = 'k1'")
    assert Client(api, OLD_TOKEN).get("/v1/me").status_code == 401
    assert len(_alarms(api)) >= 1
    assert api.records(event_name=ADOPT) == []


def test_a_forged_record_of_an_older_version_makes_no_key(api: ApiUnderTest) -> None:
    """A record in the form of an older version, beside its row: no lane committed it, so the key is not adopted."""
    make_as_before(api, OLD)
    assert api.checkpoints.hold()
    assert api.checkpoints.write() is not None
    columns = [name for (name,) in _columns(api) if name != "position"]
    values = ", ".join(_FORGING.get(name, name) for name in columns)
    names_ = ", ".join(columns)
    _attack(
        api,
        f"INSERT INTO audit_records ({names_}) SELECT {values} FROM audit_records WHERE event_name = 'key.create'",
        "INSERT INTO api_keys (key_id, tenant_id, name, roles, secret_sha256, created_ns) "
        f"VALUES ('k9', 'default', 'bad', 'viewer', '{HASH}', 1)",
    )
    _refused(Client(api, "atk_k9_secret"))
    assert _alarms(api) == ["API key 'bad' of tenant 'default'"]
    assert api.records(event_name=ADOPT, target_id="bad") == []


# The record of the key `old` as one of the key `bad`, behind the last record of the stream.
_FORGING = {
    "record_id": "replace(record_id, '-7', '-8')",
    "number": "number + 100",
    "hash": "replace(hash, 'a', 'b')",
    "observed_ns": "observed_ns + 100",
    "target_id": "'bad'",
    "body": """replace(replace(replace(replace(body, record_id, replace(record_id, '-7', '-8')), '"old"', '"bad"'),
        '"k1"', '"k9"'), '"audit.sequence.number":' || number, '"audit.sequence.number":' || (number + 100))""",
}


def _columns(api: ApiUnderTest) -> Sequence[tuple[str]]:
    if api.store.kind == SQLITE:
        return api.store.rows("SELECT name FROM pragma_table_info('audit_records')")
    return api.store.rows(
        "SELECT attname::text FROM pg_attribute WHERE attrelid = 'audit_records'::regclass "
        "AND attnum > 0 AND NOT attisdropped"
    )


def test_what_a_key_may_do_is_read_for_each_request_and_checked_rarely(api: ApiUnderTest) -> None:
    """A key that was checked costs one read for each request; within the time nothing else is read."""
    client = api.client("anna", ADMIN)
    assert client.get("/v1/me").status_code == 200
    stored = api.store.reads.key(client.key_id or "")
    assert stored is not None
    assert api.keys.is_checked(stored)
    api.monotonic += 9.9
    assert api.keys.is_checked(stored)
    api.monotonic += 0.1
    assert not api.keys.is_checked(stored)


def test_two_rotations_at_once_give_a_key_two_secrets_in_turn(api: ApiUnderTest) -> None:
    """Neither loses: the first secret ends at once, the two new ones are accepted, and nothing is found wrong."""
    root = api.client("root")
    made = root.post("/v1/keys", {"name": "bot", "roles": [VIEWER]}).json()
    path = f"/v1/keys/{made['id']}/rotate"
    with api.held() as go:
        running = [api.start(root.ask("POST", path, json={"overlap": "1h"})) for _ in range(2)]
        go()
        answers = [one.result(30).json() for one in running]
    used = [Client(api, token).get("/v1/me").status_code for token in [made["key"], *(one["key"] for one in answers)]]
    assert used == [401, 200, 200]
    assert _alarms(api) == []

"""API keys: shown once, stored as a hash, named for ever, and refused in words that a record can hold."""

import hashlib

import pytest

from service.errors import ConflictError, ForbiddenError, InvalidRequestError, NotFoundError, RefusedError
from service.jobs.model import TenantId
from service.operations.keys import KeyOperations
from service.ports import ApiKey
from service.records import AuditContext
from service.roles import EMITTER, OPERATOR, VIEWER
from telemetry import names
from telemetry.audit.chain import rfc3339_nanos
from telemetry.audit.record import Actor
from tests.support.api import ApiUnderTest, Client
from tests.support.both_stores import BOTH
from tests.support.older_keys import make_as_before
from tests.support.outages import OUTAGES
from tests.support.poll_until import poll_until

pytestmark = pytest.mark.stores(*BOTH)

CREATE, REVOKE = names.EVENT_KEY_CREATE, names.EVENT_KEY_REVOKE
DEFAULT = TenantId("default")


def _keys(api: ApiUnderTest, role: str = "admin") -> KeyOperations:
    context = AuditContext(actor=Actor("root", "user", "os"), tenant_id=DEFAULT, source="cli", roles=frozenset({role}))
    return KeyOperations(api.services, context, api.services.tracing.root("keys"))


def test_a_key_is_shown_once_and_stored_as_a_hash(api: ApiUnderTest) -> None:
    """The token works; neither database nor record holds its secret; the record names key, roles and tenant."""
    with api.leaves(CREATE) as left:
        made = _keys(api).create("ci-bot", [VIEWER, OPERATOR], DEFAULT).value
    secret = made.key.split("_", 2)[2]
    assert Client(api, made.key).get("/v1/jobs").status_code == 200
    stored = api.store.reads.key(made.id)
    assert stored is not None
    assert stored.secret_sha256 == hashlib.sha256(secret.encode()).hexdigest()
    assert secret not in left[0].row.body
    assert left[0].target == ("key", "ci-bot")
    assert left[0].changes == {
        "id": {"to": made.id},
        "roles": {"to": [VIEWER, OPERATOR]},
        "tenant": {"to": "default"},
        "secret_sha256": {"to": stored.secret_sha256},
    }


def test_a_name_is_given_once_in_a_tenant(api: ApiUnderTest) -> None:
    """A name stands for one actor for ever: also after it was revoked nobody else gets it; other tenants may."""
    keys = _keys(api)
    keys.create("anna", [VIEWER], DEFAULT)
    keys.revoke("anna", DEFAULT)
    with pytest.raises(ConflictError, match="never given again") as refused:
        keys.create("anna", [VIEWER], DEFAULT)
    assert api.records()[-1].row.record_id == refused.value.receipt.record_id
    assert keys.create("anna", [VIEWER], TenantId("other")).value.stored.tenant_id == "other"


@pytest.mark.parametrize("other", ["Anna", "ANNA", "annA"])
def test_a_name_in_another_case_is_the_same_name(api: ApiUnderTest, other: str) -> None:
    """People would take the two for one actor. Refused and recorded, also after the first one was revoked."""
    keys = _keys(api)
    keys.create("anna", [VIEWER], DEFAULT)
    keys.revoke("anna", DEFAULT)
    with pytest.raises(ConflictError, match="looks like 'anna'") as refused:
        keys.create(other, [VIEWER], DEFAULT)
    assert api.records()[-1].row.record_id == refused.value.receipt.record_id
    assert keys.create(other, [VIEWER], TenantId("other")).value.stored.name == other


def test_a_tenant_in_another_case_is_the_same_tenant(api: ApiUnderTest) -> None:
    """A key of a tenant that looks like another one is refused; each tenant goes on to get keys."""
    keys = _keys(api)
    keys.create("anna", [VIEWER], TenantId("acme"))
    with pytest.raises(ConflictError, match="looks like the tenant acme"):
        keys.create("ben", [VIEWER], TenantId("Acme"))
    assert keys.create("ben", [VIEWER], TenantId("acme")).value.stored.tenant_id == "acme"


def test_names_that_look_alike_already_continue_to_work(api: ApiUnderTest) -> None:
    """An older version made them: both keys are accepted, revoked by their exact names, and their tenants get keys."""
    keys = _keys(api)
    secret = hashlib.sha256(b"secret").hexdigest()
    for key_id, name, tenant in (("k1", "a", "t"), ("k2", "A", "t"), ("k3", "a", "T")):
        key = ApiKey(
            key_id=key_id, name=name, tenant_id=TenantId(tenant), roles=(VIEWER,), secret_sha256=secret, created_ns=1
        )
        make_as_before(api, key)
    clients = [Client(api, f"atk_{key_id}_secret") for key_id in ("k1", "k2", "k3")]
    assert [client.get("/v1/me").json()["actor_id"] for client in clients] == ["a", "A", "a"]
    keys.revoke("A", TenantId("t"))
    assert [client.get("/v1/me").status_code for client in clients] == [200, 401, 200]
    for tenant in ("t", "T"):
        assert keys.create("c", [VIEWER], TenantId(tenant)).value.stored.tenant_id == tenant


def test_a_key_states_whose_it_is(api: ApiUnderTest) -> None:
    """The person is in the record of its making and in what it does, and the database itself refuses to change it."""
    with api.leaves(CREATE) as left:
        made = _keys(api).create("ci-bot", [VIEWER], DEFAULT, person="anna@example.com").value
    assert left[0].changes["person"] == {"to": "anna@example.com"}
    assert Client(api, made.key).get("/v1/me").json()["person"] == "anna@example.com"
    for to in ("NULL", "'ben@example.com'"):
        with pytest.raises(Exception, match="not changed otherwise"):
            api.store.execute(f"UPDATE api_keys SET person = {to} WHERE name = 'ci-bot'")


@pytest.mark.parametrize("person", ["", " anna", "an\u200bna", "\u0430nna", "\udcff", "x" * 257])
def test_a_person_that_nobody_could_tell_apart_is_refused(shared_api: ApiUnderTest, person: str) -> None:
    """The refusal says what is wrong with the name, and is recorded."""
    with shared_api.leaves(CREATE) as left, pytest.raises(InvalidRequestError, match="the person of a key cannot"):
        _keys(shared_api).create("ok", [VIEWER], DEFAULT, person=person)
    assert left[0].result == "rejected"


def test_revoking_again_is_a_noop(api: ApiUnderTest) -> None:
    """A revoked key stays revoked, and the second time is on record as `noop`."""
    keys = _keys(api)
    made = keys.create("anna", [VIEWER], DEFAULT).value
    with api.leaves(REVOKE, REVOKE) as left:
        keys.revoke("anna", DEFAULT)
        keys.revoke("anna", DEFAULT)
    assert [record.result for record in left] == ["success", "noop"]
    assert left[0].changes == {"id": {"from": made.id}, "roles": {"from": [VIEWER]}, "tenant": {"from": "default"}}


@pytest.mark.parametrize(
    ("name", "roles", "tenant"),
    [
        ("", [VIEWER], "default"),
        ("a b", [VIEWER], "default"),
        ("-rf", [VIEWER], "default"),
        ("x" * 65, [VIEWER], "default"),
        ("line\nbreak", [VIEWER], "default"),
        ("\udcff", [VIEWER], "default"),
        ("anonymous", [VIEWER], "default"),
        ("auditrace", [VIEWER], "default"),
        ("Anonymous", [VIEWER], "default"),
        ("AUDITRACE", [VIEWER], "default"),
        ("node-7", [VIEWER], "default"),
        ("Node-7", [VIEWER], "default"),
        ("os:root@db1", [VIEWER], "default"),
        ("\u0430nna", [VIEWER], "default"),
        ("ok", [], "default"),
        ("ok", ["root"], "default"),
        ("ok", ["\udcff"], "default"),
        ("ok", [VIEWER], ""),
        ("ok", [VIEWER], "a/b"),
        ("ok", [VIEWER], "\udcff"),
    ],
)
def test_a_key_that_cannot_be_is_refused_and_recorded(
    shared_api: ApiUnderTest, name: str, roles: list[str], tenant: str
) -> None:
    """Names, roles and tenants that nobody could tell apart in a record are refused, bytes that are no text too."""
    with shared_api.leaves(CREATE) as left, pytest.raises(InvalidRequestError) as refused:
        _keys(shared_api).create(name, roles, TenantId(tenant))
    assert left[0].row.record_id == refused.value.receipt.record_id
    assert left[0][names.AUDITRACE_REASON] == refused.value.detail


@pytest.mark.parametrize("name", ["nobody", "", "\udcff", "a\0b"])
def test_a_key_that_is_not_there_cannot_be_revoked(shared_api: ApiUnderTest, name: str) -> None:
    """Revoking what never was is refused and recorded, whatever it is called."""
    with shared_api.leaves(REVOKE) as left, pytest.raises(NotFoundError):
        _keys(shared_api).revoke(name, DEFAULT)
    assert left[0].result == "rejected"


def test_only_an_administrator_makes_keys(shared_api: ApiUnderTest) -> None:
    """Any other role is refused, on record as denied."""
    keys = _keys(shared_api, OPERATOR)
    for act in (lambda: keys.create("anna", [VIEWER], DEFAULT), lambda: keys.revoke("anna", DEFAULT)):
        with pytest.raises(ForbiddenError) as refused:
            act()
        assert isinstance(refused.value, RefusedError)
        assert shared_api.records()[-1].result == "denied"


def test_a_key_that_only_hands_in_records_acts_as_a_service(api: ApiUnderTest) -> None:
    """The actor's type is `service` for a key whose only role is `emitter`, else `user`."""
    for name, roles, kind in (("shipper", [EMITTER], "service"), ("both", [EMITTER, OPERATOR], "user")):
        client = Client(api, _keys(api).create(name, roles, DEFAULT).value.key)
        client.post("/v1/jobs", {})
        assert api.records(actor_id=name)[-1][names.AUDIT_ACTOR_TYPE] == kind


def test_a_key_ends_when_it_was_said_to(api: ApiUnderTest) -> None:
    """Until then it works and says when; from then on it is refused, and the record of its making told when."""
    ends_ns = api.clock() + 3600 * 10**9
    with api.leaves(CREATE) as left:
        client = Client(api, _keys(api).create("ci-bot", [VIEWER], DEFAULT, ends_ns).value.key)
    shown = rfc3339_nanos(ends_ns)
    assert left[0].changes["expires_at"] == {"to": shown}
    assert client.get("/v1/me").json()["expires_at"] == shown
    api.clock.advance(3599)
    assert client.get("/v1/me").status_code == 200
    api.clock.advance(1)
    refused = client.get("/v1/me")
    assert refused.status_code == 401
    assert refused.json()["detail"] == f"the API key expired at {shown}: ask an administrator for another"


def test_the_end_of_a_key_is_not_put_off(api: ApiUnderTest) -> None:
    """The database itself refuses it, as it refuses any other change of a key."""
    _keys(api).create("ci-bot", [VIEWER], DEFAULT, api.clock() + 10**9)
    for to in ("NULL", "9"):
        with pytest.raises(Exception, match="not changed otherwise"):
            api.store.execute(f"UPDATE api_keys SET expires_ns = {to} WHERE name = 'ci-bot'")


def test_the_last_use_of_a_key_is_known_to_the_minute(api: ApiUnderTest) -> None:
    """It is written beside the answers, at most once a minute for each key; a key that nobody used has none."""
    idle, used = (_keys(api).create(name, [VIEWER], DEFAULT).value for name in ("idle", "used"))
    client = Client(api, used.key)
    times = []
    for step in (30, 29, 1, 60):
        assert client.get("/v1/me").status_code == 200
        # Behind what the request has handed in.
        api.lane.submit(lambda _: None).result()
        times.append(api.store.reads.key_uses()[used.id])
        api.clock.advance(step)
    assert times[0] == times[1] == times[2]
    assert 60 * 10**9 <= times[3] - times[0] < 61 * 10**9
    assert idle.id not in api.store.reads.key_uses()
    assert client.get("/v1/me", headers={"Authorization": f"Bearer {idle.key}x"}).status_code == 401
    assert idle.id not in api.store.reads.key_uses()


def test_a_use_that_cannot_be_written_holds_nobody_up(api: ApiUnderTest, caplog: pytest.LogCaptureFixture) -> None:
    """Requests are answered while the ledger takes nothing; one line says so, one that it takes uses again."""
    client = Client(api, _keys(api).create("ci-bot", [VIEWER], DEFAULT).value.key)
    enter, _ = OUTAGES[api.store.kind, "read-only"]
    with enter(api.store, api.lane):
        for _ in range(3):
            assert client.get("/v1/me").status_code == 200
            api.clock.advance(61)
        poll_until(lambda: "are not written down" in caplog.text, "the line")
    assert client.get("/v1/me").status_code == 200
    poll_until(lambda: "are written down again" in caplog.text, "the other line")
    told = [record.message for record in caplog.records if record.name == "service.api.key_uses"]
    assert len(told) == 2, told

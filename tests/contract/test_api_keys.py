"""API keys: shown once, stored as a hash, named for ever, and refused in words that a record can hold."""

import hashlib

import pytest

from service.errors import ConflictError, ForbiddenError, InvalidRequestError, NotFoundError, RefusedError
from service.jobs.model import TenantId
from service.operations.keys import KeyOperations
from service.records import AuditContext
from service.roles import EMITTER, OPERATOR, VIEWER
from telemetry import names
from telemetry.audit.record import Actor
from tests.support.api import ApiUnderTest, Client
from tests.support.both_stores import BOTH

pytestmark = pytest.mark.stores(*BOTH)

CREATE, REVOKE = names.EVENT_KEY_CREATE, names.EVENT_KEY_REVOKE
DEFAULT = TenantId("default")


def _keys(api: ApiUnderTest, role: str = "admin") -> KeyOperations:
    context = AuditContext(actor=Actor("root", "user"), tenant_id=DEFAULT, source="cli", roles=frozenset({role}))
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
    assert left[0].changes == {"roles": {"to": [VIEWER, OPERATOR]}, "tenant": {"to": "default"}}


def test_a_name_is_given_once_in_a_tenant(api: ApiUnderTest) -> None:
    """A name stands for one actor for ever: also after it was revoked nobody else gets it; other tenants may."""
    keys = _keys(api)
    keys.create("anna", [VIEWER], DEFAULT)
    keys.revoke("anna", DEFAULT)
    with pytest.raises(ConflictError, match="never given again") as refused:
        keys.create("anna", [VIEWER], DEFAULT)
    assert api.records()[-1].row.record_id == refused.value.receipt.record_id
    assert keys.create("anna", [VIEWER], TenantId("other")).value.tenant == "other"


def test_revoking_again_is_a_noop(api: ApiUnderTest) -> None:
    """A revoked key stays revoked, and the second time is on record as `noop`."""
    keys = _keys(api)
    keys.create("anna", [VIEWER], DEFAULT)
    with api.leaves(REVOKE, REVOKE) as left:
        keys.revoke("anna", DEFAULT)
        keys.revoke("anna", DEFAULT)
    assert [record.result for record in left] == ["success", "noop"]
    assert left[0].changes == {"roles": {"from": [VIEWER]}, "tenant": {"from": "default"}}


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

"""API keys over the API: an administrator lists, makes, rotates and revokes those of the own tenant, on record."""

from typing import Any

import pytest

from service.roles import ADMIN, OPERATOR, ROLES, VIEWER
from telemetry import names
from telemetry.audit.chain import rfc3339_nanos
from tests.support.api import ApiUnderTest, Client
from tests.support.both_stores import BOTH

pytestmark = pytest.mark.stores(*BOTH)

CREATE, ROTATE, REVOKE = names.EVENT_KEY_CREATE, names.EVENT_KEY_ROTATE, names.EVENT_KEY_REVOKE
BODY = {"name": "ci-bot", "roles": [VIEWER]}
IDEMPOTENT = {"Idempotency-Key": "k-1"}
SECRETS = ("secret_sha256", "mac", "previous_sha256")


def _listed(client: Client) -> dict[str, dict[str, Any]]:
    return {key["name"]: key for key in client.get("/v1/keys").json()["keys"]}


def test_a_key_is_made_and_shown_once(api: ApiUnderTest) -> None:
    """The answer has the key and the receipt, and is not kept by caches; the list has the key without any secret."""
    root = api.client("root")
    with api.leaves(CREATE) as left:
        made = root.post("/v1/keys", {**BODY, "expires_at": "90d", "person": "anna@example.com"})
    assert made.status_code == 201
    assert made.headers["cache-control"] == "no-store"
    shown = made.json()
    assert shown["audit"] == left[0].receipt
    assert left[0].target == ("key", "ci-bot")
    assert left[0][names.AUDIT_ACTOR_ID] == "root"
    assert shown["key"] not in left[0].row.body
    assert Client(api, shown["key"]).get("/v1/me").json()["person"] == "anna@example.com"
    listed = root.get("/v1/keys")
    assert shown["key"].split("_", 2)[2] not in listed.text
    assert not any(word in listed.text for word in SECRETS)
    (ours,) = (key for key in listed.json()["keys"] if key["name"] == "ci-bot")
    assert ours == {
        **{name: value for name, value in shown.items() if name not in {"key", "audit", "last_used_at"}},
        "last_used_at": ours["last_used_at"],
    }
    assert (ours["revoked_at"], ours["rotated_at"], ours["previous_valid_until"]) == (None, None, None)


def test_a_creation_that_is_repeated_does_not_show_the_key_again(api: ApiUnderTest) -> None:
    """The same Idempotency-Key and body is 200 with the id made before, a `noop` record, and without the key."""
    root = api.client("root")
    first = root.post("/v1/keys", BODY, headers=IDEMPOTENT)
    with api.leaves(CREATE) as left:
        second = root.post("/v1/keys", BODY, headers=IDEMPOTENT)
    assert (first.status_code, second.status_code) == (201, 200)
    assert second.json()["id"] == first.json()["id"]
    assert "key" not in second.json()
    assert left[0].result == "noop"
    other = {**BODY, "roles": [OPERATOR]}
    api.refused(CREATE, 409, "idempotency_conflict", lambda: root.post("/v1/keys", other, headers=IDEMPOTENT))


def test_a_rotated_key_keeps_its_name_and_its_old_secret_ends(api: ApiUnderTest) -> None:
    """Both secrets authenticate during the overlap, under one name; after it the new one alone does."""
    root = api.client("root")
    made = root.post("/v1/keys", BODY).json()
    with api.leaves(ROTATE) as left:
        rotated = root.post(f"/v1/keys/{made['id']}/rotate", {"overlap": "10m"})
    assert rotated.status_code == 200
    shown = rotated.json()
    assert shown["id"] == made["id"]
    assert shown["audit"] == left[0].receipt
    assert left[0].target == ("key", "ci-bot")
    changes = left[0].changes
    assert changes["secret_sha256"]["from"] != changes["secret_sha256"]["to"]
    assert changes["overlap_until"] == {"to": shown["previous_valid_until"]}
    assert changes["id"] == {"from": made["id"], "to": made["id"]}
    old, new = Client(api, made["key"]), Client(api, shown["key"])
    assert [client.get("/v1/me").json()["actor_id"] for client in (old, new)] == ["ci-bot", "ci-bot"]
    api.clock.advance(600)
    assert [client.get("/v1/me").status_code for client in (old, new)] == [401, 200]
    assert "was rotated" in old.get("/v1/me").json()["detail"]
    assert _listed(root)["ci-bot"]["previous_valid_until"] == shown["previous_valid_until"]


def test_an_overlap_of_nothing_ends_the_old_secret_at_once(api: ApiUnderTest) -> None:
    """`0s` is for a secret that leaked; without a body the overlap is an hour; a week is the most."""
    root = api.client("root")
    made = root.post("/v1/keys", BODY).json()
    path = f"/v1/keys/{made['id']}/rotate"
    assert Client(api, made["key"]).get("/v1/me").status_code == 200
    second = root.post(path, {"overlap": "0s"}).json()
    assert Client(api, made["key"]).get("/v1/me").status_code == 401
    third = root.post(path).json()
    assert third["previous_valid_until"] == rfc3339_nanos(_ns(api, third) + 3600 * 10**9)
    assert [Client(api, key["key"]).get("/v1/me").status_code for key in (made, second, third)] == [401, 200, 200]
    for overlap in ("8d", "1 hour", "-1s", ""):
        problem, _ = api.refused(
            ROTATE, 400, "invalid_request", lambda given=overlap: root.post(path, {"overlap": given})
        )
        assert "overlap" in problem["detail"]
    assert root.post(path, {"overlap": "7d"}).status_code == 200


def _ns(api: ApiUnderTest, shown: dict[str, Any]) -> int:
    key = api.store.reads.key(shown["id"])
    assert key is not None
    assert key.rotated_ns is not None
    return int(key.rotated_ns)


def test_a_rotation_that_is_repeated_is_done_once(api: ApiUnderTest) -> None:
    """The same Idempotency-Key again changes no secret and shows none; so does the key of another key's rotation."""
    root = api.client("root")
    made, other = (root.post("/v1/keys", {**BODY, "name": name}).json() for name in ("one", "two"))
    first = root.post(f"/v1/keys/{made['id']}/rotate", headers=IDEMPOTENT)
    with api.leaves(ROTATE) as left:
        second = root.post(f"/v1/keys/{made['id']}/rotate", headers=IDEMPOTENT)
    assert second.status_code == 200
    assert "key" not in second.json()
    assert left[0].result == "noop"
    assert Client(api, first.json()["key"]).get("/v1/me").status_code == 200
    problem, _ = api.refused(
        ROTATE,
        409,
        "idempotency_conflict",
        lambda: root.post(f"/v1/keys/{other['id']}/rotate", headers=IDEMPOTENT),
    )
    assert "new key" in problem["detail"]


def test_a_revoked_key_is_refused_from_the_next_request_on(api: ApiUnderTest) -> None:
    """The answer has the receipt; a second time is a `noop`; the key can no longer be rotated."""
    root = api.client("root")
    made = root.post("/v1/keys", BODY).json()
    client = Client(api, made["key"])
    assert client.get("/v1/me").status_code == 200
    with api.leaves(REVOKE, REVOKE) as left:
        answers = [root.request("DELETE", f"/v1/keys/{made['id']}") for _ in range(2)]
    assert [answer.status_code for answer in answers] == [200, 200]
    assert [answer.json()["audit"] for answer in answers] == [record.receipt for record in left]
    assert [record.result for record in left] == ["success", "noop"]
    assert answers[0].json()["revoked_at"] is not None
    assert client.get("/v1/me").status_code == 401
    api.refused(ROTATE, 409, "conflict", lambda: root.post(f"/v1/keys/{made['id']}/rotate"))


def test_keys_of_other_tenants_are_not_there(api: ApiUnderTest) -> None:
    """An administrator neither sees nor changes them, and makes keys in the own tenant only."""
    root, stranger = api.client("root"), api.client("boss", tenant="other")
    made = root.post("/v1/keys", BODY).json()
    assert set(_listed(stranger)) == {"boss"}
    api.refused(ROTATE, 404, "not_found", lambda: stranger.post(f"/v1/keys/{made['id']}/rotate"))
    _, record = api.refused(REVOKE, 404, "not_found", lambda: stranger.request("DELETE", f"/v1/keys/{made['id']}"))
    assert record.target == ("key", made["id"])
    api.refused(CREATE, 400, "invalid_request", lambda: root.post("/v1/keys", {**BODY, "name": "x", "tenant": "other"}))
    assert stranger.post("/v1/keys", BODY).json()["tenant_id"] == "other"


@pytest.mark.parametrize("role", [role for role in ROLES if role != ADMIN])
def test_only_an_administrator_may(shared_api: ApiUnderTest, role: str) -> None:
    """Every other role is refused, on record as denied; so no key can raise its own roles."""
    client = shared_api.someone(role)
    assert client.get("/v1/keys").status_code == 403
    shared_api.refused(CREATE, 403, "forbidden", lambda: client.post("/v1/keys", {**BODY, "roles": [ADMIN]}))
    shared_api.refused(ROTATE, 403, "forbidden", lambda: client.post(f"/v1/keys/{client.key_id}/rotate"))
    shared_api.refused(REVOKE, 403, "forbidden", lambda: client.request("DELETE", f"/v1/keys/{client.key_id}"))


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"name": "ok"}, "roles"),
        ({"name": "ok", "roles": []}, "roles"),
        ({"name": "ok", "roles": ["root"]}, "roles are viewer"),
        ({"name": "ok", "roles": "admin"}, "roles"),
        ({"name": "a b", "roles": [VIEWER]}, "a key's name is"),
        ({"name": "auditrace", "roles": [VIEWER]}, "neither anonymous nor auditrace"),
        ({"name": "ok", "roles": [VIEWER], "expires_at": "yesterday"}, "expires_at"),
        ({"name": "ok", "roles": [VIEWER], "expires_at": "2001-01-01"}, "expires_at"),
        ({"name": "ok", "roles": [VIEWER], "person": ""}, "person"),
        ({"name": "ok", "roles": [VIEWER], "key": "atk_x_y"}, "key"),
    ],
)
def test_a_key_that_cannot_be_is_refused(shared_api: ApiUnderTest, body: dict[str, Any], said: str) -> None:
    """The problem names the member and what to do; there is a record of it, and no key."""
    root = shared_api.someone()
    problem, _ = shared_api.refused(CREATE, 400, "invalid_request", lambda: root.post("/v1/keys", body))
    assert said in problem["detail"]
    assert "ok" not in _listed(root)


@pytest.mark.parametrize("key_id", ["nothing", "0" * 64, "x" * 65, "a-b", "%E2%82%AC", "%00"])
def test_a_key_that_is_not_there_is_404(shared_api: ApiUnderTest, key_id: str) -> None:
    """Whatever the id is: refused, and recorded."""
    root = shared_api.someone()
    shared_api.refused(ROTATE, 404, "not_found", lambda: root.post(f"/v1/keys/{key_id}/rotate"))
    shared_api.refused(REVOKE, 404, "not_found", lambda: root.request("DELETE", f"/v1/keys/{key_id}"))


def test_a_key_whose_answer_was_lost_is_found_and_ended(api: ApiUnderTest) -> None:
    """Who got no answer finds the key in the list, by its name, and gives it another secret or revokes it."""
    root = api.client("root")
    root.post("/v1/keys", BODY)
    found = _listed(root)["ci-bot"]["id"]
    again = root.post(f"/v1/keys/{found}/rotate", {"overlap": "0s"}).json()
    assert Client(api, again["key"]).get("/v1/me").status_code == 200
    assert root.request("DELETE", f"/v1/keys/{found}").status_code == 200
    assert Client(api, again["key"]).get("/v1/me").status_code == 401

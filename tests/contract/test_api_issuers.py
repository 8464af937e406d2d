"""Two issuers are two actors everywhere; a key and a token of one person are one person under the four-eyes rule."""

import asyncio
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path

import msgspec
import pytest

from service.api.waiting import MAX_OF_ONE_ACTOR, JobWaits
from service.ports import Transaction, Transition
from service.roles import APPROVER, OPERATOR, VIEWER
from telemetry import names
from tests.support.api import TEMPLATES, ApiUnderTest, Client
from tests.support.both_stores import BOTH, Store
from tests.support.poll_until import poll_until
from tests.support.tokens import ISSUER, TokenIssuer

pytestmark = pytest.mark.stores(*BOTH)

BODY = {"template": "greet", "parameters": {"name": "x"}}
ONCE = {"Idempotency-Key": "k-1"}
ANNA, BEN = "anna@example.com", "ben@example.com"
TWO_PEOPLE = """
[templates.two-people]
description = "Needs two people that are known"
command = ["true"]
requires_confirmation = true
distinct_confirmer = "person"
"""


class Issuers:
    """An API for API keys and for the tokens of one issuer, whose claim `email` names the person."""

    def __init__(self, store: Store, folder: Path) -> None:
        self.tokens = TokenIssuer(folder, store.clock, person_claim="email")
        self.api = ApiUnderTest(store, folder, authenticate=self.tokens.beside, templates=TEMPLATES + TWO_PEOPLE)

    def with_key(self, name: str, *roles: str, person: str | None = None) -> Client:
        """Return a client with a new key."""
        key = self.api.key(name, *(roles or (OPERATOR, APPROVER)), person=person)
        return Client(self.api, key.key, name, key_id=key.id)

    def with_token(self, sub: str, *roles: str, **claims: object) -> Client:
        """Return a client with a token."""
        return Client(self.api, self.tokens.token(sub, *(roles or (OPERATOR, APPROVER)), **claims), sub)

    def refuse_read(self, client: Client, path: str) -> None:
        """Fail unless a read of the trail is refused for lack of a right, and recorded."""
        self.api.refused(names.EVENT_AUDIT_READ, 403, "forbidden", lambda: client.get(path))

    def refuse_rejection(self, client: Client, path: str) -> str:
        """Return why a rejection is refused for lack of a right; its record says the same."""
        body = {"reason": "no"}
        problem, _ = self.api.refused(names.EVENT_JOB_REJECT, 403, "forbidden", lambda: client.post(path, body))
        return str(problem["detail"])

    def refuse_confirmation(self, client: Client, path: str, body: Mapping[str, object]) -> str:
        """Return why a confirmation is refused for lack of a right; its record says the same."""
        problem, _ = self.api.refused(names.EVENT_JOB_CONFIRM, 403, "forbidden", lambda: client.post(path, body))
        return str(problem["detail"])


@pytest.fixture
def issuers(store: Store, tmp_path: Path) -> Iterator[Issuers]:
    """An API of the test's own."""
    opened = Issuers(store, tmp_path)
    yield opened
    opened.api.close()


def test_an_idempotency_key_belongs_to_one_issuer(issuers: Issuers) -> None:
    """The same key, id and route of a key and of a token are two requests, each with an answer of its own again."""
    clients = [issuers.with_key("anna"), issuers.with_token("anna")]
    first = [client.post("/v1/jobs", BODY, headers=ONCE) for client in clients]
    again = [client.post("/v1/jobs", BODY, headers=ONCE) for client in clients]
    assert [answer.status_code for answer in (*first, *again)] == [201, 201, 200, 200]
    made = [answer.json()["id"] for answer in first]
    assert made[0] != made[1]
    assert [answer.json()["id"] for answer in again] == made


@pytest.mark.parametrize("issuer", ["key", "token"])
def test_a_request_that_an_older_version_carried_out_is_not_done_again(issuers: Issuers, issuer: str) -> None:
    """Older versions stored the id alone, for keys and tokens alike: until its end such an entry answers."""
    client = issuers.with_key("anna") if issuer == "key" else issuers.with_token("anna")
    job_id = client.post("/v1/jobs", BODY, headers=ONCE).json()["id"]
    api = issuers.api
    api.store.execute("UPDATE idempotency_keys SET actor_id = 'anna'")
    again = client.post("/v1/jobs", BODY, headers=ONCE)
    assert (again.status_code, again.json()["id"]) == (200, job_id)


def test_an_older_entry_of_a_key_does_not_answer_a_token(issuers: Issuers) -> None:
    """Where a key has the id, an entry without an issuer is of the key: a token of this id gets nothing of it."""
    key, token = issuers.with_key("anna"), issuers.with_token("anna")
    mine = key.post("/v1/jobs", BODY, headers=ONCE).json()["id"]
    other = token.post("/v1/jobs", BODY, headers=ONCE)
    assert other.status_code == 201
    assert other.json()["id"] != mine


def test_a_record_is_read_by_its_own_actor_only(issuers: Issuers) -> None:
    """Without the role auditor, an actor reads the records of its acts; another issuer's actor of this id does not."""
    clients = [issuers.with_key("anna"), issuers.with_token("anna")]
    paths = [f"/v1/audit/records/{client.new_job()['audit']['record_id']}" for client in clients]
    for mine, client in enumerate(clients):
        assert client.get(paths[mine]).status_code == 200
        issuers.refuse_read(client, paths[1 - mine])


def test_a_record_without_an_issuer_is_one_of_an_api_key(issuers: Issuers, store: Store) -> None:
    """The owner of a key still reads what version 1.0.0 recorded of it; a token of the same id needs the role."""
    api, key, token = issuers.api, issuers.with_key("alice"), issuers.with_token("alice")
    record = store.record()
    old = msgspec.structs.replace(
        record,
        attributes={
            **{name: value for name, value in record.attributes.items() if name != names.AUDITRACE_ACTOR_ISSUER},
            names.AUDIT_SCHEMA_VERSION: "1.0.0",
        },
    )
    receipt = api.lane.submit(lambda transaction: transaction.save(Transition(record=old))).result()
    path = f"/v1/audit/records/{receipt.record_id}"
    assert key.get(path).status_code == 200
    issuers.refuse_read(token, path)


def test_the_waits_of_one_issuer_take_no_room_of_another(issuers: Issuers) -> None:
    """64 requests of a key may wait, and 64 of a token of the same id; the next one of each is 503."""
    key, token = issuers.with_key("anna"), issuers.with_token("anna")
    path = f"/v1/jobs/{key.new_job()['id']}?wait=60s"
    waits = issuers.api.waits
    asked = []
    for client in (key, token):
        expected = waits.count + MAX_OF_ONE_ACTOR
        asked += [
            asyncio.run_coroutine_threadsafe(client.ask("GET", path), issuers.api.loop) for _ in range(MAX_OF_ONE_ACTOR)
        ]
        poll_until(partial(_are_waiting, waits, expected), "all to wait")
        assert client.get(path).status_code == 503
    issuers.api.loop.call_soon_threadsafe(waits.release)
    assert {each.result(60).status_code for each in asked} == {200}


def _are_waiting(waits: JobWaits, count: int) -> bool:
    return waits.count == count


def test_everybody_learns_who_vouches_for_him(issuers: Issuers) -> None:
    """`/v1/me` names issuer, credential and person, for a key and for a token."""
    key = issuers.with_key("anna", VIEWER, person=ANNA)
    token = issuers.with_token("4711", VIEWER, email=ANNA, jti="t-1")
    shown = [client.get("/v1/me").json() for client in (key, token)]
    seen = [(one["actor_id"], one["issuer"], one["credential_id"], one["person"]) for one in shown]
    assert seen == [("anna", "key", key.key_id, ANNA), ("4711", ISSUER, "t-1", ANNA)]


def test_records_and_jobs_name_issuer_and_person(issuers: Issuers) -> None:
    """The record of an act names the person behind the credential, the job the issuer of its creator."""
    job = issuers.with_token("4711", email=ANNA).new_job()
    record = issuers.api.record(event_name=names.EVENT_JOB_CREATE)
    assert (job["created_by"], job["created_by_issuer"]) == ("4711", ISSUER)
    assert (record[names.AUDITRACE_ACTOR_ISSUER], record[names.AUDITRACE_ACTOR_PERSON]) == (ISSUER, ANNA)


@pytest.mark.parametrize("template", ["line-count", "two-people"])
def test_a_key_and_a_token_of_one_person_are_one_person(issuers: Issuers, template: str) -> None:
    """Whoever made a job with the one may not confirm it with the other, in either order and in whatever case."""
    key = issuers.with_key("anna", person=ANNA)
    token = issuers.with_token("4711", email="Anna@Example.com")
    for creator, confirmer in ((key, token), (token, key)):
        path, body = _drafted(creator, template)
        assert "not even with another key or token" in issuers.refuse_confirmation(confirmer, path, body)


@pytest.mark.parametrize("template", ["line-count", "two-people"])
def test_a_person_does_not_reject_his_own_job_with_another_credential(issuers: Issuers, template: str) -> None:
    """Nor is it rejected by somebody who is not known where people must be known; another person may reject it."""
    path, _ = _drafted(issuers.with_key("anna", person=ANNA), template)
    path = path.replace("/confirm", "/reject")
    own, unknown = issuers.with_token("4711", email=ANNA), issuers.with_token("4712")
    assert "not even with another key or token" in issuers.refuse_rejection(own, path)
    if template == "two-people":
        assert "the person of 4712 is not known" in issuers.refuse_rejection(unknown, path)
    other = issuers.with_token("4713", email=BEN)
    assert other.post(path, {"reason": "no"}).json()["status"] == "rejected"


def test_an_approver_reads_the_records_of_jobs_that_he_may_decide(issuers: Issuers) -> None:
    """Not of his own jobs with another credential, and not where people must be known and he is not."""
    path, _ = _drafted(issuers.with_key("anna", person=ANNA), "two-people")
    path = path.replace("/confirm", "/audit")
    for email in (ANNA, None):
        issuers.refuse_read(issuers.with_token("4711", APPROVER, email=email), path)
    assert issuers.with_token("4713", APPROVER, email=BEN).get(path).status_code == 200


@pytest.mark.parametrize("template", ["line-count", "two-people"])
def test_two_people_are_two(issuers: Issuers, template: str) -> None:
    """A key of one person and a token of another may create and confirm, in either order."""
    key, token = issuers.with_key("anna", person=ANNA), issuers.with_token("4711", email=BEN)
    for creator, confirmer in ((key, token), (token, key)):
        path, body = _drafted(creator, template)
        assert confirmer.post(path, body).json()["status"] == "queued"


def test_a_template_that_needs_to_know_people_refuses_who_is_not_known(issuers: Issuers) -> None:
    """A creator or a confirmer without a person is refused, and told whose person is missing."""
    known, unknown = issuers.with_key("anna", person=ANNA), issuers.with_token("4711")
    for creator, confirmer in ((known, unknown), (unknown, known)):
        path, body = _drafted(creator, "two-people")
        assert "the person of 4711 is not known" in issuers.refuse_confirmation(confirmer, path, body)


def test_the_creator_is_told_that_he_is_the_creator(issuers: Issuers) -> None:
    """Also where no person is known: that the same actor confirms is the reason, not that it is not known."""
    anna = issuers.with_key("anna")
    path, body = _drafted(anna, "two-people")
    assert "the creator of this job may not confirm it" in issuers.refuse_confirmation(anna, path, body)


def test_four_eyes_tell_issuers_apart(issuers: Issuers) -> None:
    """An equal id of another issuer is another actor; an equal id of the same issuer in another case is not."""
    path, body = _drafted(issuers.with_key("anna"), "line-count")
    assert issuers.with_token("anna").post(path, body).json()["status"] == "queued"
    path, body = _drafted(issuers.with_token("zoe"), "line-count")
    issuers.refuse_confirmation(issuers.with_token("Zoe"), path, body)


def test_the_creator_of_an_older_job_is_everybody_of_that_id(issuers: Issuers) -> None:
    """A job that an older version made names no issuer: an equal id is the creator, whoever vouches for it."""
    api = issuers.api
    path, body = _drafted(issuers.with_key("anna"), "line-count")
    job_id = path.split("/")[3]

    def forget(transaction: Transaction) -> None:
        before = transaction.job(job_id, None)
        assert before is not None
        after = msgspec.structs.replace(
            before, version=before.version + 1, created_by_issuer=None, created_by_person=None
        )
        transaction.save(api.store.transition(after))

    api.lane.submit(forget).result()
    assert issuers.with_key("ben").get(f"/v1/jobs/{job_id}").json()["created_by_issuer"] is None
    issuers.refuse_confirmation(issuers.with_token("anna"), path, body)
    assert issuers.with_token("zoe").post(path, body).json()["status"] == "queued"


@pytest.mark.parametrize("email", ["anna\u200b@example.com", "\u0430nna@example.com", " anna", 7, ""])
def test_a_person_that_nobody_could_tell_apart_is_401(issuers: Issuers, email: object) -> None:
    """A claim that names the person is refused as a subject is, and says which claim it is."""
    refused = issuers.with_token("4711", email=email).get("/v1/me")
    assert refused.status_code == 401
    assert "the token's email cannot be used: it " in refused.json()["detail"]


def test_roles_are_compared_as_they_are_written(issuers: Issuers) -> None:
    """What only looks like a role is none."""
    token = issuers.with_token("4711", "Admin", "admin\u200b", "\uff41dmin")
    assert token.get("/v1/me").json()["roles"] == []


def _drafted(client: Client, template: str) -> tuple[str, dict[str, object]]:
    """Return where a drafted job is confirmed, and the confirmation of its plan."""
    parameters = {"path": "/etc/hosts"} if template == "line-count" else {}
    job = client.post("/v1/jobs", {"template": template, "parameters": parameters}).json()
    drafted = client.post(f"/v1/jobs/{job['id']}/draft").json()
    return f"/v1/jobs/{job['id']}/confirm", {"confirmed": True, "plan_sha256": drafted["plan"]["sha256"]}

"""The ledger as a whole over HTTP: streams, checkpoints, and proofs that a stranger checks with a public key alone."""

import base64
import hashlib
import json
from typing import Any

import pytest
from cryptography.exceptions import InvalidSignature

from service.roles import AUDITOR, OPERATOR, VIEWER
from telemetry import names
from tests.support.api import ApiUnderTest, Client
from tests.support.both_stores import BOTH
from tests.support.ledger_maker import KEY

pytestmark = pytest.mark.stores(*BOTH)

STREAMS, CHECKPOINTS = "/v1/audit/streams", "/v1/audit/checkpoints"


def _checkpoint(api: ApiUnderTest) -> None:
    assert api.checkpoints.hold()
    assert api.checkpoints.write() is not None


def test_streams_show_how_far_they_go(api: ApiUnderTest) -> None:
    """A stream shows its tip, what of it was delivered, and the last number that a checkpoint names."""
    client = api.client("anna")
    client.new_job()
    (stream,) = client.get(STREAMS).json()["streams"]
    last = api.records()[-2].row
    assert (stream["records"], stream["record_hash"]) == (last.sequence_number, last.record_hash)
    assert (stream["closed"], stream["delivered"], stream["anchored"], stream["checkpoint"]) == (False, 0, None, None)
    _checkpoint(api)
    named = api.records()[-2].row
    (stream,) = client.get(STREAMS).json()["streams"]
    assert (stream["anchored"], stream["checkpoint"]) == (named.sequence_number, 1)
    assert stream["records"] > stream["anchored"]
    assert client.get(stream["links"]["records"]).json()["records"][-1]["event_name"] == names.EVENT_AUDIT_STREAM_OPEN


def test_streams_come_page_by_page(api: ApiUnderTest) -> None:
    """Streams are listed last opened first, each once, and a closed one is still there."""
    auditor = api.client("alma", AUDITOR)
    for number in range(4):
        lane = api.store.lane(f"other-{number}")
        lane.submit(lambda transaction: transaction.save(api.store.fact())).result()
        lane.close()
    seen: list[dict[str, Any]] = []
    cursor = ""
    while cursor is not None:
        page = auditor.get(f"{STREAMS}?limit=2{cursor and f'&cursor={cursor}'}").json()
        seen += page["streams"]
        cursor = page["next_cursor"]
    assert len({stream["stream_id"] for stream in seen}) == len(seen) == 5
    assert [stream["opened_at"] for stream in seen] == sorted((each["opened_at"] for each in seen), reverse=True)
    assert [stream["closed"] for stream in seen] == [True, True, True, True, False]


def test_checkpoints_can_be_checked_with_the_public_key(api: ApiUnderTest) -> None:
    """Each checkpoint comes with its body and a signature that holds, the last one first, page by page."""
    auditor = api.client("alma", AUDITOR)
    for _ in range(3):
        api.someone(OPERATOR).new_job()
        _checkpoint(api)
    first = auditor.get(f"{CHECKPOINTS}?limit=2").json()
    rest = auditor.get(f"{CHECKPOINTS}?limit=2&cursor={first['next_cursor']}").json()
    checkpoints = [*first["checkpoints"], *rest["checkpoints"]]
    assert [each["number"] for each in checkpoints] == [3, 2, 1]
    assert rest["next_cursor"] is None
    for each in checkpoints:
        body = each["record"]["body"].encode()
        KEY.public_key().verify(base64.b64decode(each["signature"]), body)
        assert hashlib.sha256(body).hexdigest() == each["record"]["record_hash"]
        assert json.loads(body)["attributes"][names.AUDITRACE_CHECKPOINT_NUMBER] == each["number"]
    with pytest.raises(InvalidSignature):
        KEY.public_key().verify(base64.b64decode(checkpoints[0]["signature"]), b"another body")


def test_a_record_is_proven_by_hashes_tip_and_signature(api: ApiUnderTest) -> None:
    """From the record's body to the signature each step can be done by hand, with nothing else from the service."""
    operator = api.client("olga", OPERATOR)
    for number in range(3):
        beside = api.store.lane(f"beside-{number}")
        for _ in range(9):
            other = beside.submit(lambda transaction: transaction.save(api.store.fact())).result()
    receipts = [operator.new_job()["audit"] for _ in range(5)]
    path = f"/v1/audit/records/{receipts[2]['record_id']}/proof"
    early = operator.get(path).json()
    assert (early["checkpoint"], early["tip"], early["hashes"]) == (None, None, [])
    _checkpoint(api)
    api.someone(OPERATOR).new_job()
    _checkpoint(api)
    proof = operator.get(path).json()
    record, tip, checkpoint = proof["record"], proof["tip"], proof["checkpoint"]
    assert hashlib.sha256(record["body"].encode()).hexdigest() == receipts[2]["record_hash"]
    assert proof["hashes"][record["sequence_number"] - tip["from"]] == receipts[2]["record_hash"]
    assert len(proof["hashes"]) == tip["number"] - tip["from"] + 1
    assert hashlib.sha256(bytes.fromhex("".join(proof["hashes"]))).hexdigest() == tip["leaves"]
    stated = json.loads(checkpoint["record"]["body"])["attributes"]
    assert tip in stated[names.AUDITRACE_CHECKPOINT_TIPS]
    assert tip["stream_id"] == record["stream_id"] == receipts[2]["stream_id"]
    assert checkpoint["number"] == 1
    KEY.public_key().verify(base64.b64decode(checkpoint["signature"]), checkpoint["record"]["body"].encode())
    foreign = api.client("alma", AUDITOR).get(f"/v1/audit/records/{other.record_id}/proof").json()
    assert foreign["tip"]["stream_id"] == other.stream_id
    assert foreign["hashes"][other.sequence_number - foreign["tip"]["from"]] == other.record_hash


def test_a_clock_that_stepped_hides_no_proof(api: ApiUnderTest) -> None:
    """A checkpoint that was sealed at an earlier time than the record it covers is found, not one before it."""
    operator = api.client("olga", OPERATOR)
    _checkpoint(api)
    receipt = operator.new_job()["audit"]
    api.clock.advance(-3600)
    _checkpoint(api)
    proof = operator.get(f"/v1/audit/records/{receipt['record_id']}/proof").json()
    covered, checkpoint = (
        api.store.reads.record(record_id, None)
        for record_id in (receipt["record_id"], proof["checkpoint"]["record"]["record_id"])
    )
    assert covered is not None
    assert checkpoint is not None
    assert checkpoint.observed_ns < covered.observed_ns
    assert proof["tip"]["from"] <= receipt["sequence_number"] <= proof["tip"]["number"]


def test_a_proof_is_shown_to_who_may_see_the_record(api: ApiUnderTest) -> None:
    """The actor and auditors of the tenant get it; others are refused, and other tenants learn nothing."""
    receipt = api.client("olga", OPERATOR).new_job()["audit"]
    path = f"/v1/audit/records/{receipt['record_id']}/proof"
    alma = api.client("alma", AUDITOR)
    with api.leaves(names.EVENT_AUDIT_VERIFY) as left:
        assert alma.get(path).status_code == 200
    assert left[0].target == ("ledger", "auditrace")
    assert left[0].changes == {"filter": {"to": f"proof_of={receipt['record_id']}"}, "count": {"to": 1}}
    vera, stranger = api.client("vera", VIEWER), api.client("alma", tenant="other")
    api.refused(names.EVENT_AUDIT_VERIFY, 403, "forbidden", lambda: vera.get(path))
    api.refused(names.EVENT_AUDIT_VERIFY, 404, "not_found", lambda: stranger.get(path))


@pytest.mark.parametrize("path", [STREAMS, CHECKPOINTS])
def test_streams_and_checkpoints_are_for_auditors_of_every_tenant(api: ApiUnderTest, path: str) -> None:
    """They hold hashes and no content, and a tenant's auditor needs them to check that tenant's records."""
    auditor = api.client("alma", AUDITOR, tenant="other")
    with api.leaves(names.EVENT_AUDIT_READ) as left:
        assert auditor.get(path).status_code == 200
    assert left[0].changes["filter"] == {"to": f"view={path.rpartition('/')[2]}"}
    for role in (OPERATOR, VIEWER):
        client = api.someone(role)
        api.refused(names.EVENT_AUDIT_READ, 403, "forbidden", lambda client=client: client.get(path))


def test_a_page_that_is_none_is_refused(api: ApiUnderTest) -> None:
    """Cursors of another listing, and unknown parameters, are 400 on these listings too."""
    auditor: Client = api.client("alma", AUDITOR)
    for path in (f"{STREAMS}?cursor=WzFd", f"{CHECKPOINTS}?cursor=WyJ4Il0", f"{STREAMS}?closed=true"):
        api.refused(names.EVENT_AUDIT_READ, 400, "invalid_request", lambda path=path: auditor.get(path))

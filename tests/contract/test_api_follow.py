"""A follow of the audit trail: each record once and in order, from any position, and one record of the follow."""

import base64
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import msgspec
import pytest

from service.api.follows import MAX_FOLLOWS_OF_ONE_ACTOR
from service.ports import Receipt, Transaction
from service.roles import AUDITOR, VIEWER
from service.store.rows import decode_cursor, encode_cursor
from telemetry import names
from tests.support.api import ApiUnderTest, Client, problem_of
from tests.support.both_stores import BOTH, POSTGRES, SQLITE, Store
from tests.support.follower import END, Event, Follower
from tests.support.poll_until import poll_until
from tests.support.served import Served

pytestmark = pytest.mark.stores(*BOTH)

JOBS = "&event_name=job.create"
FOLLOW = "/v1/audit/records?follow"


class Trail:
    """The audit trail of an API, behind a real HTTP server."""

    def __init__(self, api: ApiUnderTest, served: Served) -> None:
        self.api = api
        self.auditor = api.client("aude", AUDITOR)
        self.anna = api.client("anna")
        host, port = served.address
        self.url = f"http://{host}:{port}"

    def follow(self, query: str = "", last_id: str | None = None, client: Client | None = None) -> Follower:
        """Begin a follow, which the API answers with 200."""
        token = (client or self.auditor).token
        assert token is not None
        follower = Follower(self.url, token, query, last_id)
        assert follower.answer.status == 200, follower.answer.read()
        return follower

    def jobs(self, count: int) -> list[str]:
        """Create jobs, and return the ids of their records."""
        return [self.anna.new_job()["audit"]["record_id"] for _ in range(count)]

    def reads(self) -> list[str]:
        """Return the filters of the reads that are on record, oldest first."""
        records = self.api.records(event_name=names.EVENT_AUDIT_READ, result="success")
        return [record.attributes[names.AUDITRACE_CHANGES]["filter"]["to"] for record in records]


@pytest.fixture
def trail(api: ApiUnderTest) -> Iterator[Trail]:
    """The trail of a ledger of the test's own."""
    with Served(api) as served:
        yield Trail(api, served)


@contextmanager
def _trail_of(api: ApiUnderTest) -> Iterator[Trail]:
    with Served(api) as served:
        yield Trail(api, served)
    api.close()


def _ids(events: Sequence[Event]) -> list[str]:
    return [event.data["record_id"] for event in events]


def test_a_follow_sends_what_is_committed_from_now_on(trail: Trail) -> None:
    """Each new record comes once and in order, as the listing shows it; earlier records and the follow's own do not."""
    trail.jobs(2)
    with trail.follow() as follower:
        first = follower.first()
        made = trail.jobs(3)
        events = follower.records(3)
    assert first.id
    assert follower.answer.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert follower.answer.headers["cache-control"] == "no-store"
    assert follower.answer.headers["x-accel-buffering"] == "no"
    assert _ids(events) == made
    assert len({first.id, *(event.id for event in events)}) == 4
    listed = trail.auditor.get(f"/v1/audit/records?limit=3{JOBS}").json()["records"]
    assert [event.data for event in events] == list(reversed(listed))


def test_every_id_continues_right_behind_its_event(trail: Trail) -> None:
    """Whatever was received last, the next event is the next record; the id in `cursor` means the same."""
    with trail.follow(JOBS) as follower:
        first = follower.first()
        made = trail.jobs(6)
        ids = [first.id, *(event.id for event in follower.records(6))]
    for at, last_id in enumerate(ids[:-1]):
        with trail.follow(JOBS, last_id) as follower:
            assert follower.first().id == last_id
            assert _ids(follower.records(6 - at)) == made[at:]
        with trail.follow(f"{JOBS}&cursor={last_id}") as follower:
            assert _ids(follower.records(6 - at)) == made[at:]
        with trail.follow(f"{JOBS}&cursor={first.id}", last_id) as follower:
            assert _ids(follower.records(6 - at)) == made[at:]
    with trail.follow(JOBS, ids[-1]) as follower:
        follower.first()
        made = trail.jobs(1)
        assert _ids(follower.records(1)) == made


def test_since_begins_in_the_past(trail: Trail) -> None:
    """With `since` the records from then on come first, over many pages, and then the new ones, without a gap."""
    made = trail.jobs(120)
    with trail.follow(f"{JOBS}&since=2000-01-01") as follower:
        begin = follower.first().id
        assert _ids(follower.records(120)) == made
        more = trail.jobs(2)
        assert _ids(follower.records(2)) == more
    with trail.follow(f"{JOBS}&since=2000-01-01", begin) as follower:
        assert _ids(follower.records(122)) == made + more


def test_a_filter_selects_and_the_position_passes_the_rest(trail: Trail, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only what matches comes; when other records passed, the follow sends a position that continues behind them."""
    monkeypatch.setattr("service.api.follow.BEAT_S", 0.05)
    with trail.follow("&event_name=job.cancel") as follower:
        before = follower.first()
        trail.jobs(3)
        newest = trail.api.store.reads.newest_position().cursor
        after = next(event for event in follower if event.id == newest)
        follower.next_of(":")
    assert before.id != after.id
    with trail.follow(last_id=before.id) as follower:
        assert [event.data["event_name"] for event in follower.records(3)] == ["job.create"] * 3
    with trail.follow(last_id=after.id) as follower:
        # Behind the jobs are only the two reads.
        assert [event.data["event_name"] for event in follower.records(2)] == ["audit.read"] * 2


def test_a_follow_is_one_read_on_record(trail: Trail) -> None:
    """It is recorded before its first event, with its filter; the records that it sends, however many, add nothing."""
    with trail.follow(f"{JOBS}&outcome=success") as follower:
        assert trail.reads() == ["event_name=job.create&outcome=success&follow="]
        follower.first()
        trail.jobs(60)
        last = follower.records(60)[-1]
    assert trail.reads() == ["event_name=job.create&outcome=success&follow="]
    with trail.follow(last_id=last.id):
        assert trail.reads()[1:] == [f"cursor={last.id}&follow="]
    with trail.follow(last_id=last.id):
        assert trail.reads()[1:] == [f"cursor={last.id}&follow="] * 2
    record = trail.api.records(event_name=names.EVENT_AUDIT_READ)[-1]
    assert record.attributes[names.AUDIT_ACTOR_ID] == "aude"
    assert record.target == ("ledger", "auditrace")


@pytest.mark.parametrize(
    ("query", "named"),
    [
        ("=false", "follow=false"),
        ("=1", "follow=1"),
        ("=TRUE", "follow=TRUE"),
        ("&follow", "follow is given twice"),
        ("&limit=10", "limit"),
        ("&until=2100-01-01", "until"),
        ("&cursor=", "cursor"),
        ("&cursor=WzQxXQ", "cursor"),
        ("&cursor=%21%21", "cursor"),
    ],
)
def test_a_parameter_that_no_follow_has_is_refused(trail: Trail, query: str, named: str) -> None:
    """It is 400, names the parameter, and leaves a record of the refusal, and nothing follows."""
    problem = problem_of(trail.auditor.get(FOLLOW + query), 400, "invalid_request")
    assert named in problem["detail"]
    (refused,) = trail.api.records(event_name=names.EVENT_AUDIT_READ)
    assert refused.attributes[names.AUDITRACE_RESULT] == "rejected"
    assert problem["audit_record_id"] == refused.attributes[names.AUDIT_RECORD_ID]


def test_true_means_the_same_as_no_value(trail: Trail) -> None:
    """`follow=true` is for clients that cannot send a parameter without a value."""
    with trail.follow("=true") as follower:
        follower.first()


@pytest.mark.parametrize("last_id", ["", "x", "[1]", "é", "W10", "9" * 600])
def test_an_id_that_no_event_had_is_refused(trail: Trail, last_id: str) -> None:
    """It never means the beginning or the end: what lies between would be lost, or repeated."""
    problem = problem_of(trail.auditor.get(FOLLOW, headers={"Last-Event-ID": last_id}), 400, "invalid_request")
    assert "since" in problem["detail"]
    assert trail.reads() == []


def test_an_id_of_another_ledger_is_refused(trail: Trail, tmp_path: Path) -> None:
    """The record that an id names must be in this ledger: after a restore its position belongs to another record."""
    last_id = trail.api.store.reads.newest_position().cursor
    record_id = trail.api.records()[-1].attributes[names.AUDIT_RECORD_ID]
    position = trail.api.store.reads.position_of(last_id)
    assert position.cursor == last_id
    other = trail.api.store.reads.first_position()
    assert trail.api.store.reads.position_of(other.cursor) == other
    foreign = _with_record(trail, last_id, record_id, "019b76da-a800-7000-8000-000000000000")
    problem = problem_of(trail.auditor.get(FOLLOW, headers={"Last-Event-ID": foreign}), 400, "invalid_request")
    assert "not in this ledger" in problem["detail"]
    listed = trail.auditor.get("/v1/audit/records?limit=1").json()["next_cursor"]
    problem_of(trail.auditor.get(f"{FOLLOW}&cursor={listed}"), 400, "invalid_request")
    problem_of(trail.auditor.get(f"/v1/audit/records?cursor={last_id}"), 400, "invalid_request")


def _with_record(trail: Trail, cursor: str, record_id: str, other: str) -> str:
    parts = decode_cursor(cursor, trail.api.store.reads.cursor_and_record)
    assert parts[-1] == record_id
    return encode_cursor(*parts[:-1], other)


def test_an_id_is_recorded_as_the_service_writes_it(trail: Trail) -> None:
    """An id that a client has made longer names the same position, and makes no record longer."""
    with trail.follow() as follower:
        last_id = follower.first().id
    text = base64.urlsafe_b64decode(last_id + "=" * (-len(last_id) % 4))
    padded = base64.urlsafe_b64encode(text + b" " * 9000).decode().rstrip("=")
    with trail.follow(last_id=padded) as follower:
        follower.first()
    assert trail.reads()[-1] == urlencode({"cursor": last_id, "follow": ""})


def test_two_ids_are_refused(trail: Trail) -> None:
    """Two readers of the request could continue at different records."""
    token = f"Bearer {trail.auditor.token}"
    headers = [("Authorization", token), ("Last-Event-ID", "a"), ("Last-Event-ID", "b")]
    problem = problem_of(trail.auditor.send("GET", FOLLOW, headers), 400, "invalid_request")
    assert "last-event-id" in problem["detail"]


def test_a_head_is_no_follow(trail: Trail) -> None:
    """HEAD would be on record as a follow, and return nothing: it is 405, as it is for an export."""
    answer = trail.auditor.request("HEAD", FOLLOW)
    assert (answer.status_code, answer.headers["allow"]) == (405, "GET")
    assert trail.reads() == []


def test_who_may_not_read_the_trail_may_not_follow_it(trail: Trail) -> None:
    """Without the role it is 403, with a record; records of another tenant are refused, and never come."""
    problem_of(trail.api.client("vera", VIEWER).get(FOLLOW), 403, "forbidden")
    problem_of(trail.auditor.get(f"{FOLLOW}&tenant_id=theirs"), 403, "forbidden")
    denied = trail.api.records(event_name=names.EVENT_AUDIT_READ, result="denied")
    assert [record.attributes[names.AUDIT_ACTOR_ID] for record in denied] == ["vera", "aude"]
    theirs = trail.api.client("theo", tenant="theirs")
    with trail.follow() as mine, trail.follow(client=theirs) as other:
        mine.first(), other.first()
        # The read of the other tenant's follow is its own record, and comes to nobody else.
        their_job, my_job = theirs.new_job()["audit"]["record_id"], trail.jobs(1)
        assert _ids(mine.records(1)) == my_job
        assert _ids(other.records(1)) == [their_job]


@pytest.mark.parametrize("end", ["revoked", "expired"])
def test_a_credential_that_ends_ends_its_follow(trail: Trail, end: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The last event says why, the answer ends as HTTP wants it, and no record comes behind it."""
    monkeypatch.setattr("service.api.follow.CHECK_S", 0.05)
    expires_ns = trail.api.clock() + 3600 * 1_000_000_000 if end == "expired" else None
    client = trail.api.client_until("theo", AUDITOR, expires_ns=expires_ns)
    with trail.follow(client=client) as follower, trail.follow(JOBS) as other:
        follower.first(), other.first()
        trail.jobs(1)
        follower.records(1)
        if end == "revoked":
            trail.api.revoke("theo")
        else:
            trail.api.clock.advance(3601)
        last = follower.next_of(END)
        assert list(follower) == []
        assert (last.data["status"], last.data["error_type"], last.id) == (401, "unauthenticated", "")
        assert end in last.data["detail"]
        made = trail.jobs(1)
        assert _ids(other.records(2))[1:] == made


def test_a_stop_ends_all_follows(trail: Trail) -> None:
    """They end at once, cleanly, with an event that says so; the id continues elsewhere, and later follows are 503."""
    with trail.follow(JOBS) as follower:
        first = follower.first()
        made = trail.jobs(1)
        assert _ids(follower.records(1)) == made
        trail.api.loop.call_soon_threadsafe(trail.api.follows.release)
        last = follower.next_of(END)
        assert list(follower) == []
    assert (last.data["status"], last.data["error_type"]) == (503, "shutting_down")
    problem_of(trail.auditor.get(FOLLOW), 503, "shutting_down")
    poll_until(lambda: trail.api.follows.count == 0, "nobody follows")
    assert trail.api.store.reads.position_of(first.id).cursor == first.id


def test_an_outage_ends_the_follows(store: Store, tmp_path: Path) -> None:
    """While the trail cannot be read, nobody waits in vain: the last event says why."""
    with _trail_of(ApiUnderTest(store, tmp_path, poll_s=0.05)) as trail, trail.follow() as follower:
        follower.first()
        store.reads.close()
        last = follower.next_of(END)
        assert (last.data["status"], last.data["error_type"]) == (503, "ledger_unavailable")
        assert list(follower) == []


def test_what_other_processes_commit_is_found(store: Store, tmp_path: Path) -> None:
    """A commit of a process that sends no hint comes at the next look."""
    elsewhere = ApiUnderTest(store.beside(1), tmp_path)
    with _trail_of(ApiUnderTest(store, tmp_path, poll_s=0.05)) as trail, trail.follow(JOBS) as follower:
        follower.first()
        made = [Client(elsewhere, trail.anna.token).new_job()["audit"]["record_id"] for _ in range(2)]
        assert _ids(follower.records(2)) == made
    elsewhere.close()
    elsewhere.store.close()


def test_idle_follows_leave_the_database_alone(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Follows that have everything read nothing until something is committed, and one look serves all of them."""
    looks = _counted(monkeypatch, store.reads, "newest_position")
    pages = _counted(monkeypatch, store.reads, "followed")
    with _trail_of(ApiUnderTest(store, tmp_path, poll_s=3600.0)) as trail:
        followers = [trail.follow(JOBS) for _ in range(8)]
        for follower in followers:
            follower.first()
        trail.jobs(1)
        for follower in followers:
            follower.records(1)
        # Each follow looks where the end is when it begins; all others are for all.
        shared = len(looks) - len(followers)
        # The follows' own records, and the notes of the uses of keys, are commits too.
        assert shared <= 2 * len(followers)
        assert len(pages) <= len(followers) * (shared + 1)
        for follower in followers:
            follower.close()
        poll_until(lambda: trail.api.follows.count == 0, "nobody follows")


def test_a_client_that_hangs_up_gives_everything_back(trail: Trail) -> None:
    """Its place is free as soon as its connection is closed, and without follows nobody looks for records."""
    followers = [trail.follow() for _ in range(4)]
    assert trail.api.follows.count == 4
    for left, follower in enumerate(reversed(followers)):
        if left % 2:
            follower.first()
        follower.close()
        poll_until(lambda left=left: trail.api.follows.count == 3 - left, "its place is free")
    trail.jobs(1)
    poll_until(lambda: trail.api.follows._looking is None or trail.api.follows._looking.done(), "nobody looks")


def test_so_many_follow_and_no_more(store: Store, tmp_path: Path) -> None:
    """Beyond the limit of an actor a follow is 429 and refused on record; beyond that of the process it is 503."""
    api = ApiUnderTest(store, tmp_path, max_follows=MAX_FOLLOWS_OF_ONE_ACTOR + 1)
    with _trail_of(api) as trail:
        other = api.client("otto", AUDITOR)
        followers = [trail.follow() for _ in range(MAX_FOLLOWS_OF_ONE_ACTOR)]
        refused = trail.auditor.get(FOLLOW)
        problem_of(refused, 429, "too_many_at_once")
        assert int(refused.headers["retry-after"]) >= 1
        assert api.record(event_name=names.EVENT_AUDIT_READ, result="rejected").row.record_id
        followers.append(trail.follow(client=other))
        problem_of(api.client("vera", AUDITOR).get(FOLLOW), 503, "try_later")
        assert len(trail.reads()) == len(followers)
        assert trail.auditor.get("/v1/audit/records").status_code == 200
        for follower in followers:
            follower.close()
        poll_until(lambda: api.follows.count == 0, "nobody follows")
        trail.follow(client=other).close()


def test_a_client_that_does_not_read_holds_one_page(trail: Trail, monkeypatch: pytest.MonkeyPatch) -> None:
    """Few pages of a long trail are read for it; others are served meanwhile, and it gets all once it reads."""
    pages = _counted(monkeypatch, trail.api.store.reads, "followed")
    lane, store, fill = trail.api.lane, trail.api.store, {names.AUDITRACE_REASON: "x" * 20_000}

    def save(transaction: Transaction) -> Receipt:
        return transaction.save(_transition(store, fill))

    made = [future.result().record_id for future in [lane.submit(save) for _ in range(600)]]
    with trail.follow("&since=2000-01-01&action=APPROVE") as stalled:
        with trail.follow("&since=2000-01-01&action=APPROVE") as quick:
            assert _ids(quick.records(600)) == made
        of_quick = 600 // 50 + 1
        assert len(pages) < 2 * of_quick
        assert _ids(stalled.records(600)) == made
    poll_until(lambda: trail.api.follows.count == 0, "nobody follows")


def _transition(store: Store, more: dict[str, Any]) -> Any:
    return msgspec.structs.replace(store.fact(), record=store.record(names.EVENT_JOB_CONFIRM, more=more))


def test_writers_side_by_side_lose_and_repeat_nothing(trail: Trail) -> None:
    """While lanes and clients commit side by side, followers that come and go get every record once, in its order."""
    store, ended = trail.api.store, threading.Event()
    lanes = [trail.api.lane, *(store.beside(n).lane() if store.kind == SQLITE else store.lane(f"w{n}") for n in (1, 2))]

    def write(lane: Any) -> list[str]:
        receipts = [lane.submit(lambda transaction: transaction.save(store.fact())) for _ in range(60)]
        return [receipt.result().record_id for receipt in receipts]

    def follow(stride: int) -> list[str]:
        found: list[str] = []
        last_id: str | None = begin
        while not ended.is_set() or len(found) < len(made):
            with trail.follow(JOBS, last_id) as follower:
                for event in follower.records(min(stride, max(1, 180 - len(found)))):
                    found.append(event.data["record_id"])
                    last_id = event.id
        return found

    with trail.follow() as follower:
        begin = follower.first().id
    made: list[str] = []
    with ThreadPoolExecutor(6) as pool:
        followed = [pool.submit(follow, stride) for stride in (1, 7, 180)]
        for written in [pool.submit(write, lane) for lane in lanes]:
            made += written.result(60)
        ended.set()
        found = [each.result(120) for each in followed]
    assert sorted(made) == sorted(found[0])
    order = [
        record_id
        for (record_id,) in store.rows(
            "SELECT record_id FROM audit_records WHERE event_name = 'job.create' ORDER BY position"
            + (", stream_id" if store.kind == POSTGRES else "")
        )
    ]
    assert found == [order] * 3


@pytest.mark.stores(POSTGRES)
def test_a_record_that_is_committed_late_is_not_passed(
    store: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A lane commits later what it sealed earlier: the follow waits for it, and sends both in the order of sealing."""
    looks = _counted(monkeypatch, store.reads, "newest_position")
    late, quick = store.lane("late"), store.lane("quick")
    for lane in (late, quick):
        lane.submit(lambda transaction: transaction.save(store.fact())).result()
    sealed, go = threading.Event(), threading.Event()

    def slowly(transaction: Transaction) -> Receipt:
        receipt = transaction.save(store.fact())
        sealed.set()
        go.wait(60)
        return receipt

    with _trail_of(ApiUnderTest(store, tmp_path, poll_s=0.05)) as trail, trail.follow(JOBS) as follower:
        follower.first()
        pending = late.submit(slowly)
        assert sealed.wait(60)
        passing = quick.submit(lambda transaction: transaction.save(store.fact())).result()
        before = len(looks)
        # The first of these may have begun before that commit; the second has seen it.
        poll_until(lambda: len(looks) >= before + 3, "two looks for new records")
        go.set()
        assert _ids(follower.records(2)) == [pending.result().record_id, passing.record_id]


def _counted(monkeypatch: pytest.MonkeyPatch, reads: Any, name: str) -> list[int]:
    """Return a list that grows with each call of a read."""
    calls: list[int] = []
    read = getattr(reads, name)
    monkeypatch.setattr(reads, name, lambda *given: (calls.append(1), read(*given))[1])
    return calls

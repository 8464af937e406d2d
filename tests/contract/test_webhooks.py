"""Webhooks as threads: every record arrives, in order per stream, through failures; and they delay nobody."""

import json
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from service.ports import RecordFilter
from service.webhooks import WebhookEndpoint, Webhooks
from telemetry import names
from tests.support.both_stores import BOTH, Store
from tests.support.deliveries import commit
from tests.support.poll_until import poll_until
from tests.support.webhook_receiver import Arrival, Reply, WebhookReceiver
from tests.support.webhooks import endpoint_to, webhooks_over

pytestmark = pytest.mark.stores(*BOTH)

PATIENCE_S = 60
GRACE_S = 30


@pytest.fixture
def receiver() -> Iterator[WebhookReceiver]:
    """A receiver that listens."""
    with WebhookReceiver() as started:
        yield started


@contextmanager
def delivering(store: Store, *endpoints: WebhookEndpoint) -> Iterator[Webhooks]:
    """Deliver to these endpoints within the block."""
    webhooks = webhooks_over(store, endpoints)
    webhooks.start()
    try:
        yield webhooks
    finally:
        webhooks.retire(0.0)
        webhooks.stop()


def expected(store: Store, where: str = "1 = 1") -> dict[str, list[tuple[int, str]]]:
    """Return number and id of the committed records, in order, by stream."""
    sql = f"SELECT stream_id, number, record_id FROM audit_records WHERE {where} ORDER BY stream_id, number"
    return by_stream(store.rows(sql))


def by_stream(places: object) -> dict[str, list[tuple[int, str]]]:
    """Return number and id of records, in their order, by stream."""
    found: dict[str, list[tuple[int, str]]] = defaultdict(list)
    for stream_id, number, record_id in places:  # type: ignore[attr-defined]
        found[stream_id].append((number, record_id))
    return dict(found)


def arrives(store: Store, receiver: WebhookReceiver, where: str = "1 = 1") -> None:
    """Wait until every committed record has arrived, in order per stream, and nothing else has."""
    poll_until(
        lambda: len(receiver.first_arrivals()) >= sum(map(len, expected(store, where).values())), "all", PATIENCE_S
    )
    assert by_stream(receiver.first_arrivals()) == expected(store, where)


def passes_all(store: Store) -> None:
    """Wait until no cursor is behind."""
    outbox = store.webhooks()
    poll_until(lambda: not outbox.streams("one"), "the cursors", PATIENCE_S)


def test_every_record_arrives_in_order_signed_and_as_listings_show_it(
    store: Store, receiver: WebhookReceiver, tmp_path: Path
) -> None:
    """Streams of several processes, on one connection; each record once, with its id, time and whole content."""
    for _ in range(3):
        commit(store, store.lane(), 70)
    with delivering(store, endpoint_to(receiver, tmp_path)):
        arrives(store, receiver)
        passes_all(store)
    kept = receiver.kept()
    assert len(kept) == len(receiver.first_arrivals())
    assert receiver.connections == 1
    assert receiver.unsigned == 0
    one = kept[5]
    row = store.reads.record(one.id, None)
    body = json.loads(row.body)
    assert one.path == "/hook"
    assert one.headers["content-type"] == "application/json"
    assert one.payload == {
        "type": row.event_name,
        "timestamp": body["timestamp"],
        "data": {
            "record_id": row.record_id,
            "stream_id": row.stream_id,
            "sequence_number": row.sequence_number,
            "record_hash": row.record_hash,
            "event_name": row.event_name,
            "timestamp": body["timestamp"],
            "trace_id": body["trace_id"],
            "span_id": body["span_id"],
            "attributes": body["attributes"],
            "body": row.body,
        },
    }


def test_a_commit_wakes_the_webhooks(store: Store, receiver: WebhookReceiver, tmp_path: Path) -> None:
    """What is committed while they run arrives; an endpoint gets only what its filter matches."""
    where = RecordFilter(tenant_id="default", event_name=(names.EVENT_AUDIT_STREAM_CLOSE,))
    endpoint = endpoint_to(receiver, tmp_path, where=where, from_start=False)
    with delivering(store, endpoint) as webhooks:
        for _ in range(3):
            lane = store.lane(on_commit=lambda _: webhooks.wake())
            commit(store, lane, 5)
            lane.close()
        arrives(store, receiver, f"event_name = '{names.EVENT_AUDIT_STREAM_CLOSE}'")
        passes_all(store)


def fails_at_first(*replies: Reply) -> Callable[[Arrival], Reply]:
    """Return a script that gives these replies to the first requests, and takes the others."""
    left = list(replies)
    return lambda _: left.pop(0) if left else Reply()


@pytest.mark.parametrize(
    "reply",
    [
        *(
            Reply(500),
            Reply(503, {"Retry-After": "0"}),
            Reply(429),
            Reply(404),
            Reply(401),
            Reply(410),
            Reply(reset=True),
        ),
        *(
            Reply(302, {"Location": "/other"}),
            Reply(400),
            Reply(413),
            Reply(500, kept=True),
            Reply(reset=True, kept=True),
        ),
    ],
    ids=lambda reply: f"{reply.status}{' reset' * reply.reset}{' kept' * bool(reply.kept)}",
)
def test_what_is_not_acknowledged_is_sent_again(
    store: Store, receiver: WebhookReceiver, tmp_path: Path, reply: Reply
) -> None:
    """Whatever the answer, nothing is dropped or overtaken in its stream; repetitions have the same id and bytes."""
    receiver.script = fails_at_first(Reply(), reply, reply)
    commit(store, store.lane(), 4)
    commit(store, store.lane(), 4)
    with delivering(store, endpoint_to(receiver, tmp_path)) as webhooks:
        arrives(store, receiver)
        passes_all(store)
        poll_until(lambda: not webhooks.text, "the end of the outage", PATIENCE_S)
    assert receiver.request_count == 10 + 2


def test_the_state_of_an_outage_is_shown(
    store: Store, receiver: WebhookReceiver, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Readiness and the database say since when and why, until it is over; the log says each once."""
    receiver.reply = Reply(503, {"Retry-After": "0"})
    commit(store, store.lane(), 4)
    outbox = store.webhooks()
    with delivering(store, endpoint_to(receiver, tmp_path)) as webhooks:
        poll_until(lambda: receiver.request_count > 3, "a few attempts", PATIENCE_S)
        assert "webhook one (http://127.0.0.1:" in webhooks.text
        assert "503 Service Unavailable" in webhooks.text
        state = outbox.state("one")
        assert state is not None
        assert (state.records, state.error) == (5, "503 Service Unavailable")
        receiver.reply = Reply()
        arrives(store, receiver)
        poll_until(lambda: not webhooks.text, "the end of the outage", PATIENCE_S)
        state = outbox.state("one")
        assert state is not None
        assert (state.error, state.failing_since_ns) == (None, None)
    said = [record.getMessage() for record in caplog.records if "webhook one" in record.getMessage()]
    assert ["are held" in line for line in said] == [True, False]


def test_a_record_that_is_refused_for_ever_holds_its_stream_alone(
    store: Store, receiver: WebhookReceiver, tmp_path: Path
) -> None:
    """It is never dropped: its stream waits behind it and the others go on; it arrives once it is accepted."""
    bad = commit(store, store.lane(), 3)[1]
    commit(store, store.lane(), 3)
    receiver.script = lambda arrival: Reply(400 if arrival.id == bad.record_id else 200)
    with delivering(store, endpoint_to(receiver, tmp_path)) as webhooks:
        other = f"stream_id <> '{bad.stream_id}' OR number < {bad.sequence_number}"
        arrives(store, receiver, other)
        commit(store, store.lane(), 3)
        arrives(store, receiver, other)
        poll_until(lambda: "400" in webhooks.text, "the state to say it", PATIENCE_S)
        receiver.script = None
        arrives(store, receiver)
        poll_until(lambda: not webhooks.text, "the end of it", PATIENCE_S)


@pytest.mark.parametrize("status", [500, 400])
def test_an_endpoint_that_takes_some_records_is_not_waited_for_longer(
    store: Store, receiver: WebhookReceiver, tmp_path: Path, status: int
) -> None:
    """Each acknowledged record begins the back-off anew: an endpoint that often fails gets its records nevertheless."""
    commit(store, store.lane(), 60)
    webhooks = webhooks_over(store, [endpoint_to(receiver, tmp_path)])
    pauses: list[float] = []

    def ask(arrival: Arrival) -> Reply:
        pauses.append(webhooks.states()["one"].pause_s)
        return Reply(status if arrival.number % 4 == 0 else 200)

    receiver.script = ask
    webhooks.start()
    arrives(store, receiver)
    webhooks.retire(GRACE_S)
    webhooks.stop()
    assert max(pauses) <= 0.1


def test_endpoints_do_not_wait_for_each_other(store: Store, receiver: WebhookReceiver, tmp_path: Path) -> None:
    """One that hangs delays neither the others nor the stop; what it lacks is there for the next start."""
    commit(store, store.lane(), 20)
    with WebhookReceiver(lambda _: Reply(hang=True)) as dead:
        endpoints = [endpoint_to(dead, tmp_path, "dead"), endpoint_to(receiver, tmp_path)]
        webhooks = webhooks_over(store, endpoints)
        webhooks.start()
        arrives(store, receiver)
        poll_until(lambda: dead.request_count > 0, "a request", PATIENCE_S)
        webhooks.retire(0.2)
        webhooks.stop()
    with WebhookReceiver() as repaired, delivering(store, endpoint_to(repaired, tmp_path, "dead")):
        arrives(store, repaired)


def test_a_stop_delivers_what_was_committed_before_it(store: Store, receiver: WebhookReceiver, tmp_path: Path) -> None:
    """What was committed before the stop has arrived when it returns, if the endpoint takes it."""
    webhooks = webhooks_over(store, [endpoint_to(receiver, tmp_path)])
    webhooks.start()
    lane = store.lane()
    commit(store, lane, 150)
    lane.close()
    webhooks.retire(GRACE_S)
    webhooks.stop()
    assert by_stream(receiver.first_arrivals()) == expected(store)
    assert not store.webhooks().streams("one")


def test_a_stop_in_the_middle_repeats_nothing(store: Store, receiver: WebhookReceiver, tmp_path: Path) -> None:
    """A stop whose time is over ends behind the present record: the next start goes on with the next one."""
    commit(store, store.lane(), 40)
    webhooks = webhooks_over(store, [endpoint_to(receiver, tmp_path)])

    def ask(arrival: Arrival) -> Reply:
        if arrival.number == 10:
            webhooks.retire(0.0)
        return Reply()

    receiver.script = ask
    webhooks.start()
    poll_until(lambda: receiver.request_count >= 10, "ten requests", PATIENCE_S)
    webhooks.stop()
    receiver.script = None
    with delivering(store, endpoint_to(receiver, tmp_path)):
        arrives(store, receiver)
        passes_all(store)
    assert len(receiver.kept()) == 41


def test_processes_share_the_work(store: Store, receiver: WebhookReceiver, tmp_path: Path) -> None:
    """Two processes deliver to an endpoint as one does; when one of them dies, the other goes on."""
    endpoint = endpoint_to(receiver, tmp_path)
    lane = store.lane()
    commit(store, lane, 20)
    with delivering(store, endpoint), delivering(store, endpoint):
        arrives(store, receiver)
        passes_all(store)
        commit(store, lane, 20)
        arrives(store, receiver)
        passes_all(store)
    assert len(receiver.kept()) == len(receiver.first_arrivals())

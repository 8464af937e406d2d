"""A record is set aside only when the sink refuses it alone while it takes a neighbour; nothing else is, ever."""

import pytest

from telemetry.delivery.answers import Sink
from tests.support.both_stores import BOTH, Store
from tests.support.deliveries import commit, committed, drain, got, records_in, refusing, relay_over
from tests.support.otlp_sink import Answer, OtlpSink, Request

pytestmark = pytest.mark.stores(*BOTH)


@pytest.mark.parametrize("answer", [Answer(status=400), Answer(rejected=1, stored=False)], ids=["400", "partial"])
@pytest.mark.parametrize("bad", [1, 2, 9, 17])
def test_a_record_that_is_refused_alone_is_parked(
    store: Store, server: OtlpSink, sink: Sink, bad: int, answer: Answer
) -> None:
    """The batch is split until it is found, wherever it stands; it alone is set aside, and the others arrive."""
    commit(store, store.lane(), 16)
    server.script = refusing(lambda record: record.number == bad, answer)
    relay = relay_over(store, sink)
    drain(relay)
    assert store.rows("SELECT number FROM parked_records") == [(bad,)]
    everything = committed(store)
    # Whatever it was compared with, the others arrive in order.
    assert list(dict.fromkeys(got(server))) == [each for each in everything if each.number != bad]
    assert relay.state().parked == 1
    assert "1 record is parked" in relay.state().text
    ((reason,),) = store.rows("SELECT reason FROM parked_records")
    assert "400" in reason or "INVALID_ARGUMENT" in reason or "1 rejected: rejected by the test" in reason


def test_a_record_that_is_too_large_for_the_sink_is_parked(store: Store, server: OtlpSink, http: Sink) -> None:
    """413 to a single record is about that record; 413 to a batch only makes the batches smaller."""
    commit(store, store.lane(), 20)

    def script(request: Request) -> Answer:
        records = records_in(request)
        return Answer(status=413) if len(records) > 4 or any(each.number == 5 for each in records) else Answer()

    server.script = script
    drain(relay_over(store, http))
    assert store.rows("SELECT number FROM parked_records") == [(5,)]
    assert set(got(server)) == {each for each in committed(store) if each.number != 5}


def test_several_bad_records_are_each_found(store: Store, server: OtlpSink, sink: Sink) -> None:
    """Also side by side, at the ends, and in two streams."""
    for _ in range(2):
        commit(store, store.lane(), 12)
    bad = {1, 2, 7, 8, 13}
    server.script = refusing(lambda record: record.number in bad, Answer(status=400))
    drain(relay_over(store, sink))
    assert [row[0] for row in store.rows("SELECT number FROM parked_records ORDER BY stream_id, number")] == [
        *sorted(bad),
        *sorted(bad),
    ]
    assert set(got(server)) == {each for each in committed(store) if each.number not in bad}


@pytest.mark.parametrize("status", [400, 404, 413])
@pytest.mark.parametrize("has_delivered", [False, True])
def test_a_sink_that_refuses_everything_parks_nothing(
    store: Store, server: OtlpSink, http: Sink, status: int, has_delivered: bool
) -> None:
    """A wrong URL or a broken sink is an outage, from the first record on or later; nobody has to un-park anything."""
    lane = store.lane()
    relay = relay_over(store, http)
    if has_delivered:
        commit(store, lane, 5)
        drain(relay)
    commit(store, lane, 16)
    server.script = lambda _: Answer(status=status)
    for _ in range(5):
        assert not relay.once()
    assert store.reads.outbox().parked == 0
    server.script = None
    drain(relay)
    assert set(got(server)) == set(committed(store))


def test_a_sink_that_rejects_all_of_every_request_parks_nothing(store: Store, server: OtlpSink, sink: Sink) -> None:
    """A partial success that rejects everything is no success, and no verdict about a record."""
    commit(store, store.lane(), 8)
    server.script = lambda request: Answer(rejected=len(records_in(request)), stored=False)
    relay = relay_over(store, sink)
    for _ in range(4):
        assert not relay.once()
    assert store.reads.outbox().depth == 9
    assert store.reads.outbox().parked == 0


def test_a_record_that_is_refused_only_for_a_while_is_not_parked(store: Store, server: OtlpSink, http: Sink) -> None:
    """It is set aside when it is refused again after a neighbour was accepted: a passing fault parks nothing."""
    lane = store.lane()
    relay = relay_over(store, http)
    commit(store, lane, 5)
    drain(relay)
    commit(store, lane, 1)
    refused = []

    def script(request: Request) -> Answer:
        if any(each.number == 7 for each in records_in(request)) and not refused:
            refused.append(request.number)
            return Answer(status=400)
        return Answer()

    server.script = script
    drain(relay)
    assert store.reads.outbox().parked == 0
    assert set(got(server)) == set(committed(store))


def test_a_lone_record_that_is_refused_waits_for_company(store: Store, server: OtlpSink, http: Sink) -> None:
    """With nothing to compare it to it is held; once a neighbour is accepted it is parked."""
    lane = store.lane()
    server.script = refusing(lambda record: record.number == 1, Answer(status=400))
    lane.submit(lambda _: None).result()
    relay = relay_over(store, http)
    assert store.rows("SELECT number FROM audit_records") == [(1,)]
    for _ in range(3):
        assert not relay.once()
    assert store.reads.outbox().parked == 0
    commit(store, lane, 2)
    drain(relay)
    assert store.rows("SELECT number FROM parked_records") == [(1,)]
    assert {each.number for each in got(server)} == {2, 3}

"""Records that were parked or delivered before are sent again on request, and no cursor moves for it."""

import pytest

from service.errors import InvalidRequestError, NotFoundError
from service.relay import parse_place
from telemetry.delivery.answers import Sink
from tests.support.both_stores import BOTH, Store
from tests.support.deliveries import commit, committed, drain, got, refusing, relay_over
from tests.support.otlp_sink import Answer, OtlpSink

pytestmark = pytest.mark.stores(*BOTH)


def test_parked_records_are_delivered_once_the_sink_takes_them(store: Store, server: OtlpSink, sink: Sink) -> None:
    """What is acknowledged is parked no more; the gap in the sink is filled."""
    commit(store, store.lane(), 9)
    server.script = refusing(lambda record: record.number in {3, 4, 9}, Answer(status=400))
    relay = relay_over(store, sink)
    drain(relay)
    assert store.reads.outbox().parked == 3
    server.script = None
    again = relay.retry_parked()
    assert (again.accepted, list(again.refused), again.held) == (3, [], None)
    assert store.reads.outbox().parked == 0
    assert set(got(server)) == set(committed(store))
    assert relay.retry_parked().accepted == 0


def test_a_record_that_is_refused_again_stays_parked(store: Store, server: OtlpSink, http: Sink) -> None:
    """With the newest answer; the others are delivered."""
    commit(store, store.lane(), 9)
    server.script = refusing(lambda record: record.number in {3, 4}, Answer(status=400))
    relay = relay_over(store, http)
    drain(relay)
    server.script = refusing(lambda record: record.number == 3, Answer(status=413))
    again = relay.retry_parked()
    assert again.accepted == 1
    assert [(record.number, answer[:3]) for record, answer in again.refused] == [(3, "413")]
    assert store.rows("SELECT number, substr(reason, 1, 3) FROM parked_records") == [(3, "413")]


def test_an_outage_ends_the_retry_and_loses_nothing(store: Store, server: OtlpSink, http: Sink) -> None:
    """Records that could not be sent stay parked, with the answer that was about them."""
    commit(store, store.lane(), 9)
    server.script = refusing(lambda record: record.number in {3, 4}, Answer(status=400))
    relay = relay_over(store, http)
    drain(relay)
    server.script = lambda _: Answer(status=503)
    again = relay.retry_parked()
    assert (again.accepted, again.held, again.next_number) == (0, "503 Service Unavailable", 3)
    assert store.rows("SELECT number, substr(reason, 1, 3) FROM parked_records") == [(3, "400"), (4, "400")]


def test_a_stream_is_replayed_from_a_number(store: Store, server: OtlpSink, sink: Sink) -> None:
    """Everything delivered from there on is sent again in order, what is parked or not delivered yet is not."""
    lane = store.lane()
    receipt = commit(store, lane, 20)[0]
    server.script = refusing(lambda record: record.number == 15, Answer(status=400))
    relay = relay_over(store, sink, max_records=4)
    drain(relay)
    commit(store, lane, 3)
    before = got(server)
    outbox = store.outbox()
    counts = [outbox.delivered_count(receipt.stream_id, first) for first in (10, 16, 21, 22, 1000)]
    assert counts == [11, 6, 1, 0, 0]
    again = relay.replay(receipt.stream_id, 10)
    assert again.accepted == 11
    assert [each.number for each in got(server)[len(before) :]] == [10, 11, 12, 13, 14, 16, 17, 18, 19, 20, 21]
    assert set(got(server)) == set(before)
    assert store.reads.outbox().depth == 3
    assert relay.replay(receipt.stream_id, 1000).accepted == 0


def test_a_replay_goes_around_what_the_sink_refuses(store: Store, server: OtlpSink, http: Sink) -> None:
    """A record that was accepted before and is refused now is named, and the others are sent."""
    receipt = commit(store, store.lane(), 9)[0]
    relay = relay_over(store, http)
    drain(relay)
    before = len(got(server))
    server.script = refusing(lambda record: record.number == 5, Answer(status=400))
    again = relay.replay(receipt.stream_id, 1)
    assert again.accepted == 9
    assert [record.number for record, _ in again.refused] == [5]
    # The neighbour of the refused one is sent once more, to find out that it is the record and not the sink.
    assert len(got(server)) == before + 10
    assert store.reads.outbox().parked == 0


def test_a_sink_that_refuses_everything_ends_a_replay(store: Store, server: OtlpSink, http: Sink) -> None:
    """A wrong URL that answers 400 is an outage: no record is named as refused for it."""
    receipt = commit(store, store.lane(), 19)[0]
    relay = relay_over(store, http)
    drain(relay)
    server.script = lambda _: Answer(status=400)
    again = relay.replay(receipt.stream_id, 3)
    assert (again.accepted, list(again.refused), again.held, again.next_number) == (0, [], "400 Bad Request", 3)


def test_a_replay_says_where_to_go_on(store: Store, server: OtlpSink, http: Sink) -> None:
    """An outage ends it, with the number of the first record that was not acknowledged."""
    receipt = commit(store, store.lane(), 19)[0]
    relay = relay_over(store, http, max_records=5)
    drain(relay)
    server.script = refusing(lambda record: record.number == 13, Answer(status=503))
    again = relay.replay(receipt.stream_id, 3)
    assert (again.accepted, again.held, again.next_number) == (10, "503 Service Unavailable", 13)


def test_a_stream_that_does_not_exist_is_named(store: Store, http: Sink) -> None:
    """Instead of replaying nothing in silence."""
    with pytest.raises(NotFoundError, match="there is no stream elsewhere"):
        relay_over(store, http).replay("elsewhere", 1)
    with pytest.raises(NotFoundError, match="there is no stream elsewhere"):
        store.outbox().delivered_count("elsewhere", 1)


def test_a_place_is_stream_and_number() -> None:
    """STREAM:NUMBER, with a number from 1."""
    assert parse_place("00000000-0000-4000-8000-000000000001:17") == ("00000000-0000-4000-8000-000000000001", 17)
    for text in ("", "17", ":17", "stream:", "stream:0", "stream:-1", "stream:1.5", "stream:٣"):
        with pytest.raises(InvalidRequestError, match="STREAM:NUMBER"):
            parse_place(text)

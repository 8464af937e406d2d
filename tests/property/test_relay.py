"""Whatever relays, sink and crashes do: nothing is lost, reordered, altered, or parked without cause."""

import shutil
import tempfile
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import msgspec
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from telemetry import names
from telemetry.delivery.answers import Accepted, Answer, Refused, Rejected, Unreachable
from tests.support.deliveries import Arrived, FakeSink, commit, committed, relay_over
from tests.support.depth import examples
from tests.support.sqlite_stores import SqliteStore

REFUSALS: Sequence[Answer] = (
    Refused(400, "400", "400 Bad Request"),
    Refused(413, "413", "413 Content Too Large"),
    Rejected(1, "bad"),
)
OUTAGES: Sequence[Answer] = (
    Refused(503, "503", "503 Service Unavailable"),
    Refused(401, "401", "401 Unauthorized"),
    Refused(404, "404", "404 Not Found"),
    Unreachable("timeout", "no answer"),
)


class Crash(BaseException):
    """A relay's process dies here."""


class Process:
    """A relay and what dies with it."""

    def __init__(self, store: SqliteStore, sink: FakeSink, max_records: int) -> None:
        self.outbox = store.outbox()
        self.relay = relay_over(store, sink, self.outbox, max_records=max_records)


class Lane:
    """A process that commits records and writes checkpoints."""

    def __init__(self, store: SqliteStore) -> None:
        self.store = store
        self.lane = store.lane()
        self.writer = store.checkpoints(self.lane)

    def commit(self, count: int) -> None:
        commit(self.store, self.lane, count)

    def write_checkpoint(self) -> None:
        self.writer.write()
        self.writer.release()


class Deliveries(RuleBasedStateMachine):
    """Lanes that commit, two relays that deliver to one sink, and everything that may happen to them."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.store = SqliteStore(self.folder)
        self.sink = FakeSink(self.answer)
        self.outage: Answer | None = None
        self.is_kept_all_the_same = False
        self.bad: set[str] = set()
        self.was_bad: set[str] = set()
        self.was_parked: set[str] = set()
        self.refusal = REFUSALS[0]
        self.lanes: list[Lane] = []
        self.meanwhile: Callable[[], None] | None = None
        self.is_done = False

    @initialize(max_records=st.sampled_from([3, 8, 50]))
    def begin(self, max_records: int) -> None:
        self.max_records = max_records
        self.processes = [Process(self.store, self.sink, max_records) for _ in range(2)]
        self.open_lane()

    # What the sink does.

    def answer(self, records: Sequence[Arrived]) -> Answer:
        """Say what the present state of the sink says, after what is to happen meanwhile has happened."""
        meanwhile, self.meanwhile = self.meanwhile, None
        if meanwhile is not None:
            meanwhile()
        for record in records:
            self.check_checkpoint(record)
        if self.outage is not None:
            if self.is_kept_all_the_same:
                self.sink.kept += records
            return self.outage
        if any(record.record_id in self.bad for record in records):
            self.was_bad |= {record.record_id for record in records} & self.bad
            return self.refusal
        return Accepted()

    def check_checkpoint(self, record: Arrived) -> None:
        """What a checkpoint names is in the sink before it, or is parked."""
        body = self.bodies().get(record.record_id)
        if body is None or body["event_name"] != names.EVENT_AUDIT_CHECKPOINT:
            return
        kept = {(each.stream_id, each.number) for each in self.sink.kept}
        for tip in body["attributes"][names.AUDITRACE_CHECKPOINT_TIPS]:
            named = {(tip["stream_id"], number) for number in range(tip["from"], tip["number"] + 1)}
            assert named <= kept | self.parked_places(), "a checkpoint before its records"

    # What happens.

    @rule(lane=st.integers(0, 9), count=st.integers(1, 6))
    def commit(self, lane: int, count: int) -> None:
        self.lanes[lane % len(self.lanes)].commit(count)

    @precondition(lambda self: len(self.lanes) < 3)
    @rule()
    def open_lane(self) -> None:
        self.lanes.append(Lane(self.store))
        self.lanes[-1].commit(1)

    @rule(lane=st.integers(0, 9))
    def write_checkpoint(self, lane: int) -> None:
        self.lanes[lane % len(self.lanes)].write_checkpoint()

    @rule(one=st.integers(0, 1))
    def deliver(self, one: int) -> None:
        self.processes[one].relay.once()

    @rule(one=st.integers(0, 1))
    def deliver_much(self, one: int) -> None:
        for _ in range(20):
            if not self.processes[one].relay.once():
                break

    @rule(one=st.integers(0, 1), away_s=st.sampled_from([0, 5, 11]), steps=st.integers(1, 3))
    def pause_one_while_the_other_delivers(self, one: int, away_s: int, steps: int) -> None:
        """The request of one is under way while time passes, and the other does what it can."""

        def meanwhile() -> None:
            self.store.clock.advance(away_s)
            for _ in range(steps):
                self.processes[1 - one].relay.once()

        self.meanwhile = meanwhile
        self.processes[one].relay.once()
        self.meanwhile = None

    @rule(one=st.integers(0, 1), is_stored=st.booleans())
    def die_with_the_request_under_way(self, one: int, is_stored: bool) -> None:
        """The sink may or may not have got it; the relay learns nothing."""

        def die() -> None:
            if (
                is_stored
                and self.outage is None
                and not any(each.record_id in self.bad for each in self.sink.requests[-1])
            ):
                self.sink.kept += self.sink.requests[-1]
            raise Crash

        self.meanwhile = die
        self.until_death(one)
        self.meanwhile = None

    @rule(one=st.integers(0, 1), where=st.sampled_from(["take", "delivered", "park"]), is_after=st.booleans())
    def die_at_the_database(self, one: int, where: str, is_after: bool) -> None:
        """Before or after a transaction of the outbox."""
        outbox = self.processes[one].outbox
        method = getattr(outbox, where)

        def die(*arguments: object) -> None:
            if is_after:
                method(*arguments)
            raise Crash

        setattr(outbox, where, die)
        self.until_death(one)

    def until_death(self, one: int) -> None:
        with suppress(Crash):
            self.processes[one].relay.once()
        self.store.kill_relay(self.processes[one].outbox)
        self.processes[one] = Process(self.store, self.sink, self.max_records)

    @rule(seconds=st.sampled_from([1, 9, 11, 60]))
    def time_passes(self, seconds: int) -> None:
        self.store.clock.advance(seconds)

    @rule(one=st.integers(0, 1))
    def renew(self, one: int) -> None:
        self.processes[one].outbox.renew()

    @rule(one=st.integers(0, 1))
    def let_go(self, one: int) -> None:
        self.processes[one].outbox.release()

    @rule(outage=st.none() | st.sampled_from([*OUTAGES, *REFUSALS]), is_kept=st.booleans())
    def the_sink_changes(self, outage: Answer | None, is_kept: bool) -> None:
        self.outage, self.is_kept_all_the_same = outage, is_kept

    @rule(at=st.integers(0, 10_000), refusal=st.sampled_from(REFUSALS))
    def a_record_is_bad(self, at: int, refusal: Answer) -> None:
        everything = committed(self.store)
        self.refusal = refusal
        self.bad.add(everything[at % len(everything)].record_id)

    @rule()
    def no_record_is_bad(self) -> None:
        self.bad.clear()

    @rule(one=st.integers(0, 1))
    def retry_parked(self, one: int) -> None:
        self.processes[one].relay.retry_parked()

    @rule(one=st.integers(0, 1), at=st.integers(0, 10_000))
    def replay(self, one: int, at: int) -> None:
        everything = committed(self.store)
        place = everything[at % len(everything)]
        self.processes[one].relay.replay(place.stream_id, place.number)

    # What always holds.

    @invariant()
    def nothing_behind_a_cursor_is_missing(self) -> None:
        """What counts as delivered is in the sink; what counts as parked was refused by itself."""
        kept = {each.record_id for each in self.sink.kept}
        delivered = self.store.rows(
            "SELECT record_id, parked_ns IS NOT NULL FROM audit_records JOIN delivery_cursors USING (stream_id) "
            "LEFT JOIN parked_records ON parked_records.stream_id = audit_records.stream_id "
            "AND parked_records.number = audit_records.number WHERE audit_records.number <= delivery_cursors.number"
        )
        for record_id, is_parked in delivered:
            if is_parked:
                self.was_parked.add(record_id)
                assert record_id in self.was_bad, "parked without cause"
            else:
                assert record_id in kept, "lost"

    @invariant()
    def what_arrived_is_what_was_committed(self) -> None:
        """Byte for byte, however often; and of each stream in order, but for what was parked in between."""
        everything = set(committed(self.store))
        numbers: dict[str, list[int]] = defaultdict(list)
        for each in dict.fromkeys(self.sink.kept):
            assert each in everything
            if each.record_id not in self.was_parked | self.was_bad:
                numbers[each.stream_id].append(each.number)
        for found in numbers.values():
            assert found == sorted(found), "out of order"

    def teardown(self) -> None:
        if hasattr(self, "processes"):
            self.heal()
        self.store.close()
        shutil.rmtree(self.folder)

    def heal(self) -> None:
        """Once the sink is well, everything arrives, whatever happened before."""
        self.outage = None
        self.bad.clear()
        self.store.clock.advance(60)
        assert self.processes[0].relay.drain(60)
        self.processes[0].relay.retry_parked()
        assert self.store.reads.outbox().parked == 0
        self.nothing_behind_a_cursor_is_missing()
        assert set(self.sink.kept) == set(committed(self.store))

    def parked_places(self) -> set[tuple[str, int]]:
        return set(self.store.rows("SELECT stream_id, number FROM parked_records"))

    def bodies(self) -> dict[str, dict]:
        rows = self.store.rows("SELECT record_id, body FROM audit_records WHERE event_name = 'audit.checkpoint'")
        return {record_id: msgspec.json.decode(body) for record_id, body in rows}


TestDeliveries = Deliveries.TestCase
TestDeliveries.settings = settings(max_examples=examples(25), stateful_step_count=30, deadline=None)

"""Every filter of records, alone and with others, finds what a reading of all bodies finds, in both orders."""

import random
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final
from urllib.parse import parse_qsl

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from service.errors import InvalidRequestError
from service.operations.filters import FORMS, filter_of, filter_text
from service.ports import FilterValues, ListingOrder, RecordFilter, RecordRow, Transition, small
from service.store import listing
from telemetry import names
from telemetry.audit.record import Actor, AuditRecord, Result, SpanRef, Target, audit_record
from tests.support.both_stores import BOTH, Store
from tests.support.matching import matches, values_of

pytestmark = pytest.mark.stores(*BOTH)

COUNT: Final = 240
TEXTS: Final = (
    "disk is full", "DISK %_ is *full*", 'quoted "disk"', "back\\slash \\u0000", "a\0b", "Zürich ÜBER", "\t\n",
)  # fmt: skip
SOUGHT: Final = ("disk", "DISK IS", '"', "\\", "\\u0000", "%", "_", "a\0b", "ü", "Ü", "zürich", "job-1", "nothing")
JOBS: Final = tuple(f"{number:08x}-0000-4000-8000-000000000000" for number in range(8))
PEOPLE: Final = ("anna", "ben", "ANNA", "a*", "a\0b", "\\u0000", "o'neil; --", "Ünal")


@pytest.fixture(scope="module")
def rows(shared_store: Store) -> Sequence[RecordRow]:
    """A ledger of random records of two tenants in two streams; returns them all, last committed first."""
    draws = random.Random(12)
    lanes = [shared_store.lane(), shared_store.lane()]
    for number in range(COUNT):
        record = _record(shared_store, draws, number)
        draws.choice(lanes).submit(lambda work, record=record: work.save(Transition(record=record))).result()
    return shared_store.reads.records(RecordFilter(), None, 1000).rows


def _record(store: Store, draws: random.Random, number: int) -> AuditRecord:
    target = draws.choice([Target("ledger", "auditrace"), Target("job", f"job-{number % 7}"), Target("key", "DISK")])
    return audit_record(
        record_id=next(store.ids),
        event_name=draws.choice(sorted({*names.ACTIONS} - {"audit.checkpoint", "audit.key.rotate", "audit.restore"})),
        timestamp_ns=store.clock(),
        span=SpanRef(f"{number % 9:032x}", f"{number % 11 + 1:016x}", 1),
        actor=Actor(draws.choice(PEOPLE), "user", draws.choice(["key", "os", "https://issuer.example"])),
        result=draws.choice([Result.SUCCESS, Result.SUCCESS, *Result]),
        target=target,
        tenant_id=draws.choice(["default", "default", "other"]),
        source="api",
        more={
            names.AUDITRACE_INITIATOR_ID: draws.choice([None, None, *PEOPLE]),
            names.AUDITRACE_JOB_ID: draws.choice([None, JOBS[number % 7]]),
            names.AUDITRACE_REQUEST_ID: draws.choice([None, f"request-{number % 20}"]),
            names.AUDITRACE_REASON: draws.choice([None, *TEXTS]),
            names.AUDITRACE_NOTES: draws.choice([None, *TEXTS]),
            names.AUDITRACE_CHANGES: {"text": {"to": draws.choice(TEXTS)}},
        },
    )


def _paged(store: Store, where: RecordFilter, order: ListingOrder, limit: int) -> list[str]:
    found: list[str] = []
    cursor = None
    while True:
        page = store.reads.records(where, cursor, limit, order)
        assert len(page.rows) <= limit
        found += [row.record_id for row in page.rows]
        if page.next_cursor is None:
            return found
        cursor = page.next_cursor


def _exported(store: Store, where: RecordFilter) -> list[str]:
    found, cursor = [], None
    while True:
        page = store.reads.stored(where, cursor, 50)
        found += [each.record.record_id for each in page.rows]
        cursor = page.next_cursor
        if cursor is None:
            return found


def _check(store: Store, rows: Sequence[RecordRow], where: RecordFilter, limit: int) -> None:
    where = msgspec.structs.replace(where, until_ns=max(row.observed_ns for row in rows) + 1)
    expected = [row.record_id for row in rows if matches(row, where)]
    assert _paged(store, where, ListingOrder.DESC, limit) == expected
    assert _paged(store, where, ListingOrder.ASC, limit) == expected[::-1]
    assert _exported(store, where) == expected[::-1]


@pytest.fixture(params=[1000, 1], ids=["near", "far"])
def near(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """How many pages are looked at record by record, before an exclusion is looked for by the values that it leaves."""
    monkeypatch.setattr(listing, "NEAR", request.param)
    return int(request.param)


@pytest.mark.parametrize("tenant_id", ["default", None])
@pytest.mark.parametrize("name", FORMS)
def test_each_filter_and_its_exclusion_find_what_bodies_say(
    shared_store: Store, rows: Sequence[RecordRow], near: int, name: str, tenant_id: str | None
) -> None:
    """One value, several, and all but them, for the values of every filter that occur and one that does not."""
    occurring = sorted({values_of(row)[name] for row in rows} - {None})
    assert occurring
    several = (occurring[0], occurring[-1], "nothing")
    for stated in ((occurring[0],), several, ("nothing",), tuple(occurring)):
        _check(shared_store, rows, RecordFilter(tenant_id=tenant_id, **{name: stated}), 30)
        _check(shared_store, rows, RecordFilter(tenant_id=tenant_id, excluded=FilterValues(**{name: stated})), 30)


@pytest.mark.parametrize("q", SOUGHT)
def test_a_text_is_found_in_reason_notes_and_target(shared_store: Store, rows: Sequence[RecordRow], q: str) -> None:
    """Letters A to Z match in either case, other characters as they are; changes are not searched."""
    _check(shared_store, rows, RecordFilter(tenant_id="default", q=q), 7)


def test_own_trail_is_left_out_but_refused_reads_stay(
    shared_store: Store, rows: Sequence[RecordRow], near: int
) -> None:
    """Allowed reads, checkpoints and streams can be left out; a refused read is no noise."""
    where = RecordFilter(tenant_id="default", include_trail=False)
    _check(shared_store, rows, where, 9)
    left = [row for row in rows if matches(row, where) and row.event_name == "audit.read"]
    assert left
    assert {values_of(row)["result"] for row in left}.isdisjoint({"success"})


_EVENTS: Final = st.sampled_from([*FORMS["event_name"].choices])
_OTHERS: Final[Mapping[str, st.SearchStrategy[str]]] = {
    "actor_id": st.sampled_from(PEOPLE),
    "initiator_id": st.sampled_from(PEOPLE),
    "actor_issuer": st.sampled_from(["key", "os", "service"]),
    "event_name": _EVENTS,
    "result": st.sampled_from([*Result]).map(str),
    "outcome": st.sampled_from(["success", "failure", "unknown"]),
    "target_type": st.sampled_from(["job", "ledger", "key"]),
    "job_id": st.sampled_from(JOBS),
    "trace_id": st.sampled_from([f"{number:032x}" for number in range(4)]),
}


def _values(chance: st.SearchStrategy[bool]) -> st.SearchStrategy[dict[str, tuple[str, ...]]]:
    stated = st.fixed_dictionaries({}, optional={name: st.sets(each, min_size=1) for name, each in _OTHERS.items()})
    return st.tuples(chance, stated).map(
        lambda drawn: {name: tuple(sorted(values)) for name, values in drawn[1].items()} if drawn[0] else {}
    )


FILTERS: Final = st.builds(
    lambda stated, excluded, **more: RecordFilter(**stated, excluded=FilterValues(**excluded), **more),
    _values(st.booleans()),
    _values(st.booleans()),
    tenant_id=st.sampled_from(["default", "default", "other", None]),
    include_trail=st.booleans(),
    q=st.none() | st.sampled_from(SOUGHT),
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(where=FILTERS, limit=st.integers(1, 40))
def test_filters_together_find_what_bodies_say(
    shared_store: Store, rows: Sequence[RecordRow], near: int, where: RecordFilter, limit: int
) -> None:
    """Any filters with any others: a record is found when it matches each of them, and only then."""
    _check(shared_store, rows, where, limit)


@given(where=FILTERS)
def test_the_text_of_a_filter_is_the_filter(store_kind: str, where: RecordFilter) -> None:
    """What is recorded about a read states the whole filter, in a form that can be asked for again."""
    text = filter_text(where)
    again = filter_of(parse_qsl(text), 0)
    assert filter_text(again) == text
    assert again == msgspec.structs.replace(where, q=where.q and small(where.q))


def test_a_cursor_belongs_to_its_order(shared_store: Store, rows: Sequence[RecordRow]) -> None:
    """A cursor of one order is refused by the other, whose pages it would skip or repeat."""
    for order, other in ((ListingOrder.DESC, ListingOrder.ASC), (ListingOrder.ASC, ListingOrder.DESC)):
        cursor = shared_store.reads.records(RecordFilter(), None, 5, order).next_cursor
        with pytest.raises(InvalidRequestError, match="order"):
            shared_store.reads.records(RecordFilter(), cursor, 5, other)


@pytest.mark.parametrize("order", [*ListingOrder])
@pytest.mark.parametrize(
    "where",
    [
        RecordFilter(tenant_id="default"),
        RecordFilter(tenant_id="default", actor_id=("alice", "ben")),
        RecordFilter(tenant_id="default", excluded=FilterValues(result=("error",)), include_trail=False),
    ],
    ids=["all", "several", "left"],
)
def test_pages_have_each_record_once_while_others_write(
    running_store: Store, monkeypatch: pytest.MonkeyPatch, where: RecordFilter, order: ListingOrder
) -> None:
    """In both orders, what was committed before the first page is on exactly one page, and nothing that comes later."""
    monkeypatch.setattr(listing, "NEAR", 1)
    store = running_store
    lanes = [store.lane() for _ in range(2)]
    before = [lanes[number % 2].submit(_writing(store)).result().record_id for number in range(40)]
    stop = threading.Event()

    def write(lane: Any) -> None:
        while not stop.is_set():
            lane.submit(_writing(store)).result()

    writers = [threading.Thread(target=write, args=(lane,)) for lane in lanes]
    for writer in writers:
        writer.start()
    try:
        found = _paged(store, where, order, 3)
    finally:
        stop.set()
        for writer in writers:
            writer.join()
    assert len(found) == len(set(found))
    everything = {row.record_id for row in store.reads.records(RecordFilter(), None, 1000).rows}
    assert set(before) <= set(found) <= everything
    again = _paged(store, where, order, 1000)
    assert [each for each in again if each in set(found)] == found


def _writing(store: Store) -> Callable[[Any], Any]:
    return lambda transaction: transaction.save(store.fact())

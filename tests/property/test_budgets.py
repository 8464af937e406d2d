"""Whatever comes in whatever order: what is counted, what has a record, and that no actor changes it for another."""

import tracemalloc
from collections import Counter
from collections.abc import Sequence
from typing import Final

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from service.jobs.model import TenantId
from service.operations.budgets import OTHERS, Bounds, Budgets, EventKind, Owner, cut, folded
from service.operations.counts import MAX_COUNTED_KINDS, Count, one, together
from service.records import AuditContext
from telemetry import names
from telemetry.audit.record import KEY_ISSUER, Actor, Result, Target
from tests.support.depth import examples

BOUNDS: Final = Bounds(records=4, kinds=3, denied_kinds=5, rows=1000)
OWNERS: Final[Sequence[Owner]] = [
    ("default", KEY_ISSUER, "anna"),
    ("default", "https://id.example", "anna"),
    ("other", KEY_ISSUER, "anna"),
    ("default", KEY_ISSUER, "ben"),
]
CONTEXT: Final = AuditContext(actor=Actor("anna", "user", KEY_ISSUER), tenant_id=TenantId("default"), source="api")
REFUSABLE: Final = (names.EVENT_JOB_CREATE, names.EVENT_JOB_CONFIRM)


def _refused(event_name: str, result: Result, number: int) -> EventKind:
    return EventKind(event_name=event_name, result=result, target=Target("job", str(number)))


def _read(number: int) -> EventKind:
    target = Target("ledger", "auditrace")
    return EventKind(
        event_name=names.EVENT_AUDIT_READ, result=Result.SUCCESS, target=target, filter_text=f"job_id={number}"
    )


NUMBERS: Final = st.integers(1, 9)
KINDS: Final = st.one_of(
    st.builds(_refused, st.sampled_from(REFUSABLE), st.sampled_from([Result.DENIED, Result.REJECTED]), NUMBERS),
    st.builds(_read, NUMBERS),
)
EVENTS: Final = st.lists(st.tuples(st.sampled_from(OWNERS), KINDS), max_size=120)


def _source(number: int) -> EventKind:
    return EventKind(
        event_name=names.EVENT_AUTH_DENIED,
        result=Result.DENIED,
        target=Target("http.endpoint", "/v1/jobs"),
        reason="no key",
        source=str(number),
    )


@given(EVENTS)
@settings(max_examples=examples(300))
def test_an_actor_has_what_it_would_have_alone(events: Sequence[tuple[Owner, EventKind]]) -> None:
    """Events of other actors and of callers without a key, in any order, change nothing of where an event is placed."""
    together_with_others = Budgets(BOUNDS)
    placed: list[tuple[Owner, EventKind | None]] = []
    for number, (owner, kind) in enumerate(events):
        placed.append((owner, together_with_others.place(owner, kind)))
        together_with_others.place_denied(_source(number))
    for owner in OWNERS:
        alone = Budgets(BOUNDS)
        assert [alone.place(owner, kind) for other, kind in events if other == owner] == [
            place for other, place in placed if other == owner
        ]


@given(EVENTS)
@settings(max_examples=examples(300))
def test_a_result_takes_nothing_from_another(events: Sequence[tuple[Owner, EventKind]]) -> None:
    """An actor's reads, denied and rejected requests have budgets of their own: none costs another a record."""
    owner, budgets = OWNERS[0], Budgets(BOUNDS)
    placed = [(kind.result, budgets.place(owner, kind)) for _, kind in events]
    for result in (Result.SUCCESS, Result.DENIED, Result.REJECTED):
        alone = Budgets(BOUNDS)
        assert [alone.place(owner, kind) for _, kind in events if kind.result is result] == [
            place for other, place in placed if other is result
        ]


@given(EVENTS)
@settings(max_examples=examples(300))
def test_the_bounds_hold_and_the_first_ones_are_apart(events: Sequence[tuple[Owner, EventKind]]) -> None:
    """The first events have records, the first kinds after them are apart, and all others keep event and result."""
    budgets, records, apart = (
        Budgets(BOUNDS),
        Counter[tuple[Owner, Result]](),
        dict[tuple[Owner, Result], set[EventKind]](),
    )
    for owner, kind in events:
        place, budget = budgets.place(owner, kind), (owner, kind.result)
        known = apart.setdefault(budget, set())
        if records[budget] < BOUNDS.records:
            assert place is None
            records[budget] += 1
        elif kind in known or len(known) < BOUNDS.kinds:
            assert place == kind
            known.add(kind)
        else:
            assert place == folded(kind)
            assert (place.event_name, place.result, place.is_folded) == (kind.event_name, kind.result, True)
            assert place.target == (kind.target if kind.filter_text is not None else OTHERS)


def _over(number: int) -> EventKind:
    return EventKind(
        event_name=names.EVENT_REQUEST_THROTTLED,
        result=Result.REJECTED,
        target=Target("http.endpoint", f"/v1/{number}"),
        limit="credential_requests",
    )


@given(EVENTS, st.lists(NUMBERS, max_size=30))
@settings(max_examples=examples(200))
def test_what_is_over_a_limit_costs_no_refusal_its_record(
    events: Sequence[tuple[Owner, EventKind]], numbers: Sequence[int]
) -> None:
    """Requests over a limit are counted from the first on, and change nothing for other events of the same actor."""
    owner, budgets, alone = OWNERS[0], Budgets(BOUNDS), Budgets(BOUNDS)
    known: set[EventKind] = set()
    for at, (_, kind) in enumerate(events):
        for over in map(_over, numbers[at : at + 1]):
            place = budgets.place(owner, over)
            if over in known or len(known) < BOUNDS.kinds:
                known.add(over)
                assert place == over
            else:
                assert place == folded(over)
        assert budgets.place(owner, kind) == alone.place(owner, kind)


@given(EVENTS, st.integers(0, 12))
@settings(max_examples=examples(300))
def test_without_room_events_have_records(events: Sequence[tuple[Owner, EventKind]], rows: int) -> None:
    """With little room in all, never more is in memory, and an event has a record where else it would be counted."""
    roomy, narrow = Budgets(BOUNDS), Budgets(msgspec.structs.replace(BOUNDS, rows=rows))
    for owner, kind in events:
        place, expected = narrow.place(owner, kind), roomy.place(owner, kind)
        assert narrow.rows <= rows
        assert place in {None, expected}


@given(st.lists(NUMBERS, max_size=60))
@settings(max_examples=examples(100))
def test_sources_are_apart_until_there_are_too_many(numbers: Sequence[int]) -> None:
    """The first sources are counted apart; further ones keep route and reason."""
    budgets, known = Budgets(BOUNDS), set[EventKind]()
    for kind in map(_source, numbers):
        place = budgets.place_denied(kind)
        if kind in known or len(known) < BOUNDS.denied_kinds:
            known.add(kind)
            assert place == kind
        else:
            assert place == folded(kind)
            assert (place.source, place.target, place.reason) == (None, kind.target, kind.reason)


@given(EVENTS)
@settings(max_examples=examples(100))
def test_what_is_kept_of_a_minute_is_apart_in_the_next(events: Sequence[tuple[Owner, EventKind]]) -> None:
    """Kinds with a count that is not committed yet stay what they are, take room, and cost nobody a record."""
    before = Budgets(BOUNDS)
    kept = {(owner, place) for owner, kind in events if (place := before.place(owner, kind)) is not None}
    budgets = Budgets(BOUNDS, kept)
    assert budgets.rows == len(kept) + len({owner for owner, _ in kept})
    for owner, kind in kept:
        if not kind.is_folded:
            while budgets.place(owner, kind) is None:
                pass
            assert budgets.place(owner, kind) == kind


def _one(number: int, address: str | None, route: str) -> Count:
    return one(_read(number), msgspec.structs.replace(CONTEXT, client_address=address, http_route=route))


COUNTS: Final = st.builds(
    _one,
    st.integers(1, 200),
    st.sampled_from(["192.0.2.1", "192.0.2.2", None]),
    st.sampled_from(["/v1/audit/records", "/v1/audit/streams"]),
)


def _sum(counts: Sequence[Count]) -> Count | None:
    total: Count | None = None
    for each in counts:
        total = together(total, each)
    return total


@given(st.lists(COUNTS, max_size=250), st.integers(0, 250))
@settings(max_examples=examples(100))
def test_counts_add_up_in_any_grouping(counts: Sequence[Count], at: int) -> None:
    """A count that was set aside for a failed commit and joined later says what one count of all events says."""
    joined, straight = together(_sum(counts[at:]), _sum(counts[:at])), _sum(counts)
    if joined is None or straight is None:
        assert (joined, straight, len(counts)) == (None, None, 0)
        return
    different = len({kind for each in counts for kind in each.kinds})
    assert joined.number == straight.number == len(counts)
    assert len(joined.kinds) == len(straight.kinds) == min(different, MAX_COUNTED_KINDS)
    assert joined.context == straight.context
    addresses = {each.context.client_address for each in counts}
    assert joined.context.client_address == (addresses.pop() if len(addresses) == 1 else None)


def test_hostile_actors_fill_no_memory() -> None:
    """When actors with the longest filters use up all room, their kinds and counts take less than 64 MB."""
    budgets, counts = Budgets(Bounds()), dict[tuple[Owner, EventKind], Count | None]()
    tracemalloc.start()
    for number in range(Bounds().rows):
        owner = ("default", "https://id.example", f"user-{number}")
        for kind in (_long_read(number, text) for text in range(Bounds().records + 2 * MAX_COUNTED_KINDS)):
            place = budgets.place(owner, kind)
            if place is not None:
                counts[owner, place] = together(counts.get((owner, place)), one(kind, CONTEXT))
        if budgets.rows == Bounds().rows:
            break
    used, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert budgets.rows == Bounds().rows
    assert len(counts) > Bounds().rows * 0.9
    assert used < 64_000_000


def _long_read(number: int, text: int) -> EventKind:
    return msgspec.structs.replace(_read(0), filter_text=cut(f"target_id={number}-{text}-" + "x" * 5000))

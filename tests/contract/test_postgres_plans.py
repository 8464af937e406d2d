"""How much of the database a query reads does not grow with the ledger: guarded by the plans of the hot queries."""

from collections.abc import Iterator, Mapping
from typing import Any, Final

import msgspec
import pytest

from service.jobs.model import JobId, TenantId
from service.ports import FilterValues, JobFilter, ListingOrder, RecordFilter
from service.store.postgres.connection import connect
from service.store.postgres.outbox import PostgresOutbox
from service.store.postgres.reads import PostgresReads
from service.store.postgres.statements import SQL
from tests.support.postgres import PostgresServer
from tests.support.postgres_plans import Explaining, all_explained, buffers, explained
from tests.support.postgres_volume import fill

SMALL: Final = 2_000
LARGE: Final = 20_000
PAGE: Final = 50
PAGE_BUFFERS: Final = 300
"""The most pages of 8 KiB that a listing of 50 records touches, most of them of its own rows."""

NOT_FOUND_BY_INDEX: Final = {"actor_issuer", "excluded", "include_trail", "q"}
"""The members of a filter that no index leads to, and those that are tested together with others."""

TENANT: Final = TenantId("tenant-0")


class _Ledger:
    """A database of a certain size."""

    def __init__(self, server: PostgresServer, count: int) -> None:
        self.url = server.create_database()
        fill(self.url, count, seed=count)
        self.session = connect(self.url, statement_timeout="0", idle_timeout="0")
        # Large tables are what the planner is asked about, so small ones are planned for as if they were.
        self.session.execute("SET enable_seqscan = off")
        self.reads = PostgresReads(self.url)
        self.outbox = PostgresOutbox(self.url, "explained", lambda: 0)

    def explain(self, target: Any, method: str, *arguments: Any) -> Mapping[str, Any]:
        """Return the plan of the last statement by which `method` reads."""
        return explained(self.session, target, method, *arguments)

    def cost(self, where: RecordFilter, *arguments: Any) -> int:
        """Return how many buffers a page of records touches, with all statements that it takes."""
        return sum(map(buffers, all_explained(self.session, self.reads, "records", where, None, PAGE, *arguments)))

    def example(self) -> RecordFilter:
        """Return a filter that states a value of some record in the middle, of every kind."""
        ((row,),) = self.session.execute(
            "SELECT to_json(r) FROM audit_records r WHERE tenant_id = %s AND outcome = 'failure'"
            " ORDER BY observed_ns OFFSET %s LIMIT 1",
            [TENANT, SMALL // 200],
        ).fetchall()
        ((initiator,),) = self.session.execute(
            "SELECT initiator_of(body) FROM audit_records WHERE tenant_id = %s AND initiator_of(body) IS NOT NULL"
            " LIMIT 1",
            [TENANT],
        ).fetchall()
        stated = {name: (row[name],) for name in FilterValues.__struct_fields__ if name in row}
        times = {"since_ns": row["observed_ns"], "until_ns": row["observed_ns"]}
        return RecordFilter(**stated, **times, tenant_id=row["tenant_id"], initiator_id=(initiator,))

    def close(self) -> None:
        """Close what was opened."""
        self.session.close()
        self.reads.close()
        self.outbox.close()


@pytest.fixture(scope="module")
def ledgers(postgres_server: PostgresServer) -> Iterator[tuple[_Ledger, _Ledger]]:
    """The same kind of ledger, and one of ten times the size."""
    opened = _Ledger(postgres_server, SMALL), _Ledger(postgres_server, LARGE)
    yield opened
    for ledger in opened:
        ledger.close()


def _scanned(plan: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield each table that is scanned as a whole, with the kind of scan."""
    if plan["Node Type"] in {"Seq Scan", "Sort"}:
        yield plan["Node Type"], plan.get("Relation Name", "")
    for child in plan.get("Plans", ()):
        yield from _scanned(child)


@pytest.mark.parametrize("order", [*ListingOrder])
@pytest.mark.parametrize("stated", sorted({*RecordFilter.__struct_fields__} - NOT_FOUND_BY_INDEX))
def test_a_page_of_records_costs_the_same_in_a_larger_ledger(
    ledgers: tuple[_Ledger, _Ledger], stated: str, order: ListingOrder
) -> None:
    """With each filter, within a tenant as the API asks, a page reads no more of a ledger of ten times the size."""
    costs = []
    for ledger in ledgers:
        value = getattr(ledger.example(), stated)
        costs.append(ledger.cost(RecordFilter(**{"tenant_id": TENANT, stated: value}), order))
    small, large = costs
    assert large <= PAGE_BUFFERS
    assert large <= max(1.5 * small, 250)


def _actors(*numbers: int) -> tuple[str, ...]:
    return tuple(f"actor-{number}" for number in numbers)


# With the most buffers of a page: several values are looked up one by one, first their places and then the rows.
TOGETHER: Final[Mapping[str, tuple[RecordFilter, int]]] = {
    "several actors": (RecordFilter(actor_id=_actors(1, 2, 3)), 900),
    "several initiators": (RecordFilter(initiator_id=_actors(1, 2, 3)), 900),
    "several events": (RecordFilter(event_name=("job.create", "job.confirm")), 900),
    "several results": (RecordFilter(result=("rejected", "error", "denied")), 900),
    "rare ones of several": (RecordFilter(job_id=("job-1", "job-9", "job-40")), 900),
    "all but successes": (RecordFilter(excluded=FilterValues(result=("success",))), 2500),
    "all but one event": (RecordFilter(excluded=FilterValues(event_name=("job.create",))), 2500),
    "events that begin so": (RecordFilter(event_name=("job.run.*",)), 2500),
    "not the trail about itself": (RecordFilter(include_trail=False), 2500),
}


@pytest.mark.parametrize("order", [*ListingOrder])
@pytest.mark.parametrize("what", TOGETHER)
def test_several_values_and_exclusions_cost_the_same_in_a_larger_ledger(
    ledgers: tuple[_Ledger, _Ledger], what: str, order: ListingOrder
) -> None:
    """Neither several values nor an exclusion sorts or scans the ledger, in either order."""
    where, most = TOGETHER[what]
    small, large = (ledger.cost(msgspec.structs.replace(where, tenant_id=TENANT), order) for ledger in ledgers)
    assert large <= most
    assert large <= max(2 * small, 400)


def test_the_next_page_costs_what_the_first_one_did(ledgers: tuple[_Ledger, _Ledger]) -> None:
    """A cursor is looked up in the index, however far into the listing it is."""
    _, ledger = ledgers
    where = RecordFilter(tenant_id=TENANT, outcome=("success",))
    first = ledger.reads.records(where, None, 1000)
    again = ledger.explain(ledger.reads, "records", where, first.next_cursor, PAGE)
    assert buffers(again) <= PAGE_BUFFERS


QUERIES: Final[Mapping[str, tuple[str, str, tuple[Any, ...], int]]] = {
    "what is delivered next": ("outbox", "take", (PAGE, 2**20), 800),
    "the outbox in numbers": ("reads", "outbox", (), 60),
    "the streams": ("reads", "streams", (None, PAGE), 60),
    "a page of jobs": ("reads", "jobs", (TENANT, JobFilter(), None, PAGE), 20),
    "a job": ("reads", "job", (JobId("job-1"), TENANT), 10),
    "what is due": ("reads", "next_due_ns", (), 10),
}


@pytest.mark.parametrize("what", QUERIES)
def test_other_queries_cost_the_same_in_a_larger_ledger(ledgers: tuple[_Ledger, _Ledger], what: str) -> None:
    """What runs all the time reads a bounded part of the ledger, whatever its size."""
    target, method, arguments, most = QUERIES[what]
    small, large = (buffers(ledger.explain(getattr(ledger, target), method, *arguments)) for ledger in ledgers)
    assert large <= most
    assert large <= max(1.5 * small, 250)


def test_a_record_is_found_by_its_id_in_whatever_partition_it_is(ledgers: tuple[_Ledger, _Ledger]) -> None:
    """The key table says when it was sealed, and only that partition is read."""
    _, ledger = ledgers
    ((record_id,),) = ledger.session.execute("SELECT record_id FROM audit_record_keys LIMIT 1").fetchall()
    plan = ledger.explain(ledger.reads, "record", record_id, None)
    assert buffers(plan) <= 30
    assert list(_scanned(plan)) == []


def test_what_a_checkpoint_hashes_is_read_from_where_it_begins(ledgers: tuple[_Ledger, _Ledger]) -> None:
    """The records of a stream from a number on are a range of an index, in the partitions that hold them."""
    _, ledger = ledgers
    ((stream_id,),) = ledger.session.execute("SELECT stream_id FROM audit_streams LIMIT 1").fetchall()
    explaining = Explaining(ledger.session)
    last = LARGE // 4
    explaining.execute(SQL["records_of_stream"], {"stream_id": stream_id, "first": last - 9, "last": last})
    assert buffers(explaining.plans[-1]) <= 60


def test_a_replay_reads_on_from_where_it_is(ledgers: tuple[_Ledger, _Ledger]) -> None:
    """A batch in the middle of all records is a range of the index by time: what was sent before is not read again."""
    costs = []
    for ledger, size in zip(ledgers, (SMALL, LARGE), strict=True):
        ((middle_ns, last_ns),) = ledger.session.execute(
            "SELECT percentile_disc(0.5) WITHIN GROUP (ORDER BY observed_ns), max(observed_ns) FROM audit_records"
        ).fetchall()
        explaining = Explaining(ledger.session)
        place = {"observed_ns": middle_ns, "stream_id": "", "last": last_ns}
        rows = explaining.execute(SQL["records_behind"], {**place, "limit": PAGE, "max_bytes": 2**20}).fetchall()
        assert len(rows) == PAGE, size
        costs.append(buffers(explaining.plans[-1]))
    small, large = costs
    assert large <= 800
    assert large <= max(1.5 * small, 250)

"""Tallies over a real ledger: what they count is committed once, whatever minute, failure or caller comes between."""

import asyncio
import uuid
from collections import Counter
from collections.abc import Iterable, Sequence

import pytest

from service.errors import ForbiddenError, NotFoundError, RefusedError
from service.jobs.model import TenantId
from service.operations.base import result_of
from service.operations.budgets import MAX_TEXT, Bounds, EventKind
from service.operations.counts import MAX_COUNTED_KINDS
from service.records import AuditContext
from telemetry import names
from telemetry.audit.record import KEY_ISSUER, Actor, Target
from tests.support.api import ApiUnderTest, Record
from tests.support.both_stores import BOTH
from tests.support.outages import OUTAGES

pytestmark = pytest.mark.stores(*BOTH)

BOUNDS = Bounds()
READ = names.EVENT_AUDIT_READ
RUN = names.EVENT_JOB_RUN_TRIGGER
THROTTLED = names.EVENT_REQUEST_THROTTLED


def _context(name: str = "anna", issuer: str = KEY_ISSUER, tenant: str = "default") -> AuditContext:
    return AuditContext(actor=Actor(name, "user", issuer), tenant_id=TenantId(tenant), source="api")


def _job(number: int) -> Target:
    return Target("job", str(uuid.UUID(int=number)))


def _number(records: Iterable[Record]) -> int:
    """Return of how many events these are the records."""
    return sum(record.changes.get("count", {"to": 1})["to"] for record in records)


def _refuse(api: ApiUnderTest, context: AuditContext, targets: Iterable[Target], refusal: type[RefusedError]) -> int:
    """Refuse a run of each target, one after the other, and return how many were throttled."""

    async def refuse() -> int:
        throttled, span = 0, api.services.tracing.root("test")
        for target in targets:
            error = refusal("no")
            tried = EventKind(event_name=RUN, result=result_of(error), target=target)
            throttled += await api.tallies.refuse(context, span, tried, error) is not error
        return throttled

    return api.wait(refuse())


async def _read(api: ApiUnderTest, context: AuditContext, *texts: str) -> None:
    span = api.services.tracing.root("test")
    await asyncio.gather(*(api.tallies.audit_read(context, span, text) for text in texts))


def _use_up_reads(api: ApiUnderTest, context: AuditContext) -> None:
    api.wait(_read(api, context, *["view=streams"] * BOUNDS.records))


def _end_minute(api: ApiUnderTest) -> None:
    api.clock.advance(60)
    api.wait(api.tallies.flush_ended())


def _filters(api: ApiUnderTest) -> Sequence[tuple[str, int]]:
    """Return filter and count of each read beyond the budgets, in order."""
    shown = [record.changes for record in api.records(event_name=READ)]
    return [(each["filter"]["to"], each["count"]["to"]) for each in shown if each["filter"]["to"] != "view=streams"]


def test_thousands_of_targets_leave_few_records(api: ApiUnderTest) -> None:
    """5,000 refusals at 5,000 targets leave 126 records: 60 of their own, 65 firsts, and a count of all others."""
    assert _refuse(api, _context(), map(_job, range(5000)), NotFoundError) == 5000 - BOUNDS.records
    _end_minute(api)
    tried, throttled = api.records(event_name=RUN), api.records(event_name=THROTTLED)
    assert [len(tried), len(throttled)] == [BOUNDS.records, BOUNDS.kinds + 2]
    assert len({record.target for record in [*tried, *throttled]}) == BOUNDS.records + BOUNDS.kinds + 2
    assert _number([*tried, *throttled]) == 5000
    assert {record.changes["event_name"]["to"] for record in throttled} == {RUN}
    assert {record.result for record in throttled} == {"rejected"}
    assert throttled[-1].target == ("http.endpoint", "other")
    assert throttled[-1].changes["kinds"] == {"to": MAX_COUNTED_KINDS}


def test_actors_of_two_issuers_or_tenants_share_no_budget(api: ApiUnderTest) -> None:
    """The same id of another issuer, or in another tenant, is another actor, with 60 records of its own."""
    contexts = [_context(), _context(issuer="https://id.example"), _context(tenant="other")]
    for context in contexts:
        assert _refuse(api, context, [_job(1)] * (BOUNDS.records + 3), ForbiddenError) == 2
    _end_minute(api)
    records = [*api.records(event_name=RUN), *api.records(event_name=THROTTLED)]
    actors = Counter((record[names.AUDITRACE_ACTOR_ISSUER], record[names.AUDITRACE_TENANT_ID]) for record in records)
    assert actors == {(each.actor.issuer, each.tenant_id): BOUNDS.records + 2 for each in contexts}
    assert {_number([record]) for record in api.records(event_name=THROTTLED)} == {2}


def test_readers_that_wait_at_the_end_of_a_minute_are_counted(api: ApiUnderTest) -> None:
    """Readers that wait for the first one's record when their minute ends are counted in the next one, not lost."""
    _use_up_reads(api, _context())

    async def read() -> None:
        with api.held() as release:
            reading = asyncio.create_task(_read(api, _context(), *["actor_id=anna"] * 8))
            # The first one's record waits for the lane only after the others wait for the first one.
            while not api.waiting:
                await asyncio.sleep(0)
            api.clock.advance(60)
            await api.tallies.flush_ended()
            release()
            await reading

    api.wait(read())
    assert _filters(api) == [("actor_id=anna", 1)]
    _end_minute(api)
    _end_minute(api)
    assert _filters(api) == [("actor_id=anna", 1), ("actor_id=anna", 7)]


def test_a_minute_begins_with_a_whole_budget(api: ApiUnderTest) -> None:
    """After the end of a minute each read has its own record again, also before the old counts are committed."""
    _use_up_reads(api, _context())
    api.wait(_read(api, _context(), *["actor_id=anna"] * 5))
    api.clock.advance(60)
    api.wait(_read(api, _context(), "actor_id=anna", "actor_id=anna"))
    api.wait(api.tallies.flush_ended())
    assert _filters(api) == [("actor_id=anna", 1)] * 3 + [("actor_id=anna", 4)]


@pytest.mark.parametrize(("store_kind", "outage"), OUTAGES)
def test_a_count_survives_failed_commits(api: ApiUnderTest, store_kind: str, outage: str) -> None:
    """A count that cannot be committed at the end of its minute is kept, together with those of later minutes."""
    enter, _ = OUTAGES[store_kind, outage]
    _use_up_reads(api, _context())
    api.wait(_read(api, _context(), *["actor_id=anna"] * 5))
    with enter(api.store, api.lane), api.leaves():
        _end_minute(api)
        api.wait(api.tallies.flush())
    _use_up_reads(api, _context())
    api.wait(_read(api, _context(), *["actor_id=anna"] * 3))
    api.wait(api.tallies.flush_ended())
    _end_minute(api)
    assert sum(count for _, count in _filters(api)) == 8
    assert [count for _, count in _filters(api)] == [1, 1, 6]


def test_a_long_filter_is_whole_at_first_and_then_cut(api: ApiUnderTest) -> None:
    """Two long filters that differ in their last letter are two kinds; each first record has its filter in full."""
    _use_up_reads(api, _context())
    long = "actor_id=" + "a" * 5000
    api.wait(_read(api, _context(), *[long + "x", long + "y"] * 3))
    assert _filters(api) == [(long + "x", 1), (long + "y", 1)]
    _end_minute(api)
    counted = _filters(api)[2:]
    assert [(len(text), count) for text, count in counted] == [(MAX_TEXT, 2)] * 2
    assert len({text for text, _ in counted}) == 2

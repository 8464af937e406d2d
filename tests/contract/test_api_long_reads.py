"""Long reads of the trail leave threads to other requests."""

import asyncio

import pytest

from service.api.parts import AUDIT_READS_AT_ONCE
from service.roles import AUDITOR
from tests.support.api import ApiUnderTest
from tests.support.both_stores import BOTH

pytestmark = pytest.mark.stores(*BOTH)


def test_reads_beyond_the_bound_wait_and_others_are_answered(api: ApiUnderTest) -> None:
    """As many reads as may use threads are in progress: one more waits, and a change and `/v1/me` are carried out."""
    auditor, anna = api.client("alma", AUDITOR), api.client("anna")
    slots = api.parts.audit_reads
    for _ in range(AUDIT_READS_AT_ONCE):
        api.wait(slots.acquire())
    asked = asyncio.run_coroutine_threadsafe(auditor.ask("GET", "/v1/audit/records"), api.loop)
    assert anna.get("/v1/me").status_code == 200
    assert anna.new_job()["status"] == "created"
    assert not asked.done()
    for _ in range(AUDIT_READS_AT_ONCE):
        api.loop.call_soon_threadsafe(slots.release)
    assert asked.result(60).status_code == 200

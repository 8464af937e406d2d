"""Follows of the audit trail: who may follow, from where, and the one record that each follow leaves."""

import asyncio
from typing import Final
from urllib.parse import urlencode

import msgspec

from service.errors import ForbiddenError
from service.operations.base import Operation, Services, naming
from service.operations.filters import filter_text
from service.operations.steps import Decision, Step
from service.operations.tallies import LEDGER
from service.ports import Reads, RecordFilter, TrailPosition
from service.records import AuditContext, Fact, change
from service.roles import AUDITOR, require
from telemetry import names
from telemetry.audit.record import Result
from telemetry.tracing import AuditedSpan

_FOLLOW: Final = "follow"


class FollowStart(msgspec.Struct, frozen=True):
    """What a follow sends: the records of the tenant that match the filter, behind a position."""

    where: RecordFilter
    behind: TrailPosition


class AuditFollow(Operation):
    """The follow of one request. Every reader, also `admin`, gets the records of its own tenant only."""

    def __init__(self, services: Services, context: AuditContext, span: AuditedSpan, reads: Reads) -> None:
        super().__init__(services, context, span)
        self._reads = reads

    async def begin(self, where: RecordFilter, cursor: str | None) -> FollowStart:
        """Record the follow, and return what it sends.

        It begins behind the record that the cursor names. Without a cursor it begins with the first record since
        `where.since_ns`. Without that too, it sends what is committed from now on.

        Raises:
            RefusedError: the actor may not follow these records, or the cursor is none of this ledger. No record of
                the refusal is made here.
            TryLaterError: the follow cannot be recorded, or the trail cannot be read.
        """
        require(self.context.roles, AUDITOR)
        if where.tenant_id not in {None, self.context.tenant_id}:
            raise ForbiddenError("this credential follows the records of its own tenant only")
        behind = None if cursor is None else await asyncio.to_thread(self._reads.position_of, cursor)
        fact = Fact(
            event_name=names.EVENT_AUDIT_READ,
            target=LEDGER,
            result=Result.SUCCESS,
            changes={"filter": change(None, _text(where, behind)), "count": change(None, 1)},
        )
        begun = await self.attempt(
            names.EVENT_AUDIT_READ, LEDGER, lambda _transaction, _now_ns: Decision([Step(fact=fact)], None)
        )
        own = msgspec.structs.replace(where, tenant_id=self.context.tenant_id)
        if behind is None and where.since_ns is not None:
            behind = self._reads.first_position()
        if behind is None:
            with naming(begun.receipt):
                behind = await asyncio.to_thread(self._reads.newest_position)
        return FollowStart(own, behind)


def _text(where: RecordFilter, behind: TrailPosition | None) -> str:
    # The cursor as the service writes it: a client can write the same one in many ways, of any length.
    stated = {_FOLLOW: ""} if behind is None else {"cursor": behind.cursor, _FOLLOW: ""}
    return "&".join(part for part in (filter_text(where), urlencode(stated)) if part)

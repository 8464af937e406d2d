"""API keys as versions made them that stored no MAC: their records do not state the secret."""

from service.ports import ApiKey, PutKey, Transition
from service.records import AuditContext, Fact, change, record_of
from telemetry import names
from telemetry.audit.chain import rfc3339_nanos
from telemetry.audit.record import Actor, Result, Target
from tests.support.api import ApiUnderTest
from tests.support.catalogue import SPAN


def make_as_before(api: ApiUnderTest, key: ApiKey, *, with_id: bool = True) -> None:
    """Commit a key and its record as an older version does; the first versions stated no id."""
    changes = {"roles": change(None, key.roles), "tenant": change(None, key.tenant_id)}
    if with_id:
        changes["id"] = change(None, key.key_id)
    if key.expires_ns is not None:
        changes["expires_at"] = change(None, rfc3339_nanos(key.expires_ns))
    if key.person is not None:
        changes["person"] = change(None, key.person)
    fact = Fact(
        event_name=names.EVENT_KEY_CREATE, target=Target("key", key.name), result=Result.SUCCESS, changes=changes
    )
    context = AuditContext(actor=Actor("root", "user", "os"), tenant_id=key.tenant_id, source="cli")
    record = record_of(fact, context, SPAN, next(api.store.ids), api.clock())
    made = Transition(record=record, writes=(PutKey(key),))
    api.lane.submit(lambda transaction: transaction.save(made)).result()

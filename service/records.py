"""Builds the audit record of a fact and its context; pure."""

from collections.abc import Mapping

import msgspec

from service.jobs.model import Job, TenantId
from telemetry import names
from telemetry.audit.canonical import Value
from telemetry.audit.record import Actor, AuditRecord, Result, Source, SpanRef, Target, audit_record


class Initiator(msgspec.Struct, frozen=True):
    """Who requested the work of a worker, and the record of that request."""

    actor: Actor
    record_id: str


class Invocation(msgspec.Struct, frozen=True, kw_only=True):
    """Who runs a command, on which host, and how the command reads; without secrets."""

    actor: Actor
    host: str
    owner: str
    """The user whose rights the process has."""
    command: tuple[str, ...]
    login_id: str | None
    """The user of the login session, None if it is the same user or unknown."""
    sudo_id: str | None
    """The user that `sudo` names, None without `sudo`."""


class AuditContext(msgspec.Struct, frozen=True, kw_only=True):
    """Who acts, in which tenant and from where; made once for a request, a run or a command."""

    actor: Actor
    tenant_id: TenantId
    source: Source
    credential_id: str | None = None
    """The id of the API key or of the token; None where there is none."""
    person: str | None = None
    """Whose key or token it is; None if not known."""
    roles: frozenset[str] = frozenset()
    request_id: str | None = None
    client_address: str | None = None
    peer_address: str | None = None
    """The proxy from which the connection comes, if it spoke for the client."""
    user_agent: str | None = None
    http_method: str | None = None
    http_route: str | None = None
    url_path: str | None = None
    idempotency_key_sha256: str | None = None
    body_sha256: str | None = None
    leaves_refusals: bool = False
    """True when an operation leaves it to the tallies to record or count its refusal: this actor has many requests."""
    initiator: Initiator | None = None
    invocation: Invocation | None = None
    """The command that acts; None in requests and runs."""


class Fact(msgspec.Struct, frozen=True, kw_only=True):
    """What happened, without who and where."""

    event_name: str
    target: Target
    result: Result
    changes: Mapping[str, Value] | None = None
    reason: str | None = None
    notes: str | None = None
    plan: str | None = None
    """The canonical text of the plan that was made."""
    error_type: str | None = None
    job: Job | None = None
    run: int | None = None
    isolation: str | None = None
    """What keeps the run that begins from the service."""


def change(before: Value | None, after: Value | None) -> Mapping[str, Value]:
    """Return one member of `auditrace.changes`; `from` is absent on creation, `to` on removal."""
    sides = {"from": before, "to": after}
    return {side: value for side, value in sides.items() if value is not None}


def record_of(fact: Fact, context: AuditContext, span: SpanRef, record_id: str, timestamp_ns: int) -> AuditRecord:
    """Return the audit record of `fact` as it happened in `context`."""
    initiator = context.initiator
    more: dict[str, Value | None] = {
        names.AUDITRACE_CREDENTIAL_ID: context.credential_id,
        names.AUDITRACE_ACTOR_PERSON: context.person,
        names.AUDIT_SOURCE_TYPE: _source_type(context.client_address),
        names.AUDIT_SOURCE_ID: context.client_address,
        names.CLIENT_ADDRESS: context.client_address,
        names.NETWORK_PEER_ADDRESS: context.peer_address,
        names.AUDITRACE_REQUEST_ID: context.request_id,
        names.AUDITRACE_INITIATOR_ID: initiator.actor.id if initiator else None,
        names.AUDITRACE_INITIATOR_TYPE: initiator.actor.type if initiator else None,
        names.AUDITRACE_INITIATOR_ISSUER: initiator.actor.issuer if initiator else None,
        names.AUDITRACE_INITIATOR_RECORD_ID: initiator.record_id if initiator else None,
        names.AUDITRACE_CHANGES: fact.changes or None,
        names.AUDITRACE_REASON: fact.reason,
        names.AUDITRACE_NOTES: fact.notes,
        names.AUDITRACE_JOB_PLAN: fact.plan,
        names.ERROR_TYPE: fact.error_type,
        names.AUDITRACE_IDEMPOTENCY_KEY_HASH: context.idempotency_key_sha256,
        names.USER_AGENT_ORIGINAL: context.user_agent,
        names.HTTP_REQUEST_METHOD: context.http_method,
        names.HTTP_ROUTE: context.http_route,
        names.URL_PATH: context.url_path,
    }
    if fact.target.type == "job":
        # A refused attempt has only the id of its job. The id makes it part of the job's history.
        more[names.AUDITRACE_JOB_ID] = fact.target.id
    elif fact.target.type == "artifact":
        more[names.AUDITRACE_JOB_ID] = fact.target.id.partition("/")[0]
    if fact.job is not None:
        more[names.AUDITRACE_JOB_ID] = fact.job.job_id
        more[names.AUDITRACE_JOB_TEMPLATE] = fact.job.template
        more[names.AUDITRACE_JOB_PLAN_SHA256] = fact.job.plan.sha256 if fact.job.plan else None
        more[names.AUDITRACE_JOB_RUN] = fact.run
        more[names.AUDITRACE_RUN_ISOLATION] = fact.isolation
    if context.invocation is not None:
        more.update(_of_invocation(context.invocation))
    return audit_record(
        record_id=record_id,
        event_name=fact.event_name,
        timestamp_ns=timestamp_ns,
        span=span,
        actor=context.actor,
        result=fact.result,
        target=fact.target,
        tenant_id=context.tenant_id,
        source=context.source,
        more=more,
    )


def _of_invocation(invocation: Invocation) -> Mapping[str, Value | None]:
    return {
        names.HOST_NAME: invocation.host,
        names.PROCESS_OWNER: invocation.owner,
        names.PROCESS_COMMAND_ARGS: invocation.command,
        names.AUDITRACE_ACTOR_LOGIN_ID: invocation.login_id,
        names.AUDITRACE_ACTOR_SUDO_ID: invocation.sudo_id,
    }


def _source_type(address: str | None) -> str | None:
    if address is None:
        return None
    if ":" in address:
        return "ipv6"
    return "ipv4" if address.replace(".", "").isdigit() else "hostname"

"""Is the job that a run is about to execute the one that the records of the ledger state?

Whoever can write the database can change the row of a job: its plan with the hash of it, its status, its confirmation.
They cannot make the records that belong to such a job: a record counts only if its stream has it below a tip with the
MAC of the deployment's secret, and if the record behind it, or the tip, names its hash. Whoever can also replace
records can replace both; the next verification finds that.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from service.errors import ConflictError
from service.jobs.model import Job, Status
from service.jobs.plan import plan_sha256
from service.ports import StatedVersion
from service.secrets import DeploymentSecret
from telemetry import names
from telemetry.audit.body_view import BodyView, view_body
from telemetry.audit.canonical import sha256_hex

JOB_DIFFERS: Final = "job_differs"
"""The error type of a run that is refused because its job is not as recorded."""

_IDENTITY: Final = (
    names.AUDIT_TARGET_TYPE,
    names.AUDIT_TARGET_ID,
    names.AUDITRACE_TARGET_VERSION,
    names.AUDITRACE_TENANT_ID,
    names.AUDITRACE_JOB_TEMPLATE,
)


class _DiffersError(Exception):
    """The text says what differs."""


def difference(job: Job, stated: Sequence[StatedVersion], secret: DeploymentSecret) -> str | None:
    """Return in which way a claimed job is not what its records state; None if it is that.

    The template is not looked at: a job runs its plan, also after the template has changed.

    Args:
        job: the version that the claim made.
        stated: what `Reads.stated_versions` returns up to the version before.
        secret: of the deployment.

    Raises:
        ConflictError: a record is not in the database any more, as when its month was removed.
    """
    try:
        _require_same(job, stated, secret)
    except _DiffersError as error:
        return f"the job is not what its records state, and is not run: {error}"
    return None


def _require_same(job: Job, stated: Sequence[StatedVersion], secret: DeploymentSecret) -> None:
    if job.plan is None or plan_sha256(job.plan) != job.plan.sha256:
        raise _DiffersError("its plan is not the one with its hash")
    said: dict[str, list[BodyView]] = defaultdict(list)
    for version in stated:
        record = _genuine_record(version, secret)
        _require_version(job, version, record)
        said[version.status].append(record)
    last = stated[-1] if stated else None
    if last is None or (last.version, last.status) != (job.version - 1, Status.QUEUED):
        raise _DiffersError(f"no record states that it was queued at version {job.version - 1}")
    _require_initiator(job, said[Status.QUEUED][-1])
    if not any(_approves(record, names.EVENT_JOB_DRAFT, job.plan.sha256) for record in said[Status.DRAFT_READY]):
        raise _DiffersError("no record states the draft of its plan")
    triggered = said[Status.QUEUED][0]
    if triggered.event_name != names.EVENT_JOB_RUN_TRIGGER:
        raise _DiffersError("no record states that somebody asked for its first run")
    is_confirmed = job.confirmed_by is not None or _changes(triggered)["status"]["from"] == Status.CONFIRMED
    if is_confirmed and not any(_confirms(record, job, job.plan.sha256) for record in said[Status.CONFIRMED]):
        raise _DiffersError(f"no record states that {job.confirmed_by or 'anybody'} confirmed its plan")


def _genuine_record(version: StatedVersion, secret: DeploymentSecret) -> BodyView:
    """Return the record of a version, once it is known to be in the chain of its stream."""
    if version.body is None or version.stream_id is None or version.number is None or version.tip_hash is None:
        raise ConflictError("a record of the job is not in the database any more: create the job again")
    place = (version.stream_id, version.number)
    where = f"record {version.number} of stream {version.stream_id}"
    record = _decoded(version.body, where)
    if sha256_hex(version.body.encode()) != version.record_hash or _place(record) != place:
        raise _DiffersError(f"{where} is not the one that was sealed")
    tip_number = version.tip_number or 0
    if version.tip_mac != secret.tip_mac(version.stream_id, tip_number, version.tip_hash):
        raise _DiffersError(f"the tip of {where} was not stored by a lane of this deployment")
    if version.number == tip_number:
        is_named = version.record_hash == version.tip_hash
    else:
        following = _decoded(version.next_body or "", f"the record behind {where}")
        is_named = (_place(following), following.attributes.get(names.AUDIT_SEQUENCE_PREV_HASH)) == (
            (version.stream_id, version.number + 1),
            version.record_hash,
        )
    if version.number > tip_number or not is_named:
        raise _DiffersError(f"{where} is not in the chain of its stream")
    return record


def _require_version(job: Job, version: StatedVersion, record: BodyView) -> None:
    """Raise unless the record states this version of the job, its status, and the plan that the job has now."""
    attributes, plan = record.attributes, job.plan.sha256 if job.plan else None
    stated = [attributes.get(name) for name in (*_IDENTITY, names.AUDITRACE_JOB_PLAN_SHA256)]
    if stated != ["job", job.job_id, version.version, job.tenant_id, job.template, plan]:
        raise _DiffersError(f"the record of version {version.version} states another job, version, template or plan")
    if _changes(record).get("status", {}).get("to") != version.status:
        raise _DiffersError(f"the record of version {version.version} does not state that it is {version.status}")


def _require_initiator(job: Job, record: BodyView) -> None:
    """Raise unless the request of the run is that of the person whom the record of its place in the queue names."""
    attributes = record.attributes
    asked_by = attributes.get(names.AUDITRACE_INITIATOR_ID, attributes.get(names.AUDIT_ACTOR_ID))
    if job.request is None or job.request.initiator.id != asked_by:
        raise _DiffersError(f"its run was requested by {asked_by}, as the record states")


def _approves(record: BodyView, event_name: str, plan_hash: str) -> bool:
    return record.event_name == event_name and _changes(record).get("plan_sha256", {}).get("to") == plan_hash


def _confirms(record: BodyView, job: Job, plan_hash: str) -> bool:
    attributes, by = record.attributes, job.confirmation.by if job.confirmation else None
    is_same = by is None or (by.id, by.issuer) == (job.confirmed_by, attributes.get(names.AUDITRACE_ACTOR_ISSUER))
    is_actor = attributes.get(names.AUDIT_ACTOR_ID) == job.confirmed_by
    return is_same and is_actor and _approves(record, names.EVENT_JOB_CONFIRM, plan_hash)


def _place(record: BodyView) -> tuple[object, object]:
    attributes = record.attributes
    return attributes.get(names.AUDIT_SEQUENCE_STREAM_ID), attributes.get(names.AUDIT_SEQUENCE_NUMBER)


def _changes(record: BodyView) -> Mapping[str, Mapping[str, object]]:
    changes: Mapping[str, Mapping[str, object]] = record.attributes.get(names.AUDITRACE_CHANGES, {})
    return changes


def _decoded(body: str, where: str) -> BodyView:
    try:
        return view_body(body)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise _DiffersError(f"{where} is no record") from error

"""Is the job that a run is about to execute the one that the records of the ledger state?

Whoever can write the database can change the row of a job: its plan with the hash of it, its status, its confirmation.
They cannot make the records that belong to such a job: a record counts only if its stream has it below a tip with the
MAC of the deployment's secret, and if the next record, or the tip, names its hash. docs/threat-model.md says what is
left to those who can also replace records.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from service.jobs.model import Job, Status
from service.jobs.plan import plan_sha256
from service.ports import StatedVersion
from service.secrets import DeploymentSecret
from telemetry import names
from telemetry.audit.body_view import view_body
from telemetry.audit.canonical import sha256_hex

JOB_DIFFERS: Final = "job_differs"
"""The error type of a run that was refused for this."""

_QUEUED_BY: Final = frozenset({names.EVENT_JOB_RUN_TRIGGER, names.EVENT_JOB_RETRY})


class _DiffersError(Exception):
    """The text says what differs."""


class RecordsGoneError(Exception):
    """The records of the job are not in the database any more."""


def difference(job: Job, stated: Sequence[StatedVersion], secret: DeploymentSecret) -> str | None:
    """Return in which way a claimed job is not what its records state; None if it is.

    Args:
        job: the version that the claim made.
        stated: what `Reads.stated_versions` returns for the version before.
        secret: of the deployment.

    Raises:
        RecordsGoneError: a record is missing, so that nothing can be said.
    """
    try:
        _require_same(job, stated, secret)
    except _DiffersError as error:
        return f"the job is not what its records state: {error}"
    return None


def _require_same(job: Job, stated: Sequence[StatedVersion], secret: DeploymentSecret) -> None:
    if job.plan is None or plan_sha256(job.plan) != job.plan.sha256:
        raise _DiffersError("its plan is not the one with its hash")
    said = {one.version: _attributes(one, secret) for one in stated}
    for one in stated:
        _require_version(job, one, said[one.version])
    by_status = {status: [said[one.version] for one in stated if one.status == status] for status in Status}
    queued = by_status[Status.QUEUED]
    if not queued or stated[-1].status != Status.QUEUED or stated[-1].version != job.version - 1:
        raise _DiffersError(f"no record states that version {job.version - 1} was queued")
    drafts = by_status[Status.DRAFT_READY]
    if [draft.get(names.AUDIT_EVENT_NAME) for draft in drafts] != [names.EVENT_JOB_DRAFT]:
        raise _DiffersError("no record states its draft")

"""Makes a confirmed plan executable: arguments with the real secrets, environment, inputs."""

import hashlib
from collections.abc import Mapping
from pathlib import Path

import msgspec
from cryptography.exceptions import InvalidTag

from service.errors import ConflictError
from service.execution.isolation import Confinement
from service.execution.spec import RunSpec, supervisor_environment
from service.jobs.model import Job, Plan
from service.jobs.plan import executable_argv, plan_sha256, run_environment
from service.operations.runs import Claimed
from service.ports import Reads
from service.secrets import DeploymentSecret


class RunSurroundings(msgspec.Struct, frozen=True, kw_only=True):
    """What all runs of a worker have in common.

    `environment` is the worker's; a plan names the variables that a run gets. Each run's supervisor inherits
    `owner_descriptor`: while a supervisor is alive, the worker does not count as dead. `confinement` is what keeps runs
    from the service.
    """

    environment: Mapping[str, str]
    work_folder: Path | None
    max_artifact_bytes: int
    owner_descriptor: int | None
    confinement: Confinement = Confinement()


class Prepared(msgspec.Struct, frozen=True):
    """What to start, and its sensitive values by their masked texts."""

    spec: RunSpec
    secrets: Mapping[str, str]

    def hide(self, text: str) -> str:
        """Return `text` with every sensitive value replaced by its masked text."""
        for masked, value in self.secrets.items():
            if value:
                text = text.replace(value, masked)
        return text


def prepare(claimed: Claimed, reads: Reads, secret: DeploymentSecret, around: RunSurroundings) -> Prepared:
    """Return the run of the plan that was confirmed, without its lease.

    Raises:
        ConflictError: the stored plan, input or secret does not match the plan's hashes.
        TryLaterError: the ledger cannot be read.
    """
    job, plan = claimed.job, _plan(claimed.job)
    secrets = _secrets(job, reads, secret)
    spec = RunSpec(
        job_id=job.job_id,
        run=claimed.run.number,
        template=job.template,
        argv=executable_argv(plan, secrets),
        environment=run_environment(plan, around.environment),
        timeout_ms=plan.timeout_ms,
        limits=plan.limits,
        inputs={name: _input(job, name, sha256, reads) for name, sha256 in plan.inputs.items()},
        traceparent=claimed.span.traceparent,
        tracestate=claimed.span.tracestate,
        workdir_root=around.work_folder,
        max_artifact_bytes=around.max_artifact_bytes,
        owner_descriptor=around.owner_descriptor,
        confinement=around.confinement,
        network=plan.network,
        reads=plan.reads,
        writes=plan.writes,
        supervisor_environment=supervisor_environment(around.environment) if around.confinement.is_guarded else None,
    )
    return Prepared(spec, secrets)


def _plan(job: Job) -> Plan:
    if job.plan is None or plan_sha256(job.plan) != job.plan.sha256:
        raise ConflictError("the stored plan is not the one with its hash: create the job again")
    return job.plan


def _secrets(job: Job, reads: Reads, secret: DeploymentSecret) -> dict[str, str]:
    try:
        values = [secret.decrypt(ciphertext, job.job_id) for ciphertext in reads.secrets(job.job_id).values()]
    except InvalidTag as error:
        raise ConflictError("a sensitive parameter cannot be decrypted with this node's ledger secret") from error
    return {secret.mask(value): value for value in values}


def _input(job: Job, name: str, sha256: str, reads: Reads) -> bytes:
    payload = reads.input_payload(job.job_id, name)
    if payload is None or hashlib.sha256(payload).hexdigest() != sha256:
        raise ConflictError(f"the input {name} is not the one that the plan names: create the job again")
    return payload

"""What the OpenAPI document shows of each body, answer and problem: values of their types.

Template and plan are those of the shipped `line-count`, so that what is shown can be sent as it is.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from service.api.audit import RecordAnswer, RecordsAnswer
from service.api.health import Health
from service.api.ledger import CheckpointAnswer, CheckpointsAnswer, ProofAnswer, StreamAnswer, StreamsAnswer
from service.api.me import MeAnswer
from service.api.messages import (
    ArtifactAnswer,
    ArtifactsAnswer,
    ConfirmJob,
    CreateJob,
    InputAnswer,
    JobAnswer,
    JobsAnswer,
    NoMembers,
    RunAnswer,
    RunsAnswer,
)
from service.api.problems import problem_of
from service.api.templates import TemplateAnswer, TemplatesAnswer
from service.errors import (
    AuditraceError,
    ForbiddenError,
    InvalidRequestError,
    LedgerUnavailableError,
    NotFoundError,
    OperationFailedError,
    PayloadTooLargeError,
    PreconditionFailedError,
    ThrottledError,
    TransitionRefusedError,
    TryLaterError,
    UnauthenticatedError,
    UnsupportedMediaTypeError,
)
from service.jobs.model import Limits, Plan, RunStatus, Status
from service.jobs.schemas import DIALECT, NEVER
from service.ports import Receipt
from telemetry.audit.checkpoint import CheckpointTip

_JOB_ID: Final = "019b76da-a8b3-7a41-9c52-5d9c40d3a1f0"
_RECORD_ID: Final = "019b76da-a8b4-7f10-8a3e-77f0b6c1d2e3"
_STREAM_ID: Final = "5f0c1c52-52d0-4b8e-9a55-0f7c4f6f2a11"
_TRACE_ID: Final = "0af7651916cd43dd8448eb211c80319c"
_SPAN_ID: Final = "b7ad6b7169203331"
_PLAN_SHA256: Final = "9d6254a53caff17c034dda3c296fefaeb07608bfa3cc03540bc54570686136dd"
_FILE_SHA256: Final = "b94d27b9934d3e08a52e52d7da7dabfac484efe37a5380ee9088f7ace2efcde9"
_TIME: Final = "2026-01-02T03:04:05.678901234Z"
_JOB: Final = f"/v1/jobs/{_JOB_ID}"
_RUN_LINKS: Final = {"job": _JOB, "artifacts": f"{_JOB}/runs/1/artifacts"}

_RECEIPT: Final = Receipt(
    _RECORD_ID, _STREAM_ID, 42, "6b86b273ff34fce19d6b804eff5a3f5747ada4eaa22f1d49c01e52ddb7875b4b"
)
_PLAN: Final = Plan(
    argv=("wc", "-l", "--", "/etc/hosts"),
    environment={"LC_ALL": "C"},
    pass_environment=(),
    timeout_ms=30_000,
    max_attempts=3,
    retry_exit_codes=(),
    limits=Limits(memory_bytes=67_108_864, cpu_seconds=30, output_bytes=65_536),
    inputs={},
    sha256=_PLAN_SHA256,
)
_RUN: Final = RunAnswer(
    number=1,
    status=RunStatus.FAILED,
    worker_id="worker-4d6f",
    started_at=_TIME,
    ended_at="2026-01-02T03:04:05.712345678Z",
    exit_code=1,
    duration_ms=33,
    error_type="exit",
    stderr_end="wc: /etc/hosts: Permission denied\n",
    trace_id=_TRACE_ID,
    span_id=_SPAN_ID,
    links=_RUN_LINKS,
)
_JOB_ANSWER: Final = JobAnswer(
    id=_JOB_ID,
    template="line-count",
    parameters={"path": "/etc/hosts"},
    status=Status.FAILED,
    version=6,
    tenant_id="default",
    created_by="anna",
    created_at=_TIME,
    updated_at=_TIME,
    trace_id=_TRACE_ID,
    plan=_PLAN,
    runs=[_RUN],
    links={"self": _JOB, "runs": f"{_JOB}/runs", "audit": f"{_JOB}/audit"},
    audit=_RECEIPT,
)
# A listing leaves out what only the job itself shows.
_LISTED: Final = msgspec.structs.replace(
    _JOB_ANSWER, runs=[msgspec.structs.replace(_RUN, stderr_end=msgspec.UNSET)], audit=msgspec.UNSET
)
_INPUT: Final = InputAnswer(
    name="data.csv",
    size=11,
    sha256=_FILE_SHA256,
    job_id=_JOB_ID,
    version=2,
    links={"job": _JOB},
    audit=_RECEIPT,
)
_ARTIFACT: Final = ArtifactAnswer(
    name="stdout",
    size=11,
    sha256=_FILE_SHA256,
    links={"self": f"{_JOB}/runs/1/artifacts/stdout"},
)
_RECORD: Final = RecordAnswer(
    record_id=_RECORD_ID,
    stream_id=_STREAM_ID,
    sequence_number=42,
    record_hash=_RECEIPT.record_hash,
    event_name="job.create",
    timestamp=_TIME,
    trace_id=_TRACE_ID,
    span_id=_SPAN_ID,
    attributes={"audit.actor.id": "anna", "audit.action": "CREATE", "audit.outcome": "success"},
    body='{"attributes":{"audit.action":"CREATE","audit.actor.id":"anna"},"event_name":"job.create"}',
    delivery="delivered",
    links={"self": f"/v1/audit/records/{_RECORD_ID}", "job": _JOB},
)
_STREAM: Final = StreamAnswer(
    stream_id=_STREAM_ID,
    opened_at=_TIME,
    records=42,
    record_hash=_RECEIPT.record_hash,
    observed_at=_TIME,
    closed=False,
    delivered=41,
    anchored=40,
    checkpoint=7,
    links={"records": f"/v1/audit/records?stream_id={_STREAM_ID}"},
)
_CHECKPOINT: Final = CheckpointAnswer(
    number=8,
    signature="fJHh3Fh0yYbGx6oJ8hQyQ3rZ0b5Xk0e9z9y1mQm0v4o6mJx0f5a7gk1m3b9Xw2c4d6e8f0a2b4c6d8e0f2a4Bg==",
    certificate="sha256:2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae",
    record=msgspec.structs.replace(_RECORD, event_name="audit.checkpoint"),
)
_TIP: Final = CheckpointTip(
    stream_id=_STREAM_ID,
    first=42,
    number=42,
    hash=_RECEIPT.record_hash,
    leaves="4e07408562bedb8b60ce05c1decfe3ad16b72230967de01f640b7e4729b49fce",
    closed=False,
)


_TEMPLATE: Final = TemplateAnswer(
    name="line-count",
    description="Count the lines of a file on the worker",
    requires_confirmation=False,
    distinct_confirmer=False,
    timeout_ms=_PLAN.timeout_ms,
    max_attempts=_PLAN.max_attempts,
    limits=_PLAN.limits,
    parameters={
        "$schema": DIALECT,
        "type": "object",
        "properties": {
            "path": {
                "type": "string",
                "maxLength": 1024,
                "pattern": r"^(?:/(etc|home|srv|tmp|var)(/(?!\.\.?(/|$))[A-Za-z0-9._\-]{1,100}){1,16})$",
                "not": {"pattern": NEVER},
                "description": "A file under /etc, /home, /srv, /tmp or /var, without ..",
            }
        },
        "required": ["path"],
        "additionalProperties": False,
    },
)
_PARTS: Final = ("ledger", "writes", "checkpoints", "verification", "worker", "delivery")
_ME: Final = MeAnswer(
    actor_id="anna",
    actor_type="user",
    tenant_id="default",
    roles=["viewer", "operator"],
    credential_kind="api_key",
    expires_at=None,
)


EXAMPLES: Final[Mapping[type[msgspec.Struct], msgspec.Struct]] = {
    type(value): value
    for value in (
        CreateJob("line-count", {"path": "/etc/hosts"}),
        ConfirmJob(confirmed=True, plan_sha256=_PLAN_SHA256, notes="the path is right"),
        NoMembers(),
        _ME,
        TemplatesAnswer([_TEMPLATE]),
        _JOB_ANSWER,
        JobsAnswer([_LISTED], "WzQxXQ"),
        RunsAnswer([_RUN]),
        _INPUT,
        ArtifactsAnswer([_ARTIFACT]),
        _RECORD,
        RecordsAnswer([_RECORD], "WzQxXQ"),
        StreamsAnswer([_STREAM], None),
        CheckpointsAnswer([_CHECKPOINT], "Wzdd"),
        ProofAnswer(record=_RECORD, checkpoint=_CHECKPOINT, tip=_TIP, hashes=[_RECEIPT.record_hash]),
        Health("ready", dict.fromkeys(_PARTS, "ok")),
    )
}
"""A value of each type that is sent or answered."""

# One of each status, as an example of all that have it.
PROBLEMS: Final[Sequence[AuditraceError]] = (
    InvalidRequestError("the body does not fit: Object contains unknown field `priority`"),
    UnauthenticatedError("this needs an API key or token: Authorization: Bearer …"),
    ForbiddenError("this needs the role approver"),
    NotFoundError("there is no such job"),
    TransitionRefusedError("only a draft can be confirmed; the job is created"),
    PreconditionFailedError("If-Match names version 1; the job is at version 2"),
    PayloadTooLargeError("the body exceeds the limit of this path"),
    UnsupportedMediaTypeError("the body must be application/json"),
    ThrottledError("more than 60 of your requests were refused within a minute"),
    OperationFailedError(_RECEIPT),
    LedgerUnavailableError("the ledger cannot be used"),
)


def problem_example(error: AuditraceError) -> dict[str, Any]:
    """Return a problem as it would be answered; those of the request have a record."""
    is_recorded = not isinstance(error, TryLaterError)
    error.receipt = _RECEIPT if is_recorded else None
    problem = problem_of(error, "019b76da-a8b2-7b11-8d51-3c1f0a9e8d7c", _TRACE_ID)
    example: dict[str, Any] = msgspec.to_builtins(problem)
    return example

"""The errors of the service, grouped by what the receiver can do.

AuditraceError
├── SettingsError                 fix the settings (all problems at once)
├── RefusedError                  change the request; a record of the refusal is or will be committed
│   ├── UnauthenticatedError      401
│   ├── ForbiddenError            403
│   ├── NotFoundError             404
│   ├── InvalidRequestError       400
│   ├── MethodNotAllowedError     405
│   ├── PayloadTooLargeError      413
│   │   └── TenantFullError
│   ├── UnsupportedMediaTypeError 415
│   ├── ConflictError             409
│   │   ├── TransitionRefusedError
│   │   ├── PlanMismatchError
│   │   ├── IdempotencyConflictError
│   │   └── LimitExceededError
│   ├── PreconditionFailedError   412
│   └── ThrottledError            429
│       └── TooManyAtOnceError
├── TryLaterError                 503, nothing changed
│   ├── LedgerUnavailableError
│   ├── LedgerBusyError
│   ├── DiskLowError
│   └── ShuttingDownError
├── BrokenLedgerError             call someone
│   └── FencedError               another process closed this lane's stream
└── OperationFailedError          call someone: the code has a defect
"""

from collections.abc import Sequence
from typing import ClassVar

from telemetry.audit.record import Receipt, Target


class AuditraceError(Exception):
    """Base of all errors that the service raises on purpose.

    `receipt` is the receipt of the committed record about the failed request, or None while there is none.
    """

    error_type: ClassVar[str] = "auditrace_error"
    receipt: Receipt | None = None


class SettingsError(AuditraceError):
    """The settings, templates or key files are wrong; `problems` lists all mistakes.

    `is_unread` means that a file could not be read, and nothing else is known to be wrong.
    """

    error_type = "settings"

    def __init__(self, problems: Sequence[str], *, is_unread: bool = False) -> None:
        super().__init__("; ".join(problems))
        self.problems = tuple(problems)
        self.is_unread = is_unread


class RefusedError(AuditraceError):
    """The request is refused; `detail` is one sentence: why, and what to do.

    `event_name` and `target` are what its operation tried, where the operation left it to the caller to record that;
    `filter_text` is what a refused read of the trail asked for. `limit` is the limit that the request is over
    (service/operations/rates.py); None for other refusals.
    """

    error_type = "refused"
    limit: str | None = None
    event_name: str | None = None
    target: Target | None = None
    filter_text: str | None = None

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail


class UnauthenticatedError(RefusedError):
    """The request has no credential, or an invalid one."""

    error_type = "unauthenticated"


class ForbiddenError(RefusedError):
    """The actor's roles, or the four-eyes rule, do not allow the request."""

    error_type = "forbidden"


class NotFoundError(RefusedError):
    """There is no such resource in the actor's tenant."""

    error_type = "not_found"


class InvalidRequestError(RefusedError):
    """The request is malformed, or names something that its template does not have."""

    error_type = "invalid_request"


class MethodNotAllowedError(RefusedError):
    """The resource does not support this method; `allow` lists the supported methods."""

    error_type = "method_not_allowed"

    def __init__(self, detail: str, allow: str = "") -> None:
        super().__init__(detail)
        self.allow = allow


class PayloadTooLargeError(RefusedError):
    """The body exceeds the stated limit."""

    error_type = "payload_too_large"


class TenantFullError(PayloadTooLargeError):
    """The tenant stores as many bytes as it may."""

    error_type = "tenant_full"


class UnsupportedMediaTypeError(RefusedError):
    """The resource does not accept the media type of the body."""

    error_type = "unsupported_media_type"


class ConflictError(RefusedError):
    """The request conflicts with the present state of the resource."""

    error_type = "conflict"


class TransitionRefusedError(ConflictError):
    """The job's state does not allow the transition."""

    error_type = "transition_refused"


class PlanMismatchError(ConflictError):
    """The confirmed plan hash is not the hash of the job's plan."""

    error_type = "plan_mismatch"


class IdempotencyConflictError(ConflictError):
    """The idempotency key was already used with another body."""

    error_type = "idempotency_conflict"


class LimitExceededError(ConflictError):
    """A limit of the job (number of inputs, for example) is reached."""

    error_type = "limit_exceeded"


class PreconditionFailedError(RefusedError):
    """`If-Match` does not name the present version."""

    error_type = "precondition_failed"


class ThrottledError(RefusedError):
    """Too many requests, or too many refusals within a minute; the request may pass after `retry_after_s` seconds."""

    error_type = "throttled"

    def __init__(self, detail: str, retry_after_s: int = 60, limit: str | None = None) -> None:
        super().__init__(detail)
        self.retry_after_s = retry_after_s
        self.limit = limit


class TooManyAtOnceError(ThrottledError):
    """The actor has too many requests of this kind in progress; one more may be let in when one of them has ended."""

    error_type = "too_many_at_once"


class TryLaterError(AuditraceError):
    """Nothing changed; the same request may succeed later.

    Any client may see `summary`. `detail` adds the `cause`: the message of the database or the system, which may name
    hosts, ports and paths. It is for operators, in logs and commands.
    """

    error_type = "try_later"

    def __init__(self, summary: str, retry_after_s: int = 1, *, cause: str = "") -> None:
        self.summary = summary
        self.detail = f"{summary}: {cause}" if cause else summary
        self.retry_after_s = retry_after_s
        super().__init__(self.detail)


class LedgerUnavailableError(TryLaterError):
    """The ledger cannot be written: disk full, I/O error, or a lost connection.

    `reason` is a short text without host, port or path, for callers that are not authenticated.
    """

    error_type = "ledger_unavailable"

    def __init__(
        self, summary: str, retry_after_s: int = 1, *, cause: str = "", reason: str = "the database cannot be used"
    ) -> None:
        super().__init__(summary, retry_after_s, cause=cause)
        self.reason = reason


class LedgerBusyError(TryLaterError):
    """Another writer held the lock of the ledger for too long."""

    error_type = "ledger_busy"


class DiskLowError(TryLaterError):
    """The disk is nearly full; the remaining space is kept to record work in progress."""

    error_type = "disk_low"


class ShuttingDownError(TryLaterError):
    """The process is stopping and accepts no more work."""

    error_type = "shutting_down"


class BrokenLedgerError(AuditraceError):
    """The ledger in the database is inconsistent; nothing more is written to it."""

    error_type = "broken_ledger"


class FencedError(BrokenLedgerError):
    """Another process closed or took over the stream; the lane continues in a new stream."""

    error_type = "fenced"


class OperationFailedError(AuditraceError):
    """An operation failed because of a defect; `receipt` is the receipt of the record that states its result."""

    error_type = "internal_error"

    def __init__(self, receipt: Receipt) -> None:
        super().__init__("the operation failed unexpectedly")
        self.receipt = receipt

"""The errors of the service, grouped by what the receiver can do.

AuditraceError
├── SettingsError                 fix the settings (all problems at once)
├── RefusedError                  change the request; a record of the refusal exists or is written
│   ├── UnauthenticatedError      401
│   ├── ForbiddenError            403
│   ├── NotFoundError             404
│   ├── InvalidRequestError       400
│   ├── MethodNotAllowedError     405
│   ├── PayloadTooLargeError      413
│   ├── UnsupportedMediaTypeError 415
│   ├── ConflictError             409
│   │   ├── TransitionRefusedError
│   │   ├── PlanMismatchError
│   │   ├── IdempotencyConflictError
│   │   └── LimitExceededError
│   ├── PreconditionFailedError   412
│   └── ThrottledError            429
├── TryLaterError                 503, nothing changed
│   ├── LedgerUnavailableError
│   ├── LedgerBusyError
│   ├── DiskLowError
│   └── ShuttingDownError
├── BrokenLedgerError             call someone
│   └── FencedError               this lane's stream was closed by another process
└── OperationFailedError          call someone: the code itself broke
"""

from collections.abc import Sequence
from typing import ClassVar

from telemetry.audit.record import Receipt


class AuditraceError(Exception):
    """Anything that the service raises on purpose.

    `receipt` is that of the committed record that the failed request left, once there is one.
    """

    error_type: ClassVar[str] = "auditrace_error"
    receipt: Receipt | None = None


class SettingsError(AuditraceError):
    """The settings, templates or key files are wrong; `problems` lists every mistake that was found.

    `is_unread` means that a file could not be looked at, and nothing else is known to be wrong.
    """

    error_type = "settings"

    def __init__(self, problems: Sequence[str], *, is_unread: bool = False) -> None:
        super().__init__("; ".join(problems))
        self.problems = tuple(problems)
        self.is_unread = is_unread


class RefusedError(AuditraceError):
    """The request is refused; `detail` says in one sentence why and what to do."""

    error_type = "refused"

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail


class UnauthenticatedError(RefusedError):
    """No credential, or one that does not hold."""

    error_type = "unauthenticated"


class ForbiddenError(RefusedError):
    """The actor's roles, or the four-eyes rule, do not allow it."""

    error_type = "forbidden"


class NotFoundError(RefusedError):
    """No such resource in the actor's tenant."""

    error_type = "not_found"


class InvalidRequestError(RefusedError):
    """The request is malformed, or names something that does not exist in its template."""

    error_type = "invalid_request"


class MethodNotAllowedError(RefusedError):
    """The resource does not know this method; `allow` lists those that it does."""

    error_type = "method_not_allowed"

    def __init__(self, detail: str, allow: str = "") -> None:
        super().__init__(detail)
        self.allow = allow


class PayloadTooLargeError(RefusedError):
    """The body exceeds the stated limit."""

    error_type = "payload_too_large"


class UnsupportedMediaTypeError(RefusedError):
    """The body is of a media type that the resource does not take."""

    error_type = "unsupported_media_type"


class ConflictError(RefusedError):
    """The request does not fit the present state of the resource."""

    error_type = "conflict"


class TransitionRefusedError(ConflictError):
    """The job's state does not allow the transition."""

    error_type = "transition_refused"


class PlanMismatchError(ConflictError):
    """The plan hash that was confirmed is not the hash of the job's plan."""

    error_type = "plan_mismatch"


class IdempotencyConflictError(ConflictError):
    """The idempotency key was used before with another body."""

    error_type = "idempotency_conflict"


class LimitExceededError(ConflictError):
    """A limit of the job (number of inputs, for example) is reached."""

    error_type = "limit_exceeded"


class PreconditionFailedError(RefusedError):
    """`If-Match` names another version than the present one."""

    error_type = "precondition_failed"


class ThrottledError(RefusedError):
    """The actor was refused too often within a minute; the next minute begins in `retry_after_s`."""

    error_type = "throttled"

    def __init__(self, detail: str, retry_after_s: int = 60) -> None:
        super().__init__(detail)
        self.retry_after_s = retry_after_s


class TryLaterError(AuditraceError):
    """Nothing changed; the same request may succeed later.

    `summary` is what any client may learn. `detail` says the `cause` as well, in words of the database or the system,
    which may name hosts, ports and paths: it is for operators, in logs and commands.
    """

    error_type = "try_later"

    def __init__(self, summary: str, retry_after_s: int = 1, *, cause: str = "") -> None:
        self.summary = summary
        self.detail = f"{summary}: {cause}" if cause else summary
        self.retry_after_s = retry_after_s
        super().__init__(self.detail)


class LedgerUnavailableError(TryLaterError):
    """The ledger cannot be written: disk full, I/O error, or a lost connection.

    `reason` says why in a few words that name no host, port or path, for callers who have shown no credential.
    """

    error_type = "ledger_unavailable"

    def __init__(
        self, summary: str, retry_after_s: int = 1, *, cause: str = "", reason: str = "the database cannot be used"
    ) -> None:
        super().__init__(summary, retry_after_s, cause=cause)
        self.reason = reason


class LedgerBusyError(TryLaterError):
    """Another writer held the ledger for too long."""

    error_type = "ledger_busy"


class DiskLowError(TryLaterError):
    """The disk is nearly full, and what is left is kept for what is under way."""

    error_type = "disk_low"


class ShuttingDownError(TryLaterError):
    """The process is stopping and takes no more work."""

    error_type = "shutting_down"


class BrokenLedgerError(AuditraceError):
    """The ledger in the database contradicts itself; nothing more is written to it."""

    error_type = "broken_ledger"


class FencedError(BrokenLedgerError):
    """The stream was closed or taken by another process; the lane goes on in a new stream."""

    error_type = "fenced"


class OperationFailedError(AuditraceError):
    """The code broke in an operation; `receipt` is that of the record which says what was done of it."""

    error_type = "internal_error"

    def __init__(self, receipt: Receipt) -> None:
        super().__init__("the operation failed unexpectedly")
        self.receipt = receipt

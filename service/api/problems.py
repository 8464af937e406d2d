"""Makes an answer of every error: RFC 9457 `application/problem+json`, without internal details."""

from collections.abc import Mapping
from typing import Annotated, Any, Final

import msgspec
from litestar import Request, Response
from litestar.exceptions import HTTPException, InternalServerException, ValidationException
from litestar.openapi.datastructures import ResponseSpec
from litestar.openapi.spec import Example

from service import errors
from service.api.fields import RECEIPT, REQUEST_ID, RecordId, TraceId, about
from service.api.request import exchange_of
from service.errors import AuditraceError, RefusedError, ThrottledError, TryLaterError
from telemetry import names
from telemetry.audit.record import Receipt
from telemetry.errors import (
    CanonicalFormError,
    NoTransactionError,
    RecordNotSealedError,
    TelemetryError,
    TelemetrySettingsError,
)

MEDIA_TYPE: Final = "application/problem+json"
TYPE_PREFIX: Final = "urn:auditrace:problem:"
INTERNAL: Final = "internal_error"

# Status and title of each class of the trees in service/errors.py and telemetry/errors.py.
STATUSES: Final[Mapping[type[AuditraceError | TelemetryError], tuple[int, str]]] = {
    errors.AuditraceError: (500, "Internal error"),
    errors.SettingsError: (500, "Wrong settings"),
    errors.RefusedError: (400, "Refused"),
    errors.UnauthenticatedError: (401, "Not authenticated"),
    errors.ForbiddenError: (403, "Not allowed"),
    errors.NotFoundError: (404, "Not found"),
    errors.MethodNotAllowedError: (405, "Method not allowed"),
    errors.InvalidRequestError: (400, "Invalid request"),
    errors.PayloadTooLargeError: (413, "Body too large"),
    errors.TenantFullError: (413, "Tenant full"),
    errors.UnsupportedMediaTypeError: (415, "Media type not supported"),
    errors.ConflictError: (409, "Conflict"),
    errors.TransitionRefusedError: (409, "Not possible in this state"),
    errors.PlanMismatchError: (409, "Another plan"),
    errors.IdempotencyConflictError: (409, "Idempotency key used before"),
    errors.LimitExceededError: (409, "Limit reached"),
    errors.PreconditionFailedError: (412, "Precondition failed"),
    errors.ThrottledError: (429, "Too many requests"),
    errors.TooManyAtOnceError: (429, "Too many at once"),
    errors.TryLaterError: (503, "Try again later"),
    errors.LedgerUnavailableError: (503, "Ledger not available"),
    errors.LedgerBusyError: (503, "Ledger busy"),
    errors.DiskLowError: (503, "Disk nearly full"),
    errors.ShuttingDownError: (503, "Shutting down"),
    errors.BrokenLedgerError: (500, "Broken ledger"),
    errors.FencedError: (500, "Ledger taken over"),
    errors.OperationFailedError: (500, "Internal error"),
    TelemetryError: (500, "Internal error"),
    TelemetrySettingsError: (500, "Wrong settings"),
    CanonicalFormError: (500, "No canonical form"),
    NoTransactionError: (500, "Record outside a transaction"),
    RecordNotSealedError: (500, "Record not sealed"),
}

_DISCONNECTED: Final = "client disconnected prematurely"

_ERROR_TYPES: Final = sorted({INTERNAL, *(kind.error_type for kind in STATUSES)})


class Problem(msgspec.Struct, frozen=True, kw_only=True):
    """A problem as clients see it.

    `audit` is the receipt of the committed record that the request left, and `audit_record_id` that record's id; both
    are null when it left none.
    """

    type: Annotated[str, about("`urn:auditrace:problem:` and the error type.", format="uri")]
    title: Annotated[str, about("What kind of problem it is, for people.")]
    status: Annotated[int, about("The status of the answer.")]
    detail: Annotated[str, about("What is wrong with this request, and what to do.")]
    error_type: Annotated[str, about("What kind of problem it is, for programs.", enum=_ERROR_TYPES)]
    request_id: Annotated[str, about("As `X-Request-Id` has it.", **REQUEST_ID)]
    trace_id: TraceId
    audit_record_id: Annotated[
        RecordId | None, about("The id of the record that the request left; null when it left none.")
    ]
    audit: Annotated[Receipt | None, about("The receipt of that record.")]


def error_of(exception: Exception) -> Exception:
    """Return the error of the service that stands for an exception; unexpected ones are returned as they are."""
    if isinstance(exception, AuditraceError):
        return exception
    if isinstance(exception, InternalServerException) and exception.detail == _DISCONNECTED:
        return errors.InvalidRequestError("the client hung up before its body was read")
    if isinstance(exception, ValidationException):
        return errors.InvalidRequestError(_validation_detail(exception))
    if isinstance(exception, HTTPException):
        return _http_error(exception)
    return exception


def answer_problem(request: Request[Any, Any, Any], exception: Exception) -> Response[Problem]:
    """Return the answer to a request that failed."""
    exchange = exchange_of(request.scope)
    error = exchange.failure or error_of(exception)
    problem = problem_of(error, exchange.request_id, exchange.span.ref.trace_id)
    if problem.status >= 500:
        # For the server span and the request metric, which know only the status.
        request.scope["state"][names.ERROR_TYPE] = problem.error_type
    return Response(problem, status_code=problem.status, media_type=MEDIA_TYPE, headers=_headers(error, request))


def status_of(error: Exception) -> tuple[int, str, str]:
    """Return status, title and error type for an error; a class that is not mapped stands for its parent."""
    if isinstance(error, AuditraceError | TelemetryError):
        status, title = next(STATUSES[cls] for cls in type(error).__mro__ if cls in STATUSES)
        return status, title, error.error_type
    return 500, "Internal error", INTERNAL


def problem_of(error: Exception, request_id: str, trace_id: str) -> Problem:
    """Return an error as clients see it."""
    status, title, error_type = status_of(error)
    detail = "the service failed: report the request id to its operator"
    if isinstance(error, RefusedError):
        detail = error.detail
    elif isinstance(error, TryLaterError):
        detail = error.summary
    receipt = error.receipt if isinstance(error, AuditraceError) else None
    return Problem(
        type=TYPE_PREFIX + error_type,
        title=title,
        status=status,
        detail=detail,
        error_type=error_type,
        request_id=request_id,
        trace_id=trace_id,
        audit_record_id=receipt.record_id if receipt else None,
        audit=receipt,
    )


def problems(*statuses: int) -> dict[int, ResponseSpec]:
    """Return the problems with which a route can answer, for its OpenAPI description."""
    return {status: _SHOWN[status] for status in statuses}


def refusals(*statuses: int) -> dict[int, ResponseSpec]:
    """Return the problems of a route that needs a credential: these, and those of every such route."""
    return problems(*sorted({400, 401, *statuses, 429, 500, 503}))


def _headers(error: Exception, request: Request[Any, Any, Any]) -> dict[str, str]:
    if isinstance(error, errors.UnauthenticatedError):
        is_token_given = "authorization" in request.headers
        return {"WWW-Authenticate": 'Bearer realm="auditrace"' + (', error="invalid_token"' if is_token_given else "")}
    if isinstance(error, ThrottledError | TryLaterError):
        return {"Retry-After": str(error.retry_after_s)}
    if isinstance(error, errors.MethodNotAllowedError):
        return {"Allow": error.allow}
    return {}


def _http_error(exception: HTTPException) -> Exception:
    match exception.status_code:
        case 404:
            return errors.NotFoundError("there is nothing at this path")
        case 405:
            # The methods come from a set: in order, equal requests get equal answers.
            allow = ", ".join(sorted((exception.headers or {}).get("allow", "").split(", ")))
            return errors.MethodNotAllowedError(f"this path knows {allow}", allow)
        case 413:
            return errors.PayloadTooLargeError("the body exceeds the limit of this path")
        case status if status < 500:
            return errors.InvalidRequestError(exception.detail or "the request is malformed")
        case _:
            return exception


def _validation_detail(exception: ValidationException) -> str:
    found = msgspec.convert(exception.extra or [], list[_Invalid])
    if any(entry.key == "data" for entry in found):
        return "this needs a JSON body"
    texts = [f"{entry.key}: {entry.message}" if entry.key else entry.message for entry in found]
    return "; ".join(texts) or "the request is malformed"


class _Invalid(msgspec.Struct):
    message: str
    key: str = ""


def _shown(error: AuditraceError) -> ResponseSpec:
    # A request that is to come again has left no record.
    error.receipt = None if isinstance(error, TryLaterError) else RECEIPT
    problem = problem_of(error, "019b76da-a8b2-7b11-8d51-3c1f0a9e8d7c", "0af7651916cd43dd8448eb211c80319c")
    return ResponseSpec(
        Problem,
        description=f"{problem.title}: {problem.status}.",
        media_type=MEDIA_TYPE,
        examples=[Example(value=problem)],
        generate_examples=False,
    )


# One of each status, as an example of all that have it.
_SHOWN: Final = {
    status_of(error)[0]: _shown(error)
    for error in (
        errors.InvalidRequestError("the body does not fit: Object contains unknown field `priority`"),
        errors.UnauthenticatedError("this needs an API key or token: Authorization: Bearer …"),
        errors.ForbiddenError("this needs the role approver"),
        errors.NotFoundError("there is no such job"),
        errors.TransitionRefusedError("only a draft can be confirmed; the job is created"),
        errors.PreconditionFailedError("If-Match names version 1; the job is at version 2"),
        errors.PayloadTooLargeError("the body exceeds the limit of this path"),
        errors.UnsupportedMediaTypeError("the body must be application/json"),
        errors.ThrottledError("more than 60 of your requests were refused within a minute"),
        errors.OperationFailedError(RECEIPT),
        errors.LedgerUnavailableError("the ledger cannot be used"),
    )
}

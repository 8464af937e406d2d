"""Checks the head of a request as a whole: its ids, its headers, and its query against what its route declares.

Litestar would ignore unknown parameters, or not list the known ones. The declarations of a query are the handlers'
signatures, from which the OpenAPI document is made too.
"""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from enum import Enum
from functools import lru_cache
from typing import Final, cast

from litestar.datastructures import Headers
from litestar.handlers import BaseRouteHandler
from litestar.params import QueryParameter
from litestar.types import HTTPScope
from litestar.typing import FieldDefinition

from service.api.texts import is_idempotency_key, is_plain, is_uuid, shown
from service.errors import InvalidRequestError, NotFoundError, UnsupportedMediaTypeError
from service.forms import Form, meant

_INTEGER: Final = re.compile(r"-?[0-9]{1,18}")
_SHOWN: Final = 64


def require_declared(query: Sequence[tuple[str, str]], handler: BaseRouteHandler) -> None:
    """Check the query of a request as a whole.

    Raises:
        InvalidRequestError: a parameter is unknown, given too often, or has a value that is not allowed; the error
            names it, its value as it was sent, and the allowed values.
    """
    declared = _declared(handler)
    counts = Counter(name for name, _ in query)
    for name, value in query:
        field = declared.get(name)
        if field is None:
            raise InvalidRequestError(_unknown(name, declared))
        most = _rule(field).max_items
        if counts[name] > (most or 1):
            times = "twice" if most is None else f"{counts[name]} times: allowed are {most}"
            raise InvalidRequestError(f"query parameter {name} is given {times}")
        if not is_plain(value):
            raise InvalidRequestError(f"query parameter {name} must not hold control characters")
        # Values of a parameter that may be repeated are checked where they are read (service/operations/filters.py).
        problem = _problem(value, field) if most is None else None
        if problem is not None:
            raise InvalidRequestError(f"{name}={shown(value, _SHOWN)}: {problem}")


def require_ids(scope: HTTPScope) -> None:
    """Refuse ids that are no UUID, so that no other text reaches the database."""
    for name in ("job_id", "record_id"):
        value = scope["path_params"].get(name)
        if value is not None and not is_uuid(str(value)):
            raise NotFoundError(f"there is no such {name.removesuffix('_id')}")


def require_once(headers: Headers) -> None:
    """Refuse doubled headers that decide what is done: two readers of the request could read them differently."""
    for name in ("if-match", "idempotency-key", "content-type", "last-event-id"):
        if len(headers.getall(name, [])) > 1:
            raise InvalidRequestError(f"the header {name} is given twice")


def require_sound_head(headers: Headers, method: str, *, takes_json: bool) -> None:
    """Refuse headers that no route supports, or that do not fit the body of this route."""
    key = headers.get("idempotency-key")
    if method == "POST" and key is not None and not is_idempotency_key(key):
        raise InvalidRequestError("Idempotency-Key must be 1 to 255 printable ASCII characters")
    if method == "PUT" and "content-range" in headers:
        raise InvalidRequestError("Content-Range is not taken: send the input as a whole")
    is_packed = headers.get("content-encoding", "identity").strip().lower() != "identity"
    if is_packed and (takes_json or method == "PUT"):
        # The body is recorded by its hash and given to the run, byte for byte as it was sent.
        raise UnsupportedMediaTypeError("Content-Encoding is not taken: send the body as it is")
    has_body = headers.get("content-length", "0") != "0" or "transfer-encoding" in headers
    media_type = headers.get("content-type", "application/json").partition(";")[0].strip().lower()
    if takes_json and has_body and media_type != "application/json":
        raise UnsupportedMediaTypeError("the body must be application/json")


# As many as there are routes; registered handlers live as long as their application.
@lru_cache(maxsize=256)
def _declared(handler: BaseRouteHandler) -> Mapping[str, FieldDefinition]:
    dependencies = handler.resolve_dependencies().values()
    signatures = [handler.parsed_fn_signature, *(provided.parsed_fn_signature for provided in dependencies)]
    fields = [field for signature in signatures for field in signature.parameters.values()]
    rules = [(field.kwarg_definition, field) for field in fields]
    return {rule.name or field.name: field for rule, field in rules if isinstance(rule, QueryParameter)}


def _unknown(name: str, declared: Mapping[str, FieldDefinition]) -> str:
    text = f"unknown query parameter {shown(name, _SHOWN)!r}"
    if not declared:
        return f"{text}: this path takes none"
    return f"{text}: {meant(name, sorted(declared))}known are {', '.join(sorted(declared))}"


def _problem(value: str, field: FieldDefinition) -> str | None:
    rule = _rule(field)
    if rule.ge is not None and rule.le is not None:
        is_within = _INTEGER.fullmatch(value) and rule.ge <= int(value) <= rule.le
        return None if is_within else f"allowed are whole numbers from {rule.ge} to {rule.le}"
    lengths = (rule.min_length or 0, rule.max_length or len(value))
    form = Form(
        choices=_choices(field),
        pattern=rule.pattern or "",
        title=rule.title or "",
        min_length=lengths[0],
        max_length=lengths[1],
    )
    return form.problem(value)


def _rule(field: FieldDefinition) -> QueryParameter:
    return cast("QueryParameter", field.kwarg_definition)


def _choices(field: FieldDefinition) -> Sequence[str]:
    rule = _rule(field)
    if rule.enum is not None:
        return [str(value) for value in rule.enum]
    for kind in (field.annotation, *(inner.annotation for inner in field.inner_types)):
        if isinstance(kind, type) and issubclass(kind, Enum):
            return [str(member.value) for member in kind]
    return []

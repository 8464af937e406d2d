"""Checks a query against what its route declares, where Litestar would ignore what is unknown or not say what is known.

The declarations are those of the handlers' signatures, which also make the OpenAPI document: nothing is said twice.
"""

import re
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from enum import Enum
from functools import lru_cache
from typing import Final, cast

from litestar.handlers import BaseRouteHandler
from litestar.params import QueryParameter
from litestar.typing import FieldDefinition

from service.api.texts import is_plain, shown
from service.errors import InvalidRequestError

_INTEGER: Final = re.compile(r"-?[0-9]{1,18}")
_SHOWN: Final = 64


def require_declared(query: Sequence[tuple[str, str]], handler: BaseRouteHandler) -> None:
    """Check the query of a request as a whole.

    Raises:
        InvalidRequestError: a parameter is unknown, given twice, or has a value that it cannot have; says which one,
            as it was sent, and what is allowed.
    """
    declared = _declared(handler)
    seen: set[str] = set()
    for name, value in query:
        field = declared.get(name)
        if field is None:
            raise InvalidRequestError(_unknown(name, declared))
        if name in seen:
            raise InvalidRequestError(f"query parameter {name} is given twice")
        if not is_plain(value):
            raise InvalidRequestError(f"query parameter {name} must not hold control characters")
        problem = _problem(value, field)
        if problem is not None:
            raise InvalidRequestError(f"{name}={shown(value, _SHOWN)}: {problem}")
        seen.add(name)


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
    nearest = get_close_matches(name, declared, n=1)
    meant = f": did you mean {nearest[0]}?" if nearest else ":"
    return f"{text}{meant} known are {', '.join(sorted(declared))}"


def _problem(value: str, field: FieldDefinition) -> str | None:
    rule = cast("QueryParameter", field.kwarg_definition)
    choices = _choices(field)
    if choices is not None:
        nearest = get_close_matches(value, choices, n=1)
        meant = f"did you mean {nearest[0]}? " if nearest else ""
        return None if value in choices else f"{meant}allowed are {', '.join(choices)}"
    if rule.ge is not None and rule.le is not None:
        is_within = _INTEGER.fullmatch(value) and rule.ge <= int(value) <= rule.le
        return None if is_within else f"allowed are whole numbers from {rule.ge} to {rule.le}"
    if not (rule.min_length or 0) <= len(value) <= (rule.max_length or len(value)):
        return f"allowed are {rule.min_length or 0} to {rule.max_length} characters"
    if rule.pattern is not None and re.fullmatch(rule.pattern, value) is None:
        return f"allowed are {rule.description}"
    return None


def _choices(field: FieldDefinition) -> Sequence[str] | None:
    rule = cast("QueryParameter", field.kwarg_definition)
    if rule.enum is not None:
        return [str(value) for value in rule.enum]
    for kind in (field.annotation, *(inner.annotation for inner in field.inner_types)):
        if isinstance(kind, type) and issubclass(kind, Enum):
            return [str(member.value) for member in kind]
    return None

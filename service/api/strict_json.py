"""JSON objects that all readers understand in the same way: no member twice, no `NaN`, no infinite number."""

import json
import math
from collections.abc import Mapping, Sequence
from typing import NoReturn, cast


def strict_object(text: bytes) -> Mapping[str, object]:
    """Return the object that `text` is.

    Raises:
        ValueError: it is no JSON object in UTF-8, has a member twice at any depth, has a number that is not finite, or
            is nested too deeply.
    """
    try:
        value: object = json.loads(
            text.decode("utf-8"), object_pairs_hook=_members, parse_constant=_constant, parse_float=_number
        )
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    if isinstance(value, dict):
        return cast("Mapping[str, object]", value)
    raise ValueError("it is no JSON object")


def _members(pairs: Sequence[tuple[str, object]]) -> dict[str, object]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("it has a member twice")
    return members


def _number(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError("it has a number that is too large")
    return number


def _constant(_: str) -> NoReturn:
    raise ValueError("it has a number that JSON does not know")

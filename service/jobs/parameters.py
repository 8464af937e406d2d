"""The parameters of templates: reads their tables, and checks the values that clients send."""

import re
from collections.abc import Mapping
from enum import StrEnum
from typing import Final

import msgspec

from service.jobs.model import ParameterValue
from service.jobs.patterns import is_match, require_matchable
from service.jobs.tables import Table
from service.jobs.texts import unfit_character
from telemetry.audit.canonical import MAX_INTEGER

MASKED: Final = re.compile(r"hmac-sha256:[0-9a-f]{64}")
"""The masked form of a sensitive value."""

DEFAULT_LENGTH: Final = 1024
MAX_LENGTH: Final = 8192
_EVERYWHERE: Final = ("type", "description", "default")


class ParameterType(StrEnum):
    """The types of a parameter."""

    STRING = "string"
    INTEGER = "integer"
    BOOLEAN = "boolean"
    ENUM = "enum"


_KEYS: Final[Mapping[ParameterType, tuple[str, ...]]] = {
    ParameterType.STRING: (*_EVERYWHERE, "pattern", "max_length", "sensitive"),
    ParameterType.INTEGER: (*_EVERYWHERE, "minimum", "maximum"),
    ParameterType.BOOLEAN: _EVERYWHERE,
    ParameterType.ENUM: (*_EVERYWHERE, "values"),
}


class Parameter(msgspec.Struct, frozen=True, kw_only=True):
    """One parameter of a template. `max_length` counts characters; `minimum` and `maximum` are allowed values."""

    name: str
    type: ParameterType
    description: str = ""
    pattern: str | None = None
    max_length: int = DEFAULT_LENGTH
    minimum: int = -MAX_INTEGER
    maximum: int = MAX_INTEGER
    values: tuple[str, ...] = ()
    default: ParameterValue | None = None
    sensitive: bool = False

    def check(self, value: object) -> ParameterValue:
        """Return `value` if this parameter accepts it.

        Raises:
            ValueError: says what is allowed; it never shows the value, which may be a secret.
        """
        match self.type:
            case ParameterType.STRING:
                if isinstance(value, str):
                    return self._string(value)
                raise ValueError("must be a string")
            case ParameterType.INTEGER:
                if isinstance(value, int) and not isinstance(value, bool) and self.minimum <= value <= self.maximum:
                    return value
                raise ValueError(f"must be an integer from {self.minimum} to {self.maximum}")
            case ParameterType.BOOLEAN:
                if isinstance(value, bool):
                    return value
                raise ValueError("must be true or false")
            case ParameterType.ENUM:
                if isinstance(value, str) and value in self.values:
                    return value
                raise ValueError(f"must be one of {', '.join(self.values)}")

    def describe(self) -> dict[str, object]:
        """Return the parameter as a plain structure that has only the keys of its type."""
        described: dict[str, object] = {
            "type": self.type.value,
            "required": self.default is None,
            "description": self.description or None,
            "default": self.default,
        }
        match self.type:
            case ParameterType.STRING:
                described |= {"max_length": self.max_length, "sensitive": self.sensitive, "pattern": self.pattern}
            case ParameterType.INTEGER:
                described |= {"minimum": self.minimum, "maximum": self.maximum}
            case ParameterType.ENUM:
                described["values"] = list(self.values)
            case ParameterType.BOOLEAN:
                pass
        return {key: value for key, value in described.items() if value is not None}

    def _string(self, value: str) -> str:
        if len(value) > self.max_length:
            raise ValueError(f"must have at most {self.max_length} characters")
        unfit = unfit_character(value)
        if unfit is not None:
            # No part of a sensitive value gets into the refusal, which is recorded.
            named = "a character that" if self.sensitive else f"{unfit}, which"
            raise ValueError(f"must not hold {named} is a control character or cannot be seen")
        if self.pattern is not None and not is_match(self.pattern, value):
            raise ValueError(f"must match {self.pattern} as a whole")
        if self.pattern is None and value.startswith("-"):
            raise ValueError("must not start with '-', which a command takes for an option")
        if MASKED.search(value):
            raise ValueError("must not look like a masked value (hmac-sha256:...)")
        return value


def read_parameter(name: str, table: Table) -> Parameter:
    """Return the parameter that `table` declares; its mistakes are added to the problems of the table."""
    kind = _type(table)
    table.allow(_KEYS[kind], f" for type {kind}")
    max_length = table.number("max_length", DEFAULT_LENGTH, 1, MAX_LENGTH)
    parameter = Parameter(
        name=name,
        type=kind,
        description=table.take("description", str, ""),
        pattern=_pattern(table, max_length),
        max_length=max_length,
        minimum=table.number("minimum", -MAX_INTEGER, -MAX_INTEGER, MAX_INTEGER),
        maximum=table.number("maximum", MAX_INTEGER, -MAX_INTEGER, MAX_INTEGER),
        values=_values(table, kind),
        sensitive=table.take("sensitive", bool, False),
    )
    table.require_seen("description", parameter.description)
    table.require_seen("pattern", parameter.pattern or "")
    if parameter.minimum > parameter.maximum:
        table.complain("minimum", f"is above maximum, {parameter.maximum}")
    if not table.has("default"):
        return parameter
    if parameter.sensitive:
        table.complain("default", "a sensitive parameter has none, because this file must not hold a secret")
        return parameter
    try:
        return msgspec.structs.replace(parameter, default=parameter.check(table.raw("default")))
    except ValueError as error:
        table.complain("default", str(error))
        return parameter


def _type(table: Table) -> ParameterType:
    written = table.require("type", str, ParameterType.STRING.value)
    try:
        return ParameterType(written)
    except ValueError:
        table.complain("type", f"must be one of {', '.join(ParameterType)}, not {written!r}")
        return ParameterType.STRING


def _pattern(table: Table, max_length: int) -> str | None:
    if not table.has("pattern"):
        return None
    pattern = table.take("pattern", str, "")
    try:
        require_matchable(pattern, max_length)
    except ValueError as error:
        table.complain("pattern", str(error))
        return None
    return pattern


def _values(table: Table, kind: ParameterType) -> tuple[str, ...]:
    if kind is not ParameterType.ENUM:
        return ()
    values = table.require("values", tuple[str, ...], ("",))
    if not values or len(set(values)) != len(values):
        table.complain("values", "must be a list of at least one text, each once")
    for position, value in enumerate(values):
        table.require_seen("values", value, f"value {position}", line_breaks=False)
        if len(value) > MAX_LENGTH:
            table.complain("values", f"value {position} has more than {MAX_LENGTH} characters")
    return values

"""Translates the parameters of a template to JSON Schema, for forms, and for clients that check before they send.

Source: https://json-schema.org/draft/2020-12/json-schema-validation.
"""

from collections.abc import Mapping
from typing import Any, Final

from service.jobs.parameters import Parameter, ParameterType
from service.jobs.patterns import portable_pattern
from service.jobs.templates import Template
from service.jobs.texts import UNFIT

DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"

# Texts that no parameter may hold: what no text of a plan may hold, and the form of a masked value.
NEVER: Final = f"{UNFIT}|hmac-sha256:[0-9a-f]{{64}}"
_OPTION: Final = "|^-"


def parameters_schema(template: Template) -> dict[str, Any]:
    """Return the schema of the parameters of a new job of this template.

    It accepts exactly what `Template.check` accepts, with one exception: JSON Schema accepts `1.0` as an integer, the
    JSON of this service does not.
    """
    required = [name for name, parameter in template.parameters.items() if parameter.default is None]
    return {
        "$schema": DIALECT,
        "type": "object",
        "properties": {name: _schema(parameter) for name, parameter in template.parameters.items()},
        "required": required,
        "additionalProperties": False,
    }


def _schema(parameter: Parameter) -> dict[str, Any]:
    schema: dict[str, Any] = {**_type(parameter)}
    if parameter.description:
        schema["description"] = parameter.description
    if parameter.default is not None:
        schema["default"] = parameter.default
    if parameter.sensitive:
        schema["writeOnly"] = True
    return schema


def _type(parameter: Parameter) -> Mapping[str, Any]:
    match parameter.type:
        case ParameterType.STRING:
            return {"type": "string", "maxLength": parameter.max_length, **_texts(parameter.pattern)}
        case ParameterType.INTEGER:
            return {"type": "integer", "minimum": parameter.minimum, "maximum": parameter.maximum}
        case ParameterType.BOOLEAN:
            return {"type": "boolean"}
        case ParameterType.ENUM:
            return {"type": "string", "enum": list(parameter.values)}


def _texts(pattern: str | None) -> Mapping[str, Any]:
    if pattern is None:
        return {"not": {"pattern": NEVER + _OPTION}}
    return {"pattern": portable_pattern(pattern), "not": {"pattern": NEVER}}

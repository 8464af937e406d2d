"""A check of a value against the part of JSON Schema that the API's document uses; anything else in it fails."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

_TYPES: Mapping[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "null": (type(None),),
}
_UNDERSTOOD = {
    "$ref",
    "additionalProperties",
    "anyOf",
    "default",
    "description",
    "enum",
    "items",
    "maxLength",
    "maxProperties",
    "minLength",
    "minimum",
    "oneOf",
    "pattern",
    "properties",
    "propertyNames",
    "required",
    "title",
    "type",
}


def faults(document: Mapping[str, Any], schema: Mapping[str, Any], value: Any) -> list[str]:
    """Return where `value` does not fit `schema`; references are looked up in `document`."""
    return list(_faults(document, schema, value, "$"))


def _faults(document: Mapping[str, Any], schema: Mapping[str, Any], value: Any, place: str) -> Iterator[str]:
    unknown = set(schema) - _UNDERSTOOD
    assert not unknown, f"this check does not know {unknown}"
    if "$ref" in schema:
        target: Any = document
        for name in schema["$ref"].removeprefix("#/").split("/"):
            target = target[name]
        yield from _faults(document, target, value, place)
        return
    for keyword in ("anyOf", "oneOf"):
        if keyword in schema and all(list(_faults(document, each, value, place)) for each in schema[keyword]):
            yield f"{place} fits none of {keyword}"
    kind = schema.get("type")
    if kind is not None and not _is_of(kind, value):
        yield f"{place} is no {kind}"
        return
    if "enum" in schema and value not in schema["enum"]:
        yield f"{place} is none of {schema['enum']}"
    if "minimum" in schema and value < schema["minimum"]:
        yield f"{place} is less than {schema['minimum']}"
    if isinstance(value, str):
        yield from _text_faults(schema, value, place)
    elif isinstance(value, list):
        for number, member in enumerate(value):
            yield from _faults(document, schema.get("items", {}), member, f"{place}[{number}]")
    elif isinstance(value, dict):
        yield from _object_faults(document, schema, value, place)


def _is_of(kind: str, value: Any) -> bool:
    return isinstance(value, _TYPES[kind]) and (kind in {"boolean", "null"} or not isinstance(value, bool))


def _text_faults(schema: Mapping[str, Any], value: str, place: str) -> Iterator[str]:
    if not schema.get("minLength", 0) <= len(value) <= schema.get("maxLength", len(value)):
        yield f"{place} has a length of {len(value)}"
    if "pattern" in schema and re.search(schema["pattern"], value) is None:
        yield f"{place} does not match {schema['pattern']}"


def _object_faults(
    document: Mapping[str, Any], schema: Mapping[str, Any], value: Mapping[str, Any], place: str
) -> Iterator[str]:
    properties = schema.get("properties", {})
    yield from (f"{place}.{name} is missing" for name in schema.get("required", ()) if name not in value)
    if len(value) > schema.get("maxProperties", len(value)):
        yield f"{place} has {len(value)} members"
    others = schema.get("additionalProperties", True)
    for name, member in value.items():
        yield from _faults(document, schema.get("propertyNames", {}), name, f"the name {place}.{name}")
        if name in properties:
            yield from _faults(document, properties[name], member, f"{place}.{name}")
        elif others is False:
            yield f"{place}.{name} is not known"
        elif isinstance(others, dict):
            yield from _faults(document, others, member, f"{place}.{name}")

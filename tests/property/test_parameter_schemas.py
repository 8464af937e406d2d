"""The JSON Schema of a template's parameters takes what the service takes, and nothing else."""

import re
import sys
from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from service.errors import InvalidRequestError
from service.jobs.model import Limits
from service.jobs.parameters import Parameter, ParameterType
from service.jobs.schemas import parameters_schema
from service.jobs.templates import Template
from service.jobs.texts import unfit_character
from telemetry.audit.canonical import MAX_INTEGER

TEXT, INTEGER, BOOLEAN, ENUM = ParameterType
PARAMETERS = {
    "any": Parameter(name="any", type=TEXT, max_length=12),
    "secret": Parameter(name="secret", type=TEXT, sensitive=True, max_length=200),
    "pattern": Parameter(name="pattern", type=TEXT, pattern=r"[\w-][\w.-]{0,7}|\d+:\S", description="A name."),
    "count": Parameter(name="count", type=INTEGER, minimum=-3, maximum=7, default=1),
    "whole": Parameter(name="whole", type=INTEGER),
    "flag": Parameter(name="flag", type=BOOLEAN, default=False),
    "kind": Parameter(name="kind", type=ENUM, values=("a", "b c")),
}
TEMPLATE = Template(
    name="all",
    description="All kinds of parameters",
    command=("true",),
    parameters=PARAMETERS,
    timeout_ms=1,
    max_attempts=1,
    retry_exit_codes=None,
    requires_confirmation=False,
    distinct_confirmer=False,
    environment={},
    pass_environment=(),
    limits=Limits(memory_bytes=1, cpu_seconds=1, output_bytes=1),
)
SOUND = {"any": "x", "secret": "s", "pattern": "a.b", "whole": 0, "kind": "a"}
SCHEMA = parameters_schema(TEMPLATE)
VALIDATOR = Draft202012Validator(SCHEMA)

texts = st.text(max_size=14) | st.from_regex(r"\A[-a-c.0-9 :\u202e\u00e9\n]{0,14}\Z")
values = texts | st.integers() | st.integers(-5, 9) | st.booleans() | st.none() | st.lists(st.integers(), max_size=1)


def _is_taken(parameters: dict[str, Any]) -> bool:
    try:
        TEMPLATE.check(parameters)
    except InvalidRequestError:
        return False
    return True


def test_the_schema_is_a_schema() -> None:
    """It is valid JSON Schema, 2020-12, and takes what is plainly right."""
    Draft202012Validator.check_schema(SCHEMA)
    assert VALIDATOR.is_valid(SOUND)
    assert _is_taken(SOUND)


@settings(max_examples=400)
@given(name=st.sampled_from(sorted(PARAMETERS)), value=values)
@example(name="any", value="a\n")
@example(name="any", value="-a")
@example(name="any", value="\ud800")
@example(name="any", value="a\u200db")
@example(name="any", value="\u0645\u06cc\u200c\u062e")
@example(name="any", value="a\U000e0041")
@example(name="pattern", value="a\n")
@example(name="pattern", value="-a")
@example(name="pattern", value="٣")
@example(name="secret", value="hmac-sha256:" + "0" * 64)
@example(name="secret", value="x hmac-sha256:" + "0" * 65)
@example(name="whole", value=MAX_INTEGER)
@example(name="whole", value=MAX_INTEGER + 1)
@example(name="count", value=True)
@example(name="flag", value=0)
def test_schema_and_service_agree_on_a_value(name: str, value: Any) -> None:
    """For every kind of parameter and any value of JSON."""
    parameters = {**SOUND, name: value}
    assert VALIDATOR.is_valid(parameters) == _is_taken(parameters)


@given(names=st.sets(st.sampled_from([*PARAMETERS, "other"])))
def test_schema_and_service_agree_on_what_is_there(names: set[str]) -> None:
    """Those without a default are required, and no others are known."""
    parameters = {name: {**SOUND, "count": 1, "flag": True, "other": 1}[name] for name in names}
    assert VALIDATOR.is_valid(parameters) == _is_taken(parameters)


def test_schema_and_service_agree_on_every_character() -> None:
    """Each character of Unicode, the controls and marks of direction among them."""
    never = re.compile(SCHEMA["properties"]["secret"]["not"]["pattern"])
    for character in map(chr, range(sys.maxunicode + 1)):
        is_refused = unfit_character(character) is not None or character == "-"
        assert (never.search(character) is not None) == is_refused, hex(ord(character))

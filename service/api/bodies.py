"""The JSON bodies that clients send, and what their texts and numbers may be."""

from typing import Annotated, Final

from msgspec import Meta, Struct

from service.api.fields import PLAN_SHA256, SHA256, about
from service.api.texts import MAX_INTEGER, is_plain
from service.jobs.model import ParameterValue

MAX_PARAMETERS: Final = 64
Name = Annotated[str, Meta(min_length=1, max_length=128)]


class CreateJob(Struct, frozen=True, forbid_unknown_fields=True):
    """The template to run and its parameters."""

    template: Annotated[Name, about("The name of a template: see `GET /v1/templates`.", "line-count")]
    parameters: Annotated[
        dict[Name, ParameterValue],
        Meta(
            max_length=MAX_PARAMETERS,
            description="A value for each parameter that has no default.",
            examples=[{"path": "/etc/hosts"}],
        ),
    ] = {}

    def __post_init__(self) -> None:
        _require_plain("template", self.template)
        for name, value in self.parameters.items():
            _require_plain("the name of a parameter", name)
            if isinstance(value, str):
                _require_plain(f"parameter {name}", value)
            elif not -MAX_INTEGER <= value <= MAX_INTEGER:
                raise ValueError(f"parameter {name} is outside ±(2^53-1)")


class ConfirmJob(Struct, frozen=True, forbid_unknown_fields=True):
    """The approval of a plan. `confirmed` false changes nothing; `run` false stops at `confirmed`."""

    confirmed: Annotated[bool, about("Whether the plan is approved.", True)]
    plan_sha256: Annotated[
        Annotated[str, Meta(max_length=128, extra_json_schema=SHA256)] | None,
        about("The hash of the plan that is approved; required with `confirmed`.", PLAN_SHA256),
    ] = None
    notes: Annotated[
        Annotated[str, Meta(max_length=4096)] | None,
        about("The reason; the record holds its hash.", "the path is right"),
    ] = None
    run: Annotated[bool, about("Whether the approval also puts the job on the queue.")] = True

    def __post_init__(self) -> None:
        _require_plain("plan_sha256", self.plan_sha256 or "")
        if not is_plain(self.notes or "", line_breaks=True):
            raise ValueError("notes must not hold control characters")


class NoMembers(Struct, frozen=True, forbid_unknown_fields=True):
    """An object without members; no body at all means the same."""


def _require_plain(what: str, text: str) -> None:
    if not is_plain(text):
        raise ValueError(f"{what} must not hold control characters")

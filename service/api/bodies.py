"""The JSON bodies that clients send, and what their texts and numbers may be."""

from typing import Annotated, Final

from msgspec import Meta, Struct

from service.api.fields import PLAN_SHA256, SHA256, about
from service.api.texts import MAX_INTEGER, is_plain
from service.jobs.model import ParameterValue
from service.jobs.texts import is_blank
from service.roles import ROLES

MAX_PARAMETERS: Final = 64
MAX_PROSE_BYTES: Final = 4096
Name = Annotated[str, Meta(min_length=1, max_length=128)]
# The limit is one of bytes, which JSON Schema cannot say.
Prose = Annotated[str, Meta(max_length=MAX_PROSE_BYTES)]
EndField = Annotated[
    str, Meta(min_length=1, max_length=64, extra_json_schema={"pattern": "^[0-9][0-9A-Za-z:. +-]{0,63}$"})
]
PlanHash = Annotated[str, Meta(max_length=128, extra_json_schema=SHA256)]


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
    """The approval of a plan. `confirmed` false rejects it; `run` false stops at `confirmed`."""

    confirmed: Annotated[bool, about("Whether the plan is approved; false rejects it.", True)]
    plan_sha256: Annotated[
        PlanHash | None, about("The hash of the plan that is approved; required with `confirmed` true.", PLAN_SHA256)
    ] = None
    notes: Annotated[
        Prose | None,
        about(
            "What the approver says to it, at most 4096 bytes; with `confirmed` false required: the reason.",
            "the path is right",
        ),
    ] = None
    run: Annotated[bool, about("Whether the approval also puts the job on the queue.")] = True

    def __post_init__(self) -> None:
        _require_plain("plan_sha256", self.plan_sha256 or "")
        _require_prose("notes", self.notes)


class RejectJob(Struct, frozen=True, forbid_unknown_fields=True):
    """The rejection of a plan, for good."""

    reason: Annotated[Prose, about("Why, at most 4096 bytes; not blank.", "the path is wrong", minLength=1)]
    plan_sha256: Annotated[
        PlanHash | None, about("The hash of the plan that is rejected; null for whatever plan it is.", PLAN_SHA256)
    ] = None

    def __post_init__(self) -> None:
        _require_plain("plan_sha256", self.plan_sha256 or "")
        _require_prose("reason", self.reason, is_blank_allowed=False)


class GivenReason(Struct, frozen=True, forbid_unknown_fields=True):
    """The reason of an act; no body at all means that none is given."""

    reason: Annotated[Prose | None, about("Why, at most 4096 bytes; not blank.", "the disk was full", minLength=1)] = (
        None
    )

    def __post_init__(self) -> None:
        _require_prose("reason", self.reason, is_blank_allowed=False)


class CreateKey(Struct, frozen=True, forbid_unknown_fields=True):
    """The API key to create, in the tenant of the caller."""

    name: Annotated[Name, about("Its name: the actor id in records. No other key ever gets it.", "ci-bot")]
    roles: Annotated[
        list[Annotated[Name, Meta(extra_json_schema={"enum": list(ROLES)})]],
        Meta(min_length=1, max_length=len(ROLES), description="Its roles.", examples=[["viewer"]]),
    ]
    expires_at: Annotated[
        EndField | None,
        about("From when on it is refused: a time, a day, or a duration from now (`90d`).", "90d"),
    ] = None
    person: Annotated[
        Annotated[str, Meta(min_length=1, max_length=256)] | None,
        about("Whose key it is, as tokens name the person, for the four-eyes rule.", "anna@example.com"),
    ] = None

    def __post_init__(self) -> None:
        for what, text in (("name", self.name), ("expires_at", self.expires_at), ("person", self.person)):
            _require_plain(what, text or "")


class RotateKey(Struct, frozen=True, forbid_unknown_fields=True):
    """How long the secret before is accepted; no body at all means the default."""

    overlap: Annotated[
        Name | None,
        about("How long the secret before is still accepted: `0s` to `7d`; null is `1h`.", "10m"),
    ] = None

    def __post_init__(self) -> None:
        _require_plain("overlap", self.overlap or "")


class NoMembers(Struct, frozen=True, forbid_unknown_fields=True):
    """An object without members; no body at all means the same."""


OPTIONAL_BODIES: Final[frozenset[type[Struct]]] = frozenset({NoMembers, GivenReason, RotateKey})


def _require_prose(what: str, text: str | None, *, is_blank_allowed: bool = True) -> None:
    if text is None:
        return
    if not is_plain(text, line_breaks=True):
        raise ValueError(f"{what} must not hold control characters")
    size = len(text.encode())
    if size > MAX_PROSE_BYTES:
        raise ValueError(f"{what} must have at most {MAX_PROSE_BYTES} bytes in UTF-8; it has {size}")
    if not is_blank_allowed and is_blank(text):
        raise ValueError(f"{what} must not be blank")


def _require_plain(what: str, text: str) -> None:
    if not is_plain(text):
        raise ValueError(f"{what} must not hold control characters")

"""The route of templates: what may be run, and what each asks for."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final

from msgspec import Struct

from service.api.fields import LIMITS, about
from service.api.problems import refusals
from service.api.request import ApiRequest, Jobs
from service.api.routing import get
from service.jobs.model import Limits
from service.jobs.schemas import DIALECT, NEVER, parameters_schema
from service.jobs.templates import Template

# Of the shipped `line-count`.
_PARAMETERS: Final = {
    "$schema": DIALECT,
    "type": "object",
    "properties": {
        "path": {
            "type": "string",
            "maxLength": 1024,
            "pattern": r"^(?:/(etc|home|srv|tmp|var)(/(\.{0,2}[A-Za-z0-9_\-]|\.{3})[A-Za-z0-9._\-]*)+)$",
            "not": {"pattern": NEVER},
            "description": "A file under /etc, /home, /srv, /tmp or /var, without ..",
        }
    },
    "required": ["path"],
    "additionalProperties": False,
}


class TemplateAnswer(Struct, frozen=True, kw_only=True):
    """A template. `parameters` is the JSON Schema (2020-12) of what a job of it is created with."""

    name: Annotated[str, about("The name of the template.", "line-count")]
    description: Annotated[str, about("What it does.", "Count the lines of a file on the worker")]
    requires_confirmation: Annotated[bool, about("True when an approver must confirm the plan before it runs.", False)]
    distinct_confirmer: Annotated[bool, about("True when the confirmer must not be the creator.", False)]
    requires_person: Annotated[
        bool, about("True when the person of both must be known to tell that they are not the same.", False)
    ]
    timeout_ms: Annotated[int, about("After how many milliseconds a run is stopped.", 30_000)]
    max_attempts: Annotated[int, about("The most runs that one request for a run can cause.", 3)]
    limits: Annotated[Limits, about("What a run may use.", LIMITS)]
    parameters: Annotated[
        Mapping[str, Any],
        about("The JSON Schema (2020-12) of a job's parameters; sensitive values are `writeOnly`.", _PARAMETERS),
    ]


class TemplatesAnswer(Struct, frozen=True):
    """The templates, by name."""

    templates: Annotated[Sequence[TemplateAnswer], about("The templates, by name.")]


@get("/v1/templates", responses=refusals(403))
async def list_templates(request: ApiRequest, jobs: Jobs) -> TemplatesAnswer:
    """List what may be run, by name, each with the JSON Schema of its parameters."""
    jobs.require_allowed()
    templates = request.parts.services.templates.now
    return TemplatesAnswer([template_answer(template) for template in templates.values()])


def template_answer(template: Template) -> TemplateAnswer:
    """Return a template as clients see it: not its command, which the plan of a job shows."""
    return TemplateAnswer(
        name=template.name,
        description=template.description,
        requires_confirmation=template.requires_confirmation,
        distinct_confirmer=template.distinct_confirmer,
        requires_person=template.requires_person,
        timeout_ms=template.timeout_ms,
        max_attempts=template.max_attempts,
        limits=template.limits,
        parameters=parameters_schema(template),
    )

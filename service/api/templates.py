"""The route of templates: what may be run, and what each asks for."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from msgspec import Meta, Struct

from service.api.methods import get
from service.api.parts import parts_of
from service.api.request import ApiRequest, Jobs
from service.jobs.model import Limits
from service.jobs.schemas import parameters_schema
from service.jobs.templates import Template


class TemplateAnswer(Struct, frozen=True, kw_only=True):
    """A template. `parameters` is the JSON Schema (2020-12) of what a job of it is created with."""

    name: Annotated[str, Meta(description="The name of the template.")]
    description: Annotated[str, Meta(description="What it does.")]
    requires_confirmation: Annotated[
        bool, Meta(description="True when an approver must confirm the plan before it runs.")
    ]
    distinct_confirmer: Annotated[bool, Meta(description="True when the confirmer must not be the creator.")]
    timeout_ms: Annotated[int, Meta(description="After how many milliseconds a run is stopped.")]
    max_attempts: Annotated[int, Meta(description="How many runs a request for one may lead to.")]
    limits: Annotated[Limits, Meta(description="What a run may use.")]
    parameters: Annotated[
        Mapping[str, Any],
        Meta(description="The JSON Schema (2020-12) of what a job is created with; sensitive values are `writeOnly`."),
    ]


class TemplatesAnswer(Struct, frozen=True):
    """The templates, by name."""

    templates: Annotated[Sequence[TemplateAnswer], Meta(description="The templates, by name.")]


@get("/v1/templates")
async def list_templates(request: ApiRequest, jobs: Jobs) -> TemplatesAnswer:
    """List what may be run, by name, each with the JSON Schema of its parameters."""
    jobs.require_allowed()
    templates = parts_of(request.scope).services.templates
    known = map(templates.get, templates.names())
    return TemplatesAnswer([template_answer(template) for template in known if template is not None])


def template_answer(template: Template) -> TemplateAnswer:
    """Return a template as clients see it: not its command, which the plan of a job shows."""
    return TemplateAnswer(
        name=template.name,
        description=template.description,
        requires_confirmation=template.requires_confirmation,
        distinct_confirmer=template.distinct_confirmer,
        timeout_ms=template.timeout_ms,
        max_attempts=template.max_attempts,
        limits=template.limits,
        parameters=parameters_schema(template),
    )

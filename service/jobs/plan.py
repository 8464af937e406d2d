"""The plan: exactly what a job would run, as a value that can be shown, hashed and confirmed."""

from collections.abc import Callable, Mapping, Sequence

import msgspec

from service.errors import ConflictError
from service.jobs.model import Content, ParameterValue, Plan
from service.jobs.parameters import MASKED
from service.jobs.placeholders import fill
from service.jobs.templates import Template
from telemetry.audit.canonical import Value, canonical_bytes, sha256_hex


def render_plan(
    template: Template,
    parameters: Mapping[str, ParameterValue],
    inputs: Sequence[Content],
    mask: Callable[[str], str],
) -> Plan:
    """Return the plan of a job; `sha256` is the hash of its `plan_sha256`.

    Args:
        template: as it is now; a later change of the file does not change the plan.
        parameters: a value for each parameter, sensitive ones in their visible form.
        inputs: what the job was given so far; the plan holds their hashes.
        mask: makes the visible form of a sensitive value that is not in it, so that none can get into a plan.

    Raises:
        ConflictError: the template now has a parameter for which the job holds no value.
    """
    missing = [name for name in template.parameters if name not in parameters]
    if missing:
        raise ConflictError(f"the template has changed and now needs {', '.join(missing)}: create the job again")
    texts = {name: _text(value) for name, value in parameters.items()}
    for name in template.sensitive_names:
        if MASKED.fullmatch(texts[name]) is None:
            texts[name] = mask(texts[name])
    unhashed = Plan(
        argv=tuple(fill(argument, texts) for argument in template.command),
        environment=dict(sorted(template.environment.items())),
        pass_environment=template.pass_environment,
        timeout_ms=template.timeout_ms,
        max_attempts=template.max_attempts,
        retry_exit_codes=template.retry_exit_codes,
        limits=template.limits,
        inputs={content.name: content.sha256 for content in sorted(inputs, key=lambda content: content.name)},
        sha256="",
    )
    return msgspec.structs.replace(unhashed, sha256=plan_sha256(unhashed))


def plan_sha256(plan: Plan) -> str:
    """Return SHA-256 over the RFC 8785 text of all other members of the plan, 64 lower-case hex digits.

    The members carry the names of `Plan` and, within `limits`, of `Limits`; `retry_exit_codes` is left out when None.
    """
    members: dict[str, Value] = {
        "argv": plan.argv,
        "environment": plan.environment,
        "pass_environment": plan.pass_environment,
        "timeout_ms": plan.timeout_ms,
        "max_attempts": plan.max_attempts,
        "limits": {
            "memory_bytes": plan.limits.memory_bytes,
            "cpu_seconds": plan.limits.cpu_seconds,
            "output_bytes": plan.limits.output_bytes,
        },
        "inputs": plan.inputs,
    }
    if plan.retry_exit_codes is not None:
        members["retry_exit_codes"] = plan.retry_exit_codes
    return sha256_hex(canonical_bytes(members))


def executable_argv(plan: Plan, secrets: Mapping[str, str]) -> list[str]:
    """Return the argument list to execute: every masked text of the plan replaced by the real value.

    Args:
        plan: as confirmed.
        secrets: the real values, by their masked texts.

    Raises:
        ConflictError: a masked text stands for a value that is not among `secrets`.
    """

    def real(masked: str) -> str:
        try:
            return secrets[masked]
        except KeyError:
            raise ConflictError("the value of a sensitive parameter is not stored: create the job again") from None

    return [MASKED.sub(lambda match: real(match[0]), argument) for argument in plan.argv]


def run_environment(plan: Plan, available: Mapping[str, str]) -> dict[str, str]:
    """Return the plan's variables: those it fixes, and of the worker's `available` ones those that it lets through.

    A variable that the worker does not have is not set; a fixed value wins over one let through.
    """
    passed = {name: available[name] for name in plan.pass_environment if name in available}
    return {**passed, **plan.environment}


def _text(value: ParameterValue) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)

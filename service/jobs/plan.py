"""The plan of a job: exactly what a run executes, as a value that can be shown, hashed and confirmed."""

from collections.abc import Callable, Mapping, Sequence

import msgspec

from service.errors import ConflictError
from service.jobs.model import Content, ParameterValue, Plan
from service.jobs.parameters import MASKED
from service.jobs.placeholders import fill
from service.jobs.templates import Template
from service.jobs.texts import unfit_character
from telemetry.audit.canonical import Value, canonical_bytes, sha256_hex


def render_plan(
    template: Template,
    parameters: Mapping[str, ParameterValue],
    inputs: Sequence[Content],
    mask: Callable[[str], str],
) -> Plan:
    """Return the plan of a job; its `sha256` is the result of `plan_sha256`.

    Args:
        template: the present template; a later change of the file does not change the plan.
        parameters: a value for each parameter; sensitive values in masked form.
        inputs: the inputs of the job so far; the plan holds their hashes.
        mask: returns the masked form of a sensitive value that is not masked yet, so that no plan can hold one.

    Raises:
        ConflictError: the template now has a parameter for which the job holds no value, or an older version took a
            value that no plan may hold.
    """
    missing = [name for name in template.parameters if name not in parameters]
    if missing:
        raise ConflictError(f"the template has changed and now needs {', '.join(missing)}: create the job again")
    texts = {name: _text(value) for name, value in parameters.items()}
    for name, text in texts.items():
        if unfit_character(text) is not None:
            raise ConflictError(f"{name} holds {unfit_character(text)}, which cannot be seen: create the job again")
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
        network=template.network,
        reads=template.reads,
        writes=template.writes,
    )
    return msgspec.structs.replace(unhashed, sha256=plan_sha256(unhashed))


def plan_text(plan: Plan) -> str:
    """Return the RFC 8785 text of all members of the plan except `sha256`.

    The members have the names of `Plan` and, within `limits`, of `Limits`; `retry_exit_codes` is left out when None,
    `network` when false, `reads` and `writes` when empty, and limits that the plan of an older version does not state.
    """
    plain: dict[str, Value | None] = msgspec.to_builtins(plan)
    members = {name: value for name, value in plain.items() if name != "sha256" and value is not None}
    return canonical_bytes(members).decode()


def plan_sha256(plan: Plan) -> str:
    """Return SHA-256 over the UTF-8 bytes of `plan_text`, 64 lower-case hex digits."""
    return sha256_hex(plan_text(plan).encode())


def executable_argv(plan: Plan, secrets: Mapping[str, str]) -> list[str]:
    """Return the argument list to execute: in it, the real value replaces every masked text of the plan.

    Args:
        plan: the confirmed plan.
        secrets: the real values, by their masked texts.

    Raises:
        ConflictError: `secrets` holds no value for a masked text.
    """

    def real(masked: str) -> str:
        try:
            return secrets[masked]
        except KeyError:
            raise ConflictError("the value of a sensitive parameter is not stored: create the job again") from None

    return [MASKED.sub(lambda match: real(match[0]), argument) for argument in plan.argv]


def run_environment(plan: Plan, available: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of a run: the variables of the plan, and those that it passes on from `available`.

    A variable that is not in `available`, the worker's environment, is not set. A value of the plan comes first.
    """
    passed = {name: available[name] for name in plan.pass_environment if name in available}
    return {**passed, **plan.environment}


def _text(value: ParameterValue) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)

"""The templates, by which operators allow what runs: read from `jobs.toml`, and checked as a whole."""

import re
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Final, TypeAlias

import msgspec

from service.errors import InvalidRequestError, SettingsError
from service.jobs.model import (
    DEFAULT_FOLDER_FILES,
    DEFAULT_OPEN_FILES,
    DEFAULT_PROCESSES,
    Limits,
    ParameterValue,
)
from service.jobs.parameters import MASKED, Parameter, read_parameter
from service.jobs.placeholders import PARAMETER_NAME, placeholders
from service.jobs.tables import Table
from service.units import parse_duration_ms, parse_size_bytes

DEFAULT_ATTEMPTS: Final = 3
_TEMPLATE_NAME: Final = re.compile(r"[a-z0-9-]{1,64}")
_VARIABLE_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_SET_BY_THE_RUNNER: Final = re.compile(r"TRACEPARENT|TRACESTATE|HOME|TMPDIR|AUDITRACE_.*")
_SHOWN_UNKNOWN: Final = 10
_PERSON: Final = "person"
_KEYS: Final = (
    "description",
    "command",
    "parameters",
    "timeout",
    "max_attempts",
    "retry_exit_codes",
    "requires_confirmation",
    "distinct_confirmer",
    "environment",
    "pass_environment",
    "limits",
    "network",
    "reads",
    "writes",
)
_NEVER_SHOWN: Final = ("/proc", "/sys", "/dev")


class Template(msgspec.Struct, frozen=True, kw_only=True):
    """A command that may run, and its limits; with `retry_exit_codes` None, every failure may be retried."""

    name: str
    description: str
    command: tuple[str, ...]
    parameters: Mapping[str, Parameter]
    timeout_ms: int
    max_attempts: int
    retry_exit_codes: tuple[int, ...] | None
    requires_confirmation: bool
    distinct_confirmer: bool
    requires_person: bool = False
    """Whether `distinct_confirmer` needs to know the person of both; the file says `distinct_confirmer = "person"`."""
    environment: Mapping[str, str]
    pass_environment: tuple[str, ...]
    limits: Limits
    network: bool = False
    """Whether a run has the network of the worker; else it has none."""
    reads: tuple[str, ...] = ()
    writes: tuple[str, ...] = ()
    """The folders of the worker that a run may read, or change. With any of them it keeps the user of the service."""

    @property
    def sensitive_names(self) -> frozenset[str]:
        """The parameters whose values leave the service in masked form only."""
        return frozenset(name for name, parameter in self.parameters.items() if parameter.sensitive)

    def check(self, raw: Mapping[str, object]) -> Mapping[str, ParameterValue]:
        """Return a value for every parameter, defaults included, in the order of the template.

        Raises:
            InvalidRequestError: names every parameter that is unknown, missing or wrong, without its value.
        """
        unknown = [name for name in raw if name not in self.parameters]
        problems = [f"{name[:64]!r} is not a parameter of {self.name}" for name in unknown[:_SHOWN_UNKNOWN]]
        checked: dict[str, ParameterValue] = {}
        for name, parameter in self.parameters.items():
            if name in raw:
                try:
                    checked[name] = parameter.check(raw[name])
                except ValueError as error:
                    problems.append(f"{name} {error}")
            elif parameter.default is not None:
                checked[name] = parameter.default
            else:
                problems.append(f"{name} is required")
        if problems:
            raise InvalidRequestError("; ".join(problems))
        return checked

    def describe(self) -> dict[str, object]:
        """Return the template as a plain structure for `auditrace templates --json`."""
        plain: dict[str, object] = msgspec.json.decode(msgspec.json.encode(self))
        return {**plain, "parameters": {name: parameter.describe() for name, parameter in self.parameters.items()}}


Templates: TypeAlias = Mapping[str, Template]
"""The templates of a file, by name and in the order of their names."""


def templates_of(content: dict[str, object]) -> Templates:
    """Return the templates that the content of a TOML file declares.

    Raises:
        SettingsError: lists every problem of the content, each with its place.
    """
    problems: list[str] = []
    root = Table("", content, problems)
    root.allow(("templates",))
    declared = root.table("templates")
    templates = {name: _template(name, declared) for name in declared.names}
    if problems:
        raise SettingsError(problems)
    return dict(sorted(templates.items()))


def _template(name: str, declared: Table) -> Template:
    table = declared.table(name)
    if _TEMPLATE_NAME.fullmatch(name) is None:
        declared.complain(name, "a name has 1 to 64 lower-case letters, digits and hyphens")
    table.allow(_KEYS)
    parameters = _parameters(table.table("parameters"))
    distinct_confirmer, requires_person = _distinct_confirmer(table)
    template = Template(
        name=name,
        description=table.require("description", str, ""),
        command=_command(table, parameters),
        parameters=parameters,
        timeout_ms=table.parsed("timeout", "5m", parse_duration_ms, 1, 7 * 86_400_000),
        max_attempts=table.number("max_attempts", DEFAULT_ATTEMPTS, 1, 100),
        retry_exit_codes=_retry_exit_codes(table),
        requires_confirmation=table.take("requires_confirmation", bool, False),
        distinct_confirmer=distinct_confirmer,
        requires_person=requires_person,
        environment=_environment(table),
        pass_environment=table.take("pass_environment", tuple[str, ...], ()),
        limits=_limits(table.table("limits")),
        network=table.take("network", bool, False),
        reads=_folders(table, "reads"),
        writes=_folders(table, "writes"),
    )
    table.require_seen("description", template.description)
    for variable in template.pass_environment:
        _check_variable(table, "pass_environment", variable)
    if template.distinct_confirmer and not template.requires_confirmation:
        table.complain("distinct_confirmer", "has no effect without requires_confirmation = true")
    return template


def _distinct_confirmer(table: Table) -> tuple[bool, bool]:
    """Return whether the confirmer must not be the creator, and whether the person of both must be known."""
    given = table.raw("distinct_confirmer")
    if given is not None and not isinstance(given, bool) and given != _PERSON:
        table.complain("distinct_confirmer", f'must be true, false or "{_PERSON}"')
        return False, False
    return bool(given), given == _PERSON


def _parameters(table: Table) -> dict[str, Parameter]:
    parameters: dict[str, Parameter] = {}
    for name in table.names:
        if PARAMETER_NAME.fullmatch(name) is None:
            table.complain(name, "a name has 1 to 64 lower-case letters, digits and underscores, a letter first")
        parameters[name] = read_parameter(name, table.table(name))
    return parameters


def _command(table: Table, parameters: Mapping[str, Parameter]) -> tuple[str, ...]:
    command = table.require("command", tuple[str, ...], ("true",))
    if not command or not command[0]:
        table.complain("command", "must name a program")
        return command
    for position, argument in enumerate(command):
        table.require_seen("command", argument, f"argument {position}")
        if MASKED.search(argument):
            table.complain("command", f"argument {position} holds the form of a masked value")
        try:
            named = placeholders(argument)
        except ValueError as error:
            table.complain("command", f"argument {position}: {error}")
            continue
        if named and position == 0:
            table.complain("command", "the program itself cannot be a placeholder")
        for name in named:
            if name not in parameters:
                table.complain("command", f"argument {position}: {{{name}}} is not a parameter of this template")
    return command


def _retry_exit_codes(table: Table) -> tuple[int, ...] | None:
    if not table.has("retry_exit_codes"):
        return None
    codes = table.take("retry_exit_codes", tuple[int, ...], ())
    if any(not 1 <= code <= 255 for code in codes):
        table.complain("retry_exit_codes", "exit codes of failures are from 1 to 255")
    return codes


def _environment(table: Table) -> dict[str, str]:
    environment = table.take("environment", dict[str, str], {})
    for name, value in environment.items():
        _check_variable(table, "environment", name)
        table.require_seen("environment", value, f"the value of {name}")
    return environment


def _folders(table: Table, key: str) -> tuple[str, ...]:
    folders = table.take(key, tuple[str, ...], ())
    for folder in folders:
        table.require_seen(key, folder, "a folder", line_breaks=False)
        path = PurePosixPath(folder)
        if not path.is_absolute() or str(path) != folder or ".." in path.parts or len(path.parts) == 1:
            table.complain(key, f"{folder!r} is not the absolute path of a folder below /, without . and ..")
        elif any(path.is_relative_to(never) for never in _NEVER_SHOWN):
            table.complain(key, f"{folder!r} belongs to the kernel: {', '.join(_NEVER_SHOWN)} cannot be given")
    return folders


def _check_variable(table: Table, key: str, name: str) -> None:
    if _VARIABLE_NAME.fullmatch(name) is None:
        table.complain(key, f"{name!r} is not the name of a variable")
    elif _SET_BY_THE_RUNNER.fullmatch(name):
        table.complain(key, f"{name} is set for each run and cannot be given")


def _limits(table: Table) -> Limits:
    table.allow(("memory", "cpu_seconds", "output", "processes", "open_files", "folder", "folder_files"))
    return Limits(
        memory_bytes=table.parsed("memory", "512MiB", parse_size_bytes, 2**20, 2**40),
        cpu_seconds=table.number("cpu_seconds", 300, 1, 7 * 86_400),
        output_bytes=table.parsed("output", "8MiB", parse_size_bytes, 2**10, 2**30),
        processes=table.number("processes", DEFAULT_PROCESSES, 1, 32_768),
        open_files=table.number("open_files", DEFAULT_OPEN_FILES, 16, 2**20),
        folder_bytes=table.parsed("folder", "1GiB", parse_size_bytes, 2**20, 2**40),
        folder_files=table.number("folder_files", DEFAULT_FOLDER_FILES, 64, 1_000_000),
    )

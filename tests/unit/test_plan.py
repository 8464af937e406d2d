"""A plan shows exactly what would run, without secrets, under a hash that covers all of it."""

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec
import pytest
import rfc8785

from service.bootstrap.templates import load_templates
from service.errors import ConflictError
from service.jobs.model import Content, Limits, Plan
from service.jobs.plan import executable_argv, plan_sha256, plan_text, render_plan, run_environment
from service.jobs.templates import Template

TEMPLATE = """
[templates.copy]
description = "d"
command = ["copy", "--to={target}", "{token}", "{{literal}}", "{count}{flag}", "x {target}"]
environment = { B = "2", A = "1" }
pass_environment = ["TZ", "LANG"]
[templates.copy.parameters]
target = { type = "string" }
token = { type = "string", sensitive = true }
count = { type = "integer" }
flag = { type = "boolean" }
"""
INPUTS = (Content("b.csv", 1, "b" * 64), Content("a.csv", 1, "a" * 64))


def _mask(value: str) -> str:
    return f"hmac-sha256:{hashlib.sha256(value.encode()).hexdigest()}"


@pytest.fixture
def template(tmp_path: Path) -> Template:
    """A template with a placeholder of each kind."""
    path = tmp_path / "jobs.toml"
    path.write_text(TEMPLATE, "utf-8")
    loaded = load_templates(path).get("copy")
    assert loaded is not None
    return loaded


def _plan(template: Template, target: str = "/srv/a b", token: str = "s3cret") -> Plan:
    parameters = {"target": target, "token": _mask(token), "count": 3, "flag": True}
    return render_plan(template, parameters, INPUTS, _mask)


def test_arguments_are_filled_without_a_shell(template: Template) -> None:
    """A parameter fills its placeholder within its argument, spaces and all; doubled braces are braces."""
    assert _plan(template).argv == (
        "copy",
        "--to=/srv/a b",
        _mask("s3cret"),
        "{literal}",
        "3true",
        "x /srv/a b",
    )


def test_a_value_is_never_taken_for_a_placeholder(template: Template) -> None:
    """What a client sends is text: braces in it name no other parameter."""
    assert _plan(template, target="{token}{{").argv[1] == "--to={token}{{"


def test_the_hash_is_that_of_the_canonical_json_of_all_else(template: Template) -> None:
    """A stranger can compute the hash with any RFC 8785 implementation from the plan as it is shown."""
    plan = _plan(template)
    shown = msgspec.to_builtins(plan)
    stated = shown.pop("sha256")
    if shown["retry_exit_codes"] is None:
        del shown["retry_exit_codes"]
    assert hashlib.sha256(rfc8785.dumps(shown)).hexdigest() == stated


@pytest.mark.parametrize(
    "change",
    [
        lambda plan: msgspec.structs.replace(plan, argv=("other", *plan.argv[1:])),
        lambda plan: msgspec.structs.replace(plan, environment={"A": "1"}),
        lambda plan: msgspec.structs.replace(plan, pass_environment=("TZ",)),
        lambda plan: msgspec.structs.replace(plan, timeout_ms=plan.timeout_ms + 1),
        lambda plan: msgspec.structs.replace(plan, max_attempts=plan.max_attempts + 1),
        lambda plan: msgspec.structs.replace(plan, retry_exit_codes=()),
        lambda plan: msgspec.structs.replace(plan, limits=Limits(memory_bytes=1, cpu_seconds=1, output_bytes=1)),
        *(
            lambda plan, name=name: msgspec.structs.replace(
                plan, limits=msgspec.structs.replace(plan.limits, **{name: 77})
            )
            for name in ("processes", "open_files", "folder_bytes", "folder_files")
        ),
        lambda plan: msgspec.structs.replace(plan, inputs={**plan.inputs, "a.csv": "c" * 64}),
    ],
)
def test_the_hash_covers_every_member(template: Template, change: Callable[[Plan], Plan]) -> None:
    """Whatever member of a plan changes, the hash that was confirmed no longer fits."""
    plan = _plan(template)
    assert plan_sha256(plan) == plan.sha256
    assert plan_sha256(change(plan)) != plan.sha256


def test_a_plan_of_an_older_version_keeps_its_hash() -> None:
    """A stored plan without the limits that came later is read and written again as it was, and confirmed as it was."""
    stored = (
        b'{"argv":["wc","-l","--","/etc/hosts"],"environment":{"LC_ALL":"C"},"pass_environment":[],"timeout_ms":30000,'
        b'"max_attempts":3,"retry_exit_codes":[],'
        b'"limits":{"memory_bytes":67108864,"cpu_seconds":30,"output_bytes":65536},"inputs":{},'
        b'"sha256":"9d6254a53caff17c034dda3c296fefaeb07608bfa3cc03540bc54570686136dd"}'
    )
    plan = msgspec.json.decode(stored, type=Plan)
    assert plan_sha256(plan) == plan.sha256
    assert msgspec.json.encode(plan) == stored
    assert plan_sha256(msgspec.structs.replace(plan, limits=msgspec.structs.replace(plan.limits, processes=1))) != (
        plan.sha256
    )


def test_the_text_of_a_plan_is_what_is_hashed(template: Template) -> None:
    """A record holds this text: its SHA-256 is the hash that is confirmed, and no secret stands in it."""
    plan = _plan(template)
    text = plan_text(plan)
    assert hashlib.sha256(text.encode()).hexdigest() == plan.sha256
    assert "s3cret" not in text
    assert _mask("s3cret") in text
    assert "sha256" not in msgspec.json.decode(text)


def test_a_value_that_hides_something_gets_into_no_plan(template: Template) -> None:
    """What an older version took, and this one would refuse, is refused at the draft."""
    parameters = {"target": "/a\u200b", "token": _mask("s3cret"), "count": 3, "flag": True}
    with pytest.raises(ConflictError, match=r"target holds U\+200B.*create the job again"):
        render_plan(template, parameters, (), _mask)


def test_the_same_job_has_the_same_plan(template: Template) -> None:
    """The order in which inputs were uploaded does not change the hash; another secret does."""
    parameters = {"target": "/a", "token": _mask("s3cret"), "count": 3, "flag": True}
    one = render_plan(template, parameters, INPUTS, _mask)
    other = render_plan(template, dict(reversed(parameters.items())), INPUTS[::-1], _mask)
    assert one == other
    assert list(one.inputs) == ["a.csv", "b.csv"]
    assert _plan(template, token="other").sha256 != _plan(template).sha256


def test_a_secret_is_put_in_only_for_the_execution(template: Template) -> None:
    """The plan holds the masked text, the executed command the real value."""
    plan = _plan(template)
    assert "s3cret" not in str(plan)
    assert executable_argv(plan, {_mask("s3cret"): "s3cret"})[2] == "s3cret"


def test_a_real_value_is_not_searched_for_masks(template: Template) -> None:
    """A secret that looks like the mask of another stays what it is."""
    plan = _plan(template)
    assert executable_argv(plan, {_mask("s3cret"): _mask("other"), _mask("other"): "no"})[2] == _mask("other")


def test_a_secret_that_is_not_stored_stops_the_run(template: Template) -> None:
    """A command never runs with a mask in place of the value."""
    with pytest.raises(ConflictError, match="not stored"):
        executable_argv(_plan(template), {})


def test_a_value_that_became_sensitive_is_masked(template: Template) -> None:
    """A sensitive value that was not masked before does not get into the plan."""
    parameters = {"target": "/a", "token": "s3cret", "count": 3, "flag": True}
    assert render_plan(template, parameters, (), _mask).argv[2] == _mask("s3cret")


def test_a_template_that_changed_since_is_a_conflict(template: Template) -> None:
    """A job without a value for a parameter that its template now has gets no plan, and is told which."""
    with pytest.raises(ConflictError, match="needs token, flag"):
        render_plan(template, {"target": "/a", "count": 3}, (), _mask)


def test_only_named_variables_are_let_through(template: Template) -> None:
    """Of the worker's environment a run sees the named variables that exist; a fixed value wins."""
    available = {"TZ": "UTC", "SECRET": "x", "A": "worker"}
    assert run_environment(_plan(template), available) == {"TZ": "UTC", "A": "1", "B": "2"}


def test_a_plan_without_the_newer_members_keeps_its_hash() -> None:
    """A stored plan without the members that are newer has the text and the hash that it was confirmed with."""
    members = {
        "argv": ["true"],
        "environment": {},
        "pass_environment": [],
        "timeout_ms": 1000,
        "max_attempts": 1,
        "retry_exit_codes": None,
        "limits": {"memory_bytes": 1, "cpu_seconds": 1, "output_bytes": 1},
        "inputs": {},
    }
    hashed = rfc8785.dumps({name: value for name, value in members.items() if value is not None})
    stored = {**members, "sha256": hashlib.sha256(hashed).hexdigest()}
    plan = msgspec.convert(stored, Plan)
    assert plan_sha256(plan) == stored["sha256"]
    assert msgspec.to_builtins(plan) == {**stored, "argv": ("true",), "pass_environment": ()}


@pytest.mark.parametrize("more", [{"network": True}, {"reads": ("/srv",)}, {"writes": ("/srv",)}])
def test_the_hash_covers_what_a_run_may_reach(template: Template, more: Mapping[str, object]) -> None:
    """Who confirms a plan confirms its network and its folders: they are in its text."""
    plan = _plan(template)
    other = msgspec.structs.replace(plan, **more)
    assert plan_sha256(other) != plan_sha256(plan)
    (name,) = more
    assert f'"{name}":' in plan_text(other)
    assert f'"{name}":' not in plan_text(plan)

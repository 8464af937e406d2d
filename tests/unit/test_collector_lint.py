"""Each rule of the collector's lint finds the one setting that breaks it, and the shipped files break none."""

import copy
import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from deploy.otelcol.lint.__main__ import main, shipped
from deploy.otelcol.lint.configuration import Configuration
from deploy.otelcol.lint.files import load
from deploy.otelcol.lint.rules import RULES, findings
from tests.unit.lint_breaks import BREAKS, GONE, PIPELINES, QUEUE, RETRY, Break


def changed(tree: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return a copy of a configuration with these settings changed, added or taken out."""
    copied: dict[str, Any] = copy.deepcopy(dict(tree))
    for place, value in changes.items():
        *path, last = (int(step) if step.isdigit() else step for step in place.split("::"))
        here: Any = copied
        for step in path:
            here = here[step] if isinstance(step, int) else here.setdefault(step, {})
        if value is GONE:
            del here[last]
        else:
            here[last] = copy.deepcopy(value)
    return copied


@functools.cache
def configuration(name: str) -> Configuration:
    """Return one of the shipped configurations."""
    return load(*shipped()[name])


@pytest.mark.parametrize("name", list(shipped()))
def test_the_shipped_configuration_breaks_no_rule(name: str) -> None:
    """Base and overlays are what the lint asks for."""
    assert [str(finding) for finding in findings(configuration(name))] == []


@pytest.mark.parametrize("case", BREAKS, ids=str)
def test_a_setting_breaks_its_rule_and_no_other(case: Break) -> None:
    """The change is found, once, at its place, and by exactly the rule that is about it."""
    intact = configuration(case.of)
    components = intact.components if case.rule == "manifest" else None
    found = findings(Configuration(changed(intact.tree, case.changes), components))
    (only,) = case.changes if case.at is None else (case.at,)
    assert [(finding.rule.id, finding.place) for finding in found] == [(case.rule, only)]


def test_old_names_are_found_and_judged_like_the_present_ones() -> None:
    """A component under its old name is a finding, and the rules about it hold all the same."""
    intact = configuration("base")
    changes = {
        "exporters::otlphttp/audit_store": intact.at("exporters", "otlp_http/audit_store"),
        "exporters::otlphttp/audit_store::sending_queue::storage": GONE,
        f"{PIPELINES}::logs/audit::exporters": ["file/audit_archive", "otlphttp/audit_store"],
        "connectors::spanmetrics": {},
        "exporters::otlp": {},
    }
    found = findings(Configuration(changed(intact.tree, changes)))
    assert [(finding.rule.id, finding.place) for finding in found] == [
        ("queue-storage", "exporters::otlphttp/audit_store::sending_queue::storage"),
        ("current-names", "exporters::otlphttp/audit_store"),
        ("current-names", "exporters::otlp"),
        ("current-names", "connectors::spanmetrics"),
    ]


def test_every_rule_is_broken_by_a_test() -> None:
    """No rule is there that cannot fail."""
    assert {case.rule for case in BREAKS} | {"current-names"} == {rule.id for rule in RULES}


def test_every_rule_says_why_and_what_to_do() -> None:
    """Ids are unique, and a finding's one line names place, remedy, reason and id."""
    assert len({rule.id for rule in RULES}) == len(RULES)
    intact = configuration("base")
    (finding,) = findings(Configuration(changed(intact.tree, {f"{QUEUE}::storage": GONE}), intact.components))
    assert str(finding) == (
        "exporters::otlp_http/audit_store::sending_queue::storage: name a file_storage extension as storage, or switch "
        "the queue off, because a queue in memory acknowledges records and loses them when the process ends "
        "[queue-storage]"
    )


@pytest.fixture
def overlay(tmp_path: Path) -> Path:
    """A file that an operator might lay over the shipped configuration."""
    path = tmp_path / "mine.yaml"
    path.write_text("exporters: {otlp_http/audit_store: {retry_on_failure: {max_elapsed_time: 1h}}}\n", "utf-8")
    return path


def test_the_command_judges_what_is_shipped(capsys: pytest.CaptureFixture[str]) -> None:
    """Without arguments it judges base and overlays, says how many rules it applied, and ends with 0."""
    assert main([]) == 0
    assert capsys.readouterr().out == f"findings: 0, rules: {len(RULES)}, configurations: 5\n"


def test_the_command_judges_an_operators_own_files(overlay: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Files are merged in their order as the collector merges them; a finding ends the command with 1."""
    ((base,), _) = shipped()["base"]
    assert main([str(base), str(overlay)]) == 1
    out = capsys.readouterr().out.splitlines()
    assert out[0].startswith(f"{base} + {overlay}: {RETRY}::max_elapsed_time: set max_elapsed_time: 0s")
    assert out[1] == f"findings: 1, rules: {len(RULES)}, configurations: 1"


@pytest.mark.parametrize(
    ("content", "told"),
    [("receivers: [", "expected the node content"), ("- one\n- two\n", "holds no mapping"), (None, "No such file")],
    ids=["no YAML", "a list", "missing"],
)
def test_a_file_that_cannot_be_read_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str | None, told: str
) -> None:
    """The command ends with 2 and says which file it is and what is wrong with it."""
    path = tmp_path / "wrong.yaml"
    if content is not None:
        path.write_text(content, "utf-8")
    assert main([str(path)]) == 2
    err = capsys.readouterr().err
    assert err.startswith(f"lint: {path}: ")
    assert told in err


def test_the_command_lists_its_rules(capsys: pytest.CaptureFixture[str]) -> None:
    """`--rules` prints each rule's id, reason and remedy."""
    assert main(["--rules"]) == 0
    out = capsys.readouterr().out
    for rule in RULES:
        assert f"{rule.id}\n  why: {rule.reason}\n  do:  {rule.remedy}\n" in out

"""The alert rules, judged by Prometheus's own tool, and their names held to what is really exported and documented."""

import re
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.collector import ROOT, require_binary

ALERTS = ROOT / "deploy" / "alerts"
RULES = sorted(ALERTS.glob("*.rules.yaml"))
TESTS = sorted(ALERTS.glob("*.test.yaml"))
RUNBOOK = ROOT / "docs" / "runbook.md"


def alerts() -> Iterator[Mapping[str, Any]]:
    """Yield every alert rule."""
    for path in RULES:
        for group in yaml.safe_load(path.read_text())["groups"]:
            yield from group["rules"]


def promtool(*arguments: str | Path, cwd: Path | None = None) -> "subprocess.CompletedProcess[str]":
    """Run promtool, as `make tools` built it."""
    binary = require_binary("promtool", "make tools")
    return subprocess.run([binary, *arguments], capture_output=True, text=True, check=False, cwd=cwd)


def test_the_rules_are_valid() -> None:
    """Prometheus takes the files as they are, and its linter has nothing to say."""
    done = promtool("check", "rules", "--lint=all", "--lint-fatal", *RULES)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("path", TESTS, ids=lambda path: path.name)
def test_each_alert_fires_when_it_should_and_only_then(path: Path) -> None:
    """`promtool test rules` plays series against the rules."""
    done = promtool("test", "rules", path)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_is_played_through_firing_and_silent() -> None:
    """No alert is without a series that fires it, nor without a moment at which it must be quiet."""
    fired: set[str] = set()
    quiet: set[str] = set()
    for path in TESTS:
        for test in yaml.safe_load(path.read_text())["tests"]:
            for case in test["alert_rule_test"]:
                (fired if case["exp_alerts"] else quiet).add(case["alertname"])
    names = {alert["alert"] for alert in alerts()}
    assert (fired, quiet) == (names, names)


@pytest.mark.parametrize("rules", RULES, ids=lambda path: path.name)
def test_the_test_would_notice_a_wrong_limit(rules: Path, tmp_path: Path) -> None:
    """With every limit a thousand times higher the same series no longer fire: the tests do not pass by themselves."""
    raised = re.sub(r"> (\d[\d.]*)", lambda found: f"> {float(found[1] or 0) * 1000 + 1000}", rules.read_text())
    (tmp_path / rules.name).write_text(raised.replace("< 1073741824", "< 1"))
    test = rules.with_name(rules.name.replace(".rules.", ".test."))
    (tmp_path / test.name).write_text(test.read_text())
    assert promtool("test", "rules", test.name, cwd=tmp_path).returncode == 1


def test_every_alert_leads_to_its_section_of_the_runbook() -> None:
    """Each link ends at a heading; and no section is for an alert that does not exist."""
    headings = re.findall(r"^## (\w+)$", RUNBOOK.read_text(), re.MULTILINE)
    linked = {alert["annotations"]["runbook_url"] for alert in alerts()}
    assert linked == {f"docs/runbook.md#{heading.lower()}" for heading in headings}


def test_every_alert_says_how_bad_it_is_and_what_it_means() -> None:
    """Severity, summary and description are there, so that whoever is woken knows."""
    for alert in alerts():
        assert alert["labels"]["severity"] in {"warning", "critical"}, alert["alert"]
        assert set(alert["annotations"]) == {"summary", "description", "runbook_url"}, alert["alert"]


def links(text: str) -> Sequence[str]:
    """Return the targets of the links within a document and to its neighbours."""
    return re.findall(r"\]\(([^)]*#[^)]+)\)", text)


def anchors(text: str) -> set[str]:
    """Return the anchors of a document's headings, as Git forges make them."""
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("name", ["runbook.md", "correlation.md"])
def test_links_between_the_documents_lead_somewhere(name: str) -> None:
    """Whoever follows a link at three in the morning arrives."""
    document = ROOT / "docs" / name
    for link in links(document.read_text()):
        target, anchor = link.split("#")
        found = document if not target else document.parent / target
        assert anchor in anchors(found.read_text()), link

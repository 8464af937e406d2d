"""docs/audit-format.md has a table of the events, and the registry is its source."""

import re
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]
ROW = re.compile(r"^\| `([a-z._]+)` \| ([A-Z]+) \| ([^|]*)\|$", re.MULTILINE)


def test_the_document_has_each_event_with_its_action_and_changes() -> None:
    """An auditor finds in one table what each event may hold, in the order of the registry."""
    events = yaml.safe_load((ROOT / "telemetry" / "registry" / "events.yaml").read_text("utf-8"))["events"]
    rows = ROW.findall((ROOT / "docs" / "audit-format.md").read_text("utf-8"))
    assert [(name, action, re.findall(r"`([a-z_0-9]+)`", changes)) for name, action, changes in rows] == [
        (event["name"], event["action"], event["changes"]) for event in events
    ]

"""docs/audit-format.md has a table of the events and one of their fields, and the registry is the source of both."""

import re
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
ROW = re.compile(r"^\| `([a-z._]+)` \| ([A-Z]+) \| ([^|]*)\|$", re.MULTILINE)
FIELDS = re.compile(r"^\| field of `auditrace\.changes` \| type \| meaning \|\n\|[-|]+\n((?:\|.*\n)+)", re.MULTILINE)
FIELD = re.compile(r"\| `([a-z_0-9]+)` \| [a-z ]+ \| [^|]+ \|")


def test_the_document_has_each_event_with_its_action_and_changes() -> None:
    """An auditor finds in one table what each event may hold, in the order of the registry."""
    events = _events()
    rows = ROW.findall(_document())
    assert [(name, action, re.findall(r"`([a-z_0-9]+)`", changes)) for name, action, changes in rows] == [
        (event["name"], event["action"], event["changes"]) for event in events
    ]


def test_the_document_says_of_each_field_of_the_changes_what_it_holds() -> None:
    """Each field has one row, with its type and meaning, in the order in which the registry first names it."""
    (table,) = FIELDS.findall(_document())
    rows = [FIELD.fullmatch(row) for row in table.splitlines()]
    fields = list(dict.fromkeys(field for event in _events() for field in event["changes"]))
    assert [row and row[1] for row in rows] == fields


def _events() -> list[Any]:
    return list(yaml.safe_load((ROOT / "telemetry" / "registry" / "events.yaml").read_text("utf-8"))["events"])


def _document() -> str:
    return (ROOT / "docs" / "audit-format.md").read_text("utf-8")

"""The mapping for OpenSearch knows every attribute of a record, and nothing else decides a field's type."""

import json
from typing import Any

from telemetry import names
from tests.support.opensearch import SCRIPTS

MAPPINGS: dict[str, Any] = json.loads((SCRIPTS / "template.json").read_text("utf-8"))["template"]["mappings"]
TYPES = {"string": "keyword", "string[]": "keyword", "int": "long", "tips": "object", "changes": None}


def test_every_attribute_of_a_record_has_its_type() -> None:
    """Each attribute that may stand in a body, and those beside it, are mapped, and no others."""
    beside = {names.AUDIT_INTEGRITY_HASH: "keyword", names.AUDIT_INTEGRITY_VALUE: "keyword"}
    mapped = {name: mapping.get("type") for name, mapping in MAPPINGS["properties"]["attributes"]["properties"].items()}
    assert mapped == {name: TYPES[kind] for name, kind in names.BODY_ATTRIBUTES.items()} | beside


def test_no_record_makes_a_field() -> None:
    """What is not mapped is stored and not looked at, so that the first record of a month decides nothing."""
    assert MAPPINGS["dynamic"] is False
    text = json.dumps(MAPPINGS)
    assert '"dynamic": true' not in text
    assert '"dynamic_templates"' not in text


def test_no_text_is_too_long_for_a_keyword() -> None:
    """A keyword of more than 32,766 bytes would be refused with its record; a character has at most four."""
    for field, mapping in MAPPINGS["properties"]["attributes"]["properties"].items():
        if mapping.get("type") == "keyword":
            assert mapping["ignore_above"] * 4 <= 32_766, field

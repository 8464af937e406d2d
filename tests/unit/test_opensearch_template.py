"""The mapping for OpenSearch knows every attribute of a record, and nothing else decides a field's type."""

import json
from typing import Any

from telemetry import names
from tests.support.opensearch import SCRIPTS

MAPPINGS: dict[str, Any] = json.loads((SCRIPTS / "template.json").read_text("utf-8"))["template"]["mappings"]
TYPES = {"string": "keyword", "string[]": "keyword", "int": "long", "tips": "object", "changes": None}


def test_every_attribute_of_a_record_has_its_type() -> None:
    """Each attribute that may stand in a body, and those beside it, are mapped, and no others.

    The plan stays in the body alone, because its name is the begin of that of its hash.
    """
    beside = {names.AUDIT_INTEGRITY_HASH: "keyword", names.AUDIT_INTEGRITY_VALUE: "keyword"}
    mapped = {name: mapping.get("type") for name, mapping in MAPPINGS["properties"]["attributes"]["properties"].items()}
    stored = {name: TYPES[kind] for name, kind in names.BODY_ATTRIBUTES.items() if name != names.AUDITRACE_JOB_PLAN}
    assert mapped == stored | beside


def test_no_field_is_a_text_and_an_object() -> None:
    """A dot makes an object: a name that is also the begin of another name would be refused."""
    mapped = list(MAPPINGS["properties"]["attributes"]["properties"])
    assert not [name for name in mapped if any(other.startswith(f"{name}.") for other in mapped)]


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

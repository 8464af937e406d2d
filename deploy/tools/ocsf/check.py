"""Checks events against the published schema of an OCSF class: `check.py VERSION CLASS PROFILE… < events.jsonl`.

Prints a line for each problem and exits 1, or prints how many events are right and exits 0.
"""

import json
import sys

import jsonschema
from ocsf_json_schema import OcsfJsonSchemaEmbedded
from ocsf_json_schema.loader import get_ocsf_schema


def main(version: str, name: str, *profiles: str) -> int:
    """Check the events on standard input, one a line."""
    published = get_ocsf_schema(version=version)
    schema = OcsfJsonSchemaEmbedded(published).get_class_schema(name, list(profiles))
    validator = jsonschema.Draft202012Validator(schema)
    right = wrong = 0
    for number, line in enumerate(sys.stdin, start=1):
        event = json.loads(line)
        problems = [
            f"{'.'.join(map(str, error.absolute_path))}: {error.message}" for error in validator.iter_errors(event)
        ]
        problems += _type_problems(event)
        problems += _constraint_problems(published["objects"], published["classes"][name], event)
        for problem in problems:
            sys.stdout.write(f"line {number}: {problem[:300]}\n")
        right, wrong = right + (not problems), wrong + bool(problems)
    sys.stdout.write(f"{right} events are right\n")
    return 1 if wrong or not right else 0


def _type_problems(event: dict) -> list[str]:
    """Check a rule that JSON Schema cannot express: the type is computed from class and activity."""
    made = event["class_uid"] * 100 + event["activity_id"]
    return [] if event["type_uid"] == made else [f"type_uid: {event['type_uid']} is not {made}"]


def _constraint_problems(objects: dict, described: dict, value: dict, path: str = "") -> list[str]:
    """Check the constraints of objects: at least one of the listed members must be present."""
    problems = []
    one_of = (described.get("constraints") or {}).get("at_least_one", [])
    if one_of and not any(member in value for member in one_of):
        problems.append(f"{path or 'event'}: has none of {', '.join(one_of)}")
    for key, attribute in described["attributes"].items():
        inner = objects.get(attribute.get("object_type", ""))
        if inner is None or key not in value or key == "unmapped":
            continue
        for each in value[key] if attribute.get("is_array") else [value[key]]:
            problems += _constraint_problems(objects, inner, each, f"{path}.{key}".lstrip("."))
    return problems


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))

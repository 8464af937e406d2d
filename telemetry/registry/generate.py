"""Writes `telemetry/names.py` from the registry, so that each name is written in one place.

Usage: `python -m telemetry.registry.generate [--check]`; `--check` exits 1 when the file on disk differs.
"""

import sys
from pathlib import Path
from typing import Any

import yaml

REGISTRY = Path(__file__).parent
OUTPUT = REGISTRY.parent / "names.py"


def _constant(name: str) -> str:
    return name.upper().replace(".", "_")


def _entries(kind: str) -> list[dict[str, Any]]:
    document = yaml.safe_load((REGISTRY / f"{kind}.yaml").read_text(encoding="utf-8"))
    entries: list[dict[str, Any]] = document[kind]
    return entries


def render() -> str:
    """Return the text of `telemetry/names.py` for the registry on disk."""
    attributes, events, metrics = _entries("attributes"), _entries("events"), _entries("metrics")
    lines = [
        '"""Every name that leaves the process, as constants; generated from `telemetry/registry/`, not edited."""',
        "",
        "from collections.abc import Mapping",
        "from types import MappingProxyType",
        "from typing import Final",
        "",
        "# Attributes",
    ]
    lines += [f'{_constant(entry["name"])}: Final = "{entry["name"]}"' for entry in attributes]
    lines += ["", "# Events"]
    lines += [f'EVENT_{_constant(entry["name"])}: Final = "{entry["name"]}"' for entry in events]
    lines += ["", "# Metrics"]
    lines += [f'METRIC_{_constant(entry["name"])}: Final = "{entry["name"]}"' for entry in metrics]
    lines += ["", "# The action of each event of the catalogue."]
    lines += ["ACTIONS: Final[Mapping[str, str]] = MappingProxyType({"]
    lines += [f'    "{entry["name"]}": "{entry["action"]}",' for entry in events]
    lines += ["})", "", "# The type of each attribute that the body of an audit record may hold."]
    lines += ["BODY_ATTRIBUTES: Final[Mapping[str, str]] = MappingProxyType({"]
    lines += [f'    "{entry["name"]}": "{entry["type"]}",' for entry in attributes if entry.get("in_body")]
    lines += ["})", "", "# The attributes that every audit record carries."]
    lines += ["ALWAYS: Final[frozenset[str]] = frozenset({"]
    lines += [f'    "{entry["name"]}",' for entry in attributes if entry.get("always") and "since" not in entry]
    lines += ["})", "", "# The attributes that every audit record carries, unless its format version is 1.0.0."]
    lines += ["ALWAYS_BEYOND_1_0_0: Final[frozenset[str]] = frozenset({"]
    lines += [f'    "{entry["name"]}",' for entry in attributes if entry.get("always") and "since" in entry]
    lines += ["})", "", "# The values of the attributes whose values are enumerated."]
    lines += ["ATTRIBUTE_VALUES: Final[Mapping[str, frozenset[str]]] = MappingProxyType({"]
    for entry in attributes:
        if entry.get("in_body") and entry.get("values"):
            members = ", ".join(f'"{value}"' for value in entry["values"])
            lines.append(f'    "{entry["name"]}": frozenset({{{members}}}),')
    lines += ["})", "", "# Unit and description of each instrument."]
    lines += ["METRICS: Final[Mapping[str, tuple[str, str]]] = MappingProxyType({"]
    lines += [f'    "{entry["name"]}": ("{entry["unit"]}", "{entry["brief"]}"),' for entry in metrics]
    lines += ["})", ""]
    return "\n".join(lines)


def main(arguments: list[str]) -> int:
    """Write the constants, or compare them with `--check`; return the exit status."""
    text = render()
    if "--check" in arguments:
        if OUTPUT.read_text(encoding="utf-8") == text:
            return 0
        sys.stderr.write("telemetry/names.py differs from telemetry/registry/: run `make registry`\n")
        return 1
    OUTPUT.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""Lists the licence of each component of an SBOM: `licenses.py SBOM`.

Exit status: 0 all licences are allowed, 1 one is not, or is not known.
"""

import json
import re
import sys
from pathlib import Path

ALLOWED = frozenset(
    {
        "0BSD",
        "Apache-2.0",
        "BSD-2-Clause",
        "BSD-3-Clause",
        "ISC",
        "LGPL-3.0-only",
        "MIT",
        "MIT-0",
        "MPL-2.0",
        "PSF-2.0",
        "Unlicense",
        "Zlib",
    }
)
"""What may be installed with code under Apache-2.0. The LGPL asks that users can replace the library, and they can."""

# Packages whose metadata names no SPDX id; read in the licence file of each.
READ = {"google-re2": "BSD-3-Clause", "protobuf": "BSD-3-Clause", "PySocks": "BSD-3-Clause", "rich-click": "MIT"}


def main(sbom: Path) -> int:
    """Write a line for each component."""
    components = json.loads(sbom.read_text(encoding="utf-8"))["components"]
    wrong = 0
    for component in sorted(components, key=lambda component: component["name"].lower()):
        stated = _stated(component) or READ.get(component["name"], "unknown")
        is_allowed = all(name in ALLOWED for name in re.findall(r"[\w.-]+", stated) if name not in {"AND", "OR"})
        wrong += not is_allowed
        mark = "" if is_allowed else " (not allowed)"
        sys.stdout.write(f"{component['name']} {component['version']}: {stated}{mark}\n")
    return int(wrong > 0)


def _stated(component: dict) -> str:
    for choice in component.get("licenses", []):
        if stated := choice.get("expression") or choice["license"].get("id"):
            return stated
    return ""


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))

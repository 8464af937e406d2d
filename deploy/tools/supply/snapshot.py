"""Makes advisories.json from a clone of github.com/pypa/advisory-database: `snapshot.py CLONE REQUIREMENTS…`.

It keeps the advisories about the packages that the requirement files pin, in the members that a query needs.
Source: the OSV schema (ossf.github.io/osv-schema). The advisories are published under CC BY 4.0 by their authors.
"""

import json
import subprocess
import sys
from pathlib import Path

import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ADVISORIES = Path(__file__).with_name("advisories.json")


def pinned(requirements: Path) -> dict[str, str]:
    """Return the version of each package that a hashed requirement file pins."""
    pins = {}
    for line in requirements.read_text(encoding="utf-8").splitlines():
        if line and not line.startswith((" ", "#")):
            requirement = Requirement(line.removesuffix("\\").strip())
            pins[canonicalize_name(requirement.name)] = next(iter(requirement.specifier)).version
    return pins


def main(clone: Path, *requirements: Path) -> None:
    """Write the snapshot, and say how large it is."""
    names = sorted({name for file in requirements for name in pinned(file)})
    last = ["git", "-C", str(clone), "log", "-1", "--format=%H %cs"]
    commit, date = subprocess.run(last, check=True, capture_output=True, text=True).stdout.split()
    advisories = [
        _kept(yaml.safe_load(file.read_text(encoding="utf-8")))
        for name in names
        for file in sorted(clone.joinpath("vulns", name).glob("*.yaml"))
    ]
    source = {
        "source": "github.com/pypa/advisory-database, CC BY 4.0",
        "commit": commit,
        "date": date,
        "packages": names,
    }
    text = json.dumps({**source, "advisories": advisories}, indent=1, ensure_ascii=False)
    ADVISORIES.write_text(text + "\n", encoding="utf-8")
    sys.stdout.write(f"{len(advisories)} advisories about {len(names)} packages, as of {date}\n")


def _kept(advisory: dict) -> dict:
    affected = [
        {
            "package": each["package"],
            "ranges": [span for span in each.get("ranges", []) if span["type"] == "ECOSYSTEM"],
            "versions": each.get("versions", []),
        }
        for each in advisory["affected"]
    ]
    for each in affected:
        # The list is what the ranges meant when it was made; they also hold for later versions.
        if each["ranges"]:
            each["versions"] = []
    said = (advisory.get("summary") or advisory["details"]).strip().splitlines()[0][:200]
    kept = {"id": advisory["id"], "aliases": advisory.get("aliases", []), "summary": said, "affected": affected}
    return {**kept, **{name: str(advisory[name]) for name in ("withdrawn",) if name in advisory}}


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))

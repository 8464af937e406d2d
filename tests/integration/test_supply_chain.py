"""What a release consists of is listed, licensed, pinned, checked for known vulnerabilities, and reproducible."""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.collector import ROOT, require_binary

SUPPLY = ROOT / "deploy" / "tools" / "supply"
# What this installs was checked by the lines around it, or is this repository itself.
OWN_SOURCES = re.compile(r"pip install .*--no-deps")


def tracked(*patterns: str) -> list[Path]:
    """Return the files of the repository that match."""
    listed = ["git", "-C", ROOT, "ls-files", "-z", "--", *patterns]
    names = subprocess.run(listed, check=True, capture_output=True, text=True).stdout
    return [ROOT / name for name in names.split("\0") if name]


def audit(*arguments: str | Path) -> "subprocess.CompletedProcess[str]":
    """Audit requirement files against the stored snapshot."""
    python = require_binary("supply", "make backends") / "bin" / "python"
    command = [python, SUPPLY / "audit.py", "--snapshot", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_no_pinned_package_is_known_as_vulnerable() -> None:
    """The snapshot covers every package that is installed to run, build, test or check, and affects none."""
    done = audit(*tracked("requirements/*.txt", "deploy/**/requirements.txt"))
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_vulnerable_package_and_one_that_is_not_covered_are_found(tmp_path: Path) -> None:
    """The check names the advisory of the one, and the name of the other, and fails for each."""
    for pin, said in (("cryptography==3.1", "PYSEC-2021-62"), ("not-covered==1.0", "not-covered")):
        requirements = tmp_path / "requirements.txt"
        requirements.write_text(f"{pin} \\\n    --hash=sha256:{'0' * 64}\n")
        done = audit(requirements)
        assert done.returncode == 1
        assert said in done.stdout


def test_the_sbom_has_the_pinned_components_and_their_licences() -> None:
    """`make sbom` lists what an installation has, in the versions of requirements/run.txt, each with a licence."""
    require_binary("supply", "make backends")
    subprocess.run([SUPPLY / "sbom.sh"], check=True, capture_output=True)
    sbom = json.loads((ROOT / "build/sbom/auditrace.cdx.json").read_text())
    assert sbom["bomFormat"] == "CycloneDX"
    assert sbom["metadata"]["component"]["name"] == "auditrace"
    pins = dict(re.findall(r"^([\w.-]+)==([\w.+-]+)", (ROOT / "requirements/run.txt").read_text(), re.MULTILINE))
    found = {re.sub(r"[-_.]+", "-", each["name"]).lower(): each["version"] for each in sbom["components"]}
    assert found.items() <= pins.items()
    assert {"litestar", "msgspec", "opentelemetry-sdk", "psycopg"} <= found.keys()
    assert {"pytest", "hatchling"}.isdisjoint(found)
    licences = (ROOT / "build/sbom/licenses.txt").read_text().splitlines()
    assert len(licences) == len(found)
    assert "psycopg" in {line.split()[0] for line in licences}


def test_a_licence_that_is_not_allowed_is_found(tmp_path: Path) -> None:
    """One component under another licence, or under none that is known, makes the list fail and shows."""
    sbom = tmp_path / "sbom.json"
    for name, licences in (("copyleft", [{"license": {"id": "AGPL-3.0-only"}}]), ("silent", [])):
        sbom.write_text(json.dumps({"components": [{"name": name, "version": "1", "licenses": licences}]}))
        done = subprocess.run(
            [sys.executable, SUPPLY / "licenses.py", sbom], capture_output=True, text=True, check=False
        )
        assert done.returncode == 1
        assert f"{name} 1: " in done.stdout
        assert "(not allowed)" in done.stdout


def test_every_installation_is_pinned_by_hash() -> None:
    """No command of the repository installs a Python, Node.js or Java package whose bytes are not pinned."""
    commands = [
        line.strip()
        for file in tracked("Makefile", ".ci/run", "*.sh", "*Dockerfile", "*.yaml")
        for line in file.read_text().replace("\\\n", " ").splitlines()
        if re.search(r"\bpip\b.* install\b|\bpip install\b|\bnpm (ci|install)\b", line)
        and not line.lstrip().startswith("#")
    ]
    assert len(commands) >= 6
    for command in commands:
        assert "--require-hashes" in command or "npm ci" in command or OWN_SOURCES.search(command), command
    for requirements in tracked("requirements/*.txt", "deploy/**/requirements.txt"):
        pins = re.findall(r"^(\S+==\S+)(.*(?:\n .*)*)", requirements.read_text(), re.MULTILINE)
        assert pins
        for pin, rest in pins:
            assert "--hash=sha256:" in rest, f"{requirements}: {pin}"
    locked = json.loads((ROOT / "deploy/tools/grammars/package-lock.json").read_text())
    assert all("integrity" in package for name, package in locked["packages"].items() if name)
    assert (ROOT / "deploy/opensearch/jars.sha256").read_text()


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of the repository, without those that it ignores."""
    folder = tmp_path_factory.mktemp("sources")
    for file in tracked():
        copied = folder / file.relative_to(ROOT)
        copied.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, copied, follow_symlinks=False)
    return folder


def test_two_builds_of_a_release_are_identical(sources: Path, tmp_path: Path) -> None:
    """Wheel and source archive have the same bytes, whatever the folder, the modes, the times and the umask are."""
    other = tmp_path / "another name of the folder"
    shutil.copytree(sources, other, symlinks=True)
    for file in other.rglob("*"):
        if not file.is_symlink():
            os.utime(file, (10**9, 10**9))
            file.chmod(file.stat().st_mode & 0o700)
    made = []
    for folder, umask in ((sources, 0o022), (other, 0o077)):
        out = tmp_path / f"dist-{umask}"
        command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", out, folder]
        subprocess.run(command, check=True, capture_output=True, umask=umask)
        made.append({file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in out.iterdir()})
    assert made[0] == made[1]
    assert sorted(Path(name).suffix for name in made[0]) == [".gz", ".whl"]

"""A rolling upgrade: the previous release's code keeps working on the schema that this version makes.

A release is what CHANGELOG.md lists with a number, and the tag `v` and that number. Before the first one there is
nothing to compare with, and existing migrations may still be edited; the test says so, and begins by itself with it.
"""

import re
import subprocess
import sys
import tarfile
from io import BytesIO
from pathlib import Path

import pytest

from service.bootstrap import database_of
from telemetry.audit.verify import verify
from tests.support.collector import ROOT
from tests.support.keys import public_key
from tests.support.service import Service

_RELEASE = re.compile(r"^## \[?(\d+\.\d+\.\d+)\b", re.MULTILINE)


def previous_release(changelog: str) -> str | None:
    """Return the tag of the newest release that a changelog lists; None before the first."""
    found = _RELEASE.search(changelog)
    return None if found is None else f"v{found[1]}"


def test_the_newest_release_is_taken_from_the_changelog() -> None:
    """What is unreleased is none; the first number from the top is the newest release."""
    assert previous_release("# Changelog\n\n## Unreleased\n\n- A change of 1.2.3\n") is None
    assert previous_release("# Changelog\n\n## Unreleased\n\n## 1.10.0 (2027-01-02)\n\n## 1.9.0\n") == "v1.10.0"


def _checked_out(tag: str, folder: Path) -> Path:
    """Return a folder with the code of a tag."""
    archive = subprocess.run(
        ["git", "archive", "--format=tar", tag, "service", "telemetry"], cwd=ROOT, capture_output=True, check=False
    )
    assert archive.returncode == 0, f"CHANGELOG.md lists {tag}, and there is no such tag: {archive.stderr.decode()}"
    with tarfile.open(fileobj=BytesIO(archive.stdout)) as tar:
        tar.extractall(folder, filter="data")
    return folder


def _code_of(service: Service) -> Path:
    """Return where a service takes its code from."""
    done = subprocess.run(
        [sys.executable, "-c", "import service; print(service.__file__)"],
        cwd=service.root,
        capture_output=True,
        check=True,
        text=True,
    )
    return Path(done.stdout.strip())


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
def test_the_previous_release_works_on_the_schema_of_this_one(
    tmp_path: Path, kind: str, request: pytest.FixtureRequest
) -> None:
    """Migrated by this version, written to by both in turn: jobs run, and one ledger verifies."""
    tag = previous_release((ROOT / "CHANGELOG.md").read_text("utf-8"))
    if tag is None:
        pytest.skip("NO RELEASE YET: there is no earlier code to run on this schema; begins with the first release")
    settings: dict[str, str] = {}
    if kind == "postgres":
        settings["AUDITRACE_DATABASE"] = request.getfixturevalue("postgres_server").create_database()
    before, now = (Service(tmp_path / "data", settings) for _ in range(2))
    before.root = _checked_out(tag, tmp_path / "before")
    assert _code_of(before) == before.root / "service" / "__init__.py"
    for service in (now, before, now, before):
        with service:
            client = service.client()
            client.until(client.run("greet", name="you"), "succeeded")
    key = public_key(tmp_path / "data" / "keys" / "signing.pem")
    url = now.environment["AUDITRACE_DATABASE"]
    report = verify(database_of(url).records(), public_keys=[key])
    assert (report.verdict, report.findings) == ("intact", ())

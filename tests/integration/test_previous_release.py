"""A rolling upgrade: the previous release's code keeps working on the schema that this version makes.

A release is what CHANGELOG.md lists with a number, and the commit that put this number there. Its migrations are never
edited again.
"""

import re
import subprocess
import sys
import tarfile
from io import BytesIO
from pathlib import Path

import pytest

from service.bootstrap.databases import database_of
from telemetry.audit.verify import verify
from tests.support.collector import ROOT
from tests.support.keys import public_key
from tests.support.service import Service

_RELEASE = re.compile(r"^## \[?(\d+\.\d+\.\d+)\b", re.MULTILINE)


def previous_release(changelog: str) -> str:
    """Return the number of the newest release that a changelog lists."""
    found = _RELEASE.search(changelog)
    assert found is not None, "CHANGELOG.md lists no release"
    return found[1]


def test_the_newest_release_is_taken_from_the_changelog() -> None:
    """What is unreleased is none; the first number from the top is the newest release."""
    changelog = "# Changelog\n\n## Unreleased\n\n- A change of 1.2.3\n\n## 1.10.0 (2027-01-02)\n\n## 1.9.0\n"
    assert previous_release(changelog) == "1.10.0"


def test_migrations_of_a_release_are_never_edited(tmp_path: Path) -> None:
    """Databases in use have run them: what is to change is changed by a further migration."""
    before = _previous_code(tmp_path)
    migrations = sorted(before.glob("service/store/*/migrations/*.sql"))
    assert migrations
    for path in migrations:
        assert (ROOT / path.relative_to(before)).read_bytes() == path.read_bytes(), (
            f"{path.name}: add a migration instead"
        )


def _previous_code(folder: Path) -> Path:
    """Return a folder with the code of the previous release."""
    version = previous_release((ROOT / "CHANGELOG.md").read_text("utf-8"))
    heading = rf"^## \[?{re.escape(version)}\b"
    commits = _git("log", "--reverse", "--format=%H", f"-G{heading}", "--", "CHANGELOG.md").decode().split()
    assert commits, f"no commit put {version} into CHANGELOG.md; the history must be there in full"
    archive = _git("archive", "--format=tar", commits[0], "service", "telemetry")
    with tarfile.open(fileobj=BytesIO(archive)) as tar:
        tar.extractall(folder, filter="data")
    return folder


def _git(*arguments: str) -> bytes:
    return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, check=True).stdout


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
    """Migrated by this version, written to by both in turn: jobs run, here also what the other drafted or confirmed.

    The previous release refuses plans of this version, because it does not know all of their limits.
    """
    settings: dict[str, str] = {}
    if kind == "postgres":
        settings["AUDITRACE_DATABASE"] = request.getfixturevalue("postgres_server").create_database()
    before, now = (Service(tmp_path / "data", settings) for _ in range(2))
    before.root = _previous_code(tmp_path / "before")
    templates = tmp_path / "data" / "jobs.toml"
    # Keys that the previous release does not know.
    templates.write_text(re.sub(r"^(reads|writes|network) = .*\n", "", templates.read_text(), flags=re.MULTILINE))
    assert _code_of(before) == before.root / "service" / "__init__.py"
    drafts: list[str] = []
    for service in (now, before, now, before):
        with service:
            client = service.client()
            client.until(client.run("greet", name="you"), "succeeded")
            for job_id in drafts if service is now else ():
                client.post(f"/v1/jobs/{job_id}/run")
                client.until(job_id, "succeeded")
            drafts = [client.create("greet", name="me")["id"] for _ in range(2)]
            plans = [client.post(f"/v1/jobs/{job_id}/draft")["plan"]["sha256"] for job_id in drafts]
            client.post(f"/v1/jobs/{drafts[0]}/confirm", {"confirmed": True, "plan_sha256": plans[0], "run": False})
    key = public_key(tmp_path / "data" / "keys" / "signing.pem")
    url = now.environment["AUDITRACE_DATABASE"]
    report = verify(database_of(url).records(), public_keys=[key])
    assert (report.verdict, report.findings) == ("intact", ())

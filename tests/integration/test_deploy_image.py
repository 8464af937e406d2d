"""The steps of the Dockerfile without a container engine: what it copies is installed and started as it says.

That an engine builds it, and that its base image has what is needed, is not shown here.
"""

import fnmatch
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest

from service.processes.serve import LISTENING
from tests.support.collector import ROOT
from tests.support.poll_until import poll_until
from tests.support.ports import ReservedPorts
from tests.support.processes import start_process

DOCKERFILE = ROOT / "deploy" / "Dockerfile"
IGNORED = ROOT / "deploy" / "Dockerfile.dockerignore"


def instructions() -> Iterator[tuple[str, str]]:
    """Yield the instructions of the Dockerfile, each on one line, without comments."""
    lines = [line for line in DOCKERFILE.read_text().splitlines() if not line.lstrip().startswith("#")]
    for line in "\n".join(lines).replace("\\\n", " ").splitlines():
        if line.strip():
            name, _, rest = line.partition(" ")
            yield name, re.sub(r"\s+", " ", rest).strip()


def of(name: str) -> Sequence[str]:
    """Return the arguments of every instruction of a name."""
    return [rest for found, rest in instructions() if found == name]


def settings() -> Mapping[str, str]:
    """Return the environment of the image."""
    return dict(re.findall(r"(\w+)=(\S+)", of("ENV")[-1]))


def is_sent(path: str) -> bool:
    """Tell whether the engine gets a file of the repository: the last rule that matches it decides."""
    sent = True
    for rule in IGNORED.read_text().splitlines():
        pattern = rule.removeprefix("!")
        parts = [path, *(str(parent) for parent in Path(path).parents)]
        if any(fnmatch.fnmatch(part, pattern) or fnmatch.fnmatch(part, pattern.removeprefix("**/")) for part in parts):
            sent = rule.startswith("!")
        if pattern.startswith("**/") and pattern.removeprefix("**/") in Path(path).parts:
            sent = False
    return sent


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the package as the image has it: copied as the Dockerfile copies, installed as it installs."""
    source, target = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("site")
    for copied in of("COPY"):
        if copied.startswith("--from"):
            continue
        *paths, into = copied.split()
        for path in paths:
            destination = source / into if (ROOT / path).is_dir() else source / into / Path(path).name
            for file in [ROOT / path] if (ROOT / path).is_file() else (ROOT / path).rglob("*"):
                relative = str(file.relative_to(ROOT))
                if file.is_file() and is_sent(relative):
                    place = destination if file == ROOT / path else destination / file.relative_to(ROOT / path)
                    place.parent.mkdir(parents=True, exist_ok=True)
                    shutil.copy(file, place)
    (install,) = [line for line in of("RUN") if "--no-build-isolation" in line]
    options = install.split("pip install ")[1].split(" .")[0].split()
    done = subprocess.run(
        [sys.executable, "-m", "pip", "install", "--quiet", *options, "--target", target, source],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return target


def test_the_dependencies_are_installed_by_hash_before_the_sources_are_copied() -> None:
    """A change of the sources does not install everything anew, and nothing is installed that is not pinned."""
    order = [(name, rest) for name, rest in instructions() if name in {"COPY", "RUN"}]
    pinned = next(at for at, (_, rest) in enumerate(order) if "--require-hashes" in rest)
    sources = next(at for at, (_, rest) in enumerate(order) if rest.startswith("service"))
    assert pinned < sources
    assert all("--require-hashes" in rest or "--no-deps" in rest for _, rest in order if "pip install" in rest)


def test_the_image_is_nobody_s_root_and_says_what_it_is() -> None:
    """A numeric user that is not root, OCI labels, a clean stop, a health check, and no shell around the command."""
    (user,) = of("USER")
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", user)
    labels = set(re.findall(r"org\.opencontainers\.image\.(\w+)=", of("LABEL")[0]))
    assert labels == {"title", "description", "licenses", "version", "revision", "created"}
    assert of("STOPSIGNAL") == ["SIGTERM"]
    assert json.loads(of("ENTRYPOINT")[0]) == ["auditrace"]
    assert json.loads(of("CMD")[0]) == ["serve"]
    assert len(of("FROM")) == 2


def test_what_is_not_needed_is_not_sent_to_the_engine() -> None:
    """Neither data and keys nor tests and history become part of an image, by mistake or otherwise."""
    for path in (
        "var/keys/signing.pem",
        ".git/config",
        "tests/conftest.py",
        "service/__pycache__/x.pyc",
        "build/bin/x",
    ):
        assert not is_sent(path), path
    for path in ("service/store/sqlite/queries.sql", "telemetry/names.py", "requirements/run.txt", "jobs.toml"):
        assert is_sent(path), path


def test_the_installed_service_starts_as_the_image_starts_it_and_is_healthy(installed: Path, tmp_path: Path) -> None:
    """With the image's settings, from an empty folder, it serves; its health check agrees; SIGTERM ends it with 0."""
    reserved = ReservedPorts(1)
    (port,) = reserved.numbers
    own = {
        key: value.replace("/var/lib/auditrace", str(tmp_path)).replace("0.0.0.0", "127.0.0.1")
        for key, value in settings().items()
        if key.startswith("AUDITRACE_")
    }
    assert set(own) >= {"AUDITRACE_HOST", "AUDITRACE_DATABASE", "AUDITRACE_SIGNING_KEY", "AUDITRACE_LEDGER_SECRET"}
    # The sources of this repository are not to be found: only what was installed is.
    environment = {
        "PATH": os.environ["PATH"],  # noqa: TID251 - of the test run
        "PYTHONPATH": str(installed),
        "PYTHONDONTWRITEBYTECODE": "1",
        "AUDITRACE_PORT": str(port),
        **own,
    }
    check = json.loads(of("HEALTHCHECK")[0].split("CMD ", 1)[1])
    healthy = [sys.executable, *check[1:-1], check[-1].replace("8080", str(port))]
    start = [sys.executable, "-m", "service", *json.loads(of("CMD")[0])]
    with start_process(start, env=environment, cwd=tmp_path, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            said = iter(process.stdout)
            poll_until(lambda: next(said, LISTENING).startswith(LISTENING), "the service to listen")
            assert subprocess.run(healthy, env=environment, check=False, capture_output=True).returncode == 0
        finally:
            process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 0
    assert subprocess.run(healthy, env=environment, check=False, capture_output=True).returncode != 0
    written = {path.relative_to(tmp_path).parts[0] for path in tmp_path.rglob("*")}
    assert written >= {"auditrace.db", "keys", "archive"}

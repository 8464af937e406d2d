"""The demonstration in containers: judged by docker compose itself, held to what it names, its scripts run for real.

No container is started here, for want of an engine.
"""

import json
import os
import re
import stat
import subprocess
import sys
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml

from service.config import read_settings, shipped_templates
from telemetry import names
from tests.support.collector import ROOT, require_binary
from tests.support.service import Service

DEPLOY = ROOT / "deploy"
FILES = ("compose.yaml", "compose.observability.yaml")
ENVIRONMENTS = {"grafana": ["images.env"], "victoria": ["images.env", "victoria.env"]}
OWN = {"prepare", "service", "worker", "cast", "load"}
ALWAYS = OWN | {"postgres", "otel-collector", "prometheus", "grafana", "jaeger"}
SERVICES = {"grafana": ALWAYS | {"loki", "tempo"}, "victoria": ALWAYS | {"victoria-logs", "victoria-traces"}}


@cache
def compose(profile: str) -> Mapping[str, Any]:
    """Return what docker compose makes of the files: everything merged and filled in."""
    binary = require_binary("docker-compose", "make tools")
    arguments = [part for name in ENVIRONMENTS[profile] for part in ("--env-file", DEPLOY / name)]
    arguments += [part for name in FILES for part in ("-f", DEPLOY / name)]
    environment = {"PATH": os.environ["PATH"], "HOME": "/nonexistent"}  # noqa: TID251 - of the test run
    done = subprocess.run(
        [binary, *arguments, "config", "--format", "json"],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    decoded: Mapping[str, Any] = json.loads(done.stdout)
    return decoded


def services(profile: str) -> Mapping[str, Mapping[str, Any]]:
    """Return the services of a profile."""
    found: Mapping[str, Mapping[str, Any]] = compose(profile)["services"]
    return found


@pytest.mark.parametrize("profile", ENVIRONMENTS)
def test_docker_compose_takes_the_files(profile: str) -> None:
    """Both profiles are valid, hold the services that they should, and leave no variable unset."""
    assert set(services(profile)) == SERVICES[profile]


def test_without_the_images_it_says_what_to_give() -> None:
    """Whoever forgets the file with the versions is told, and nothing of some other version is started."""
    binary = require_binary("docker-compose", "make tools")
    done = subprocess.run(
        [binary, "-f", DEPLOY / "compose.yaml", "config"], capture_output=True, text=True, check=False, env={}
    )
    assert done.returncode != 0
    assert "give --env-file deploy/images.env" in done.stderr


def test_every_version_stands_in_one_place() -> None:
    """No compose file names an image but by its variable, and no image is without a version."""
    pinned = dict(re.findall(r"^(\w+_IMAGE)=(.+)$", (DEPLOY / "images.env").read_text(), re.MULTILINE))
    for name in FILES:
        text = (DEPLOY / name).read_text()
        images = re.findall(r"^ *image: (.+)$", text, re.MULTILINE)
        assert images
        for image in images:
            variable = re.fullmatch(r"\$\{(\w+):\?give --env-file deploy/images.env\}", image)
            assert variable is not None, image
            assert variable[1] in pinned
    for image in pinned.values():
        assert re.search(r":v?\d+\.\d+", image), image
    default = re.search(r"^ARG PYTHON_IMAGE=(.+)$", (DEPLOY / "Dockerfile").read_text(), re.MULTILINE)
    assert default is not None
    assert default[1] == pinned["PYTHON_IMAGE"]


@pytest.mark.parametrize("profile", ENVIRONMENTS)
def test_every_file_that_is_mounted_exists(profile: str) -> None:
    """Docker would make an empty folder of a missing file, without a word."""
    mounted = [
        each for service in services(profile).values() for each in service.get("volumes", ()) if each["type"] == "bind"
    ]
    assert len(mounted) > 8
    for each in mounted:
        source = Path(each["source"])
        assert source.exists(), source
        assert source.is_dir() == (not Path(each["target"]).suffix), source
        assert each.get("read_only"), source


@pytest.mark.parametrize("profile", ENVIRONMENTS)
def test_nothing_is_reachable_from_other_machines(profile: str) -> None:
    """Every published port is bound to loopback: the demonstration asks nobody for a password."""
    ports = [port for service in services(profile).values() for port in service.get("ports", ())]
    assert len(ports) > 8
    assert {port["host_ip"] for port in ports} == {"127.0.0.1"}
    published = [port["published"] for port in ports]
    assert len(set(published)) == len(published)


@pytest.mark.parametrize("name", sorted(OWN | {"otel-collector"}))
def test_own_containers_are_hardened(name: str) -> None:
    """Read-only root, no capabilities and no way to gain any; only what prepares volumes is root, without network."""
    service = services("grafana")[name]
    assert service["read_only"]
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    if name == "prepare":
        assert service["network_mode"] == "none"
    else:
        assert "cap_add" not in service
        assert service.get("user", "10001:10001") == "10001:10001"


@pytest.mark.parametrize("profile", ENVIRONMENTS)
def test_one_shot_services_are_waited_for(profile: str) -> None:
    """What ends by itself is what another one waits for, so that `up --wait` does not take its end for a failure."""
    waited = {
        name
        for service in services(profile).values()
        for name, how in service.get("depends_on", {}).items()
        if how["condition"] == "service_completed_successfully"
    }
    ended = {name for name, service in services(profile).items() if "restart" not in service}
    assert waited == ended == {"prepare", "cast"}


def settings_of(profile: str) -> Iterator[tuple[str, str, str]]:
    """Yield service, name and value of every variable that is set."""
    for name, service in services(profile).items():
        for key, value in service.get("environment", {}).items():
            if value is not None:
                yield name, key, value


@pytest.mark.parametrize("profile", ENVIRONMENTS)
def test_every_setting_is_one_that_is_read(profile: str) -> None:
    """Those of the service are documented and right, those of the collector stand in its configuration."""
    documented = set(re.findall(r"AUDITRACE_[A-Z_]+", (ROOT / "docs" / "configuration.md").read_text()))
    read_by_collector = set(re.findall(r"\$\{env:(\w+)", (ROOT / "otel-collector.yaml").read_text())) | {"GOMEMLIMIT"}
    for name, key, _ in settings_of(profile):
        if key.startswith("AUDITRACE_"):
            assert key in documented, key
        if name == "otel-collector":
            assert key in read_by_collector, key
    for name in ("service", "worker", "cast"):
        environment = {key: value for owner, key, value in settings_of(profile) if owner == name}
        assert read_settings(environment).database.startswith("postgresql://")


@pytest.mark.parametrize("profile", ENVIRONMENTS)
def test_every_address_is_that_of_a_service_that_runs(profile: str) -> None:
    """No setting, data source or target names a host that the profile does not have, or a port that it does not."""
    running = services(profile)
    addresses: set[str] = set()
    for _, key, value in settings_of(profile):
        if key.endswith("_ENDPOINT") or key == "AUDITRACE_DATABASE":
            addresses.add(urlsplit(value).netloc.split("@")[-1] or value)
    defaults = dict(re.findall(r"\$\{env:(\w+_ENDPOINT):-([^}]+)\}", (ROOT / "otel-collector.yaml").read_text()))
    chosen = {key for owner, key, _ in settings_of(profile) if owner == "otel-collector"}
    addresses |= {
        urlsplit(value).netloc or value
        for key, value in defaults.items()
        if key not in chosen and not value.startswith("0.0.0.0")
    }
    sources = yaml.safe_load((DEPLOY / "grafana" / "provisioning" / profile / "datasources.yaml").read_text())
    addresses |= {urlsplit(source["url"]).netloc for source in sources["datasources"]}
    scraped = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yaml").read_text())["scrape_configs"]
    addresses |= {target for job in scraped for group in job["static_configs"] for target in group["targets"]}
    assert len(addresses) > 6
    for address in addresses:
        host, port = address.split(":")
        assert host in running, address
        known = {str(each["target"]) for each in running[host].get("ports", ())} | {"4317", "5432"}
        assert port in known, address


def test_the_load_generator_plays_its_rounds_against_a_real_service(tmp_path: Path) -> None:
    """Its keys are made once, and a round leaves records of every result: done, refused, failed, denied."""
    with Service(tmp_path, {"AUDITRACE_TEMPLATES": str(shipped_templates())}) as service:
        folder = tmp_path / "people"
        folder.mkdir()
        commands = tmp_path / "bin"
        commands.mkdir()
        for name, call in (("auditrace", f"{sys.executable} -m service"), ("python", sys.executable)):
            (commands / name).write_text(f'#!/bin/sh\nexec {call} "$@"\n')
            (commands / name).chmod(0o755)
        path = f"{commands}:{service.environment['PATH']}"
        environment = {**service.environment, "KEYS": str(folder), "PATH": path}
        for _ in range(2):
            made = subprocess.run(["sh", DEPLOY / "demo" / "keys.sh"], env=environment, cwd=ROOT, check=False)
            assert made.returncode == 0
        assert {each.name for each in folder.iterdir()} == {f"{who}.key" for who in ("olga", "omar", "ann", "audrey")}
        assert all(stat.S_IMODE(each.stat().st_mode) == 0o600 for each in folder.iterdir())
        play = [sys.executable, DEPLOY / "demo" / "load.py", service.url, folder, "--rounds", "2", "--pause", "0.1"]
        done = subprocess.run(play, capture_output=True, text=True, check=False, timeout=120)
        assert (done.returncode, done.stderr) == (0, "")
        bodies = [json.loads(body) for (body,) in service.rows("SELECT body FROM audit_records")]
    told = {(body["event_name"], body["attributes"][names.AUDITRACE_RESULT]) for body in bodies}
    assert told >= {
        ("job.create", "success"),
        ("job.create", "rejected"),
        ("job.draft", "rejected"),
        ("job.confirm", "denied"),
        ("job.confirm", "rejected"),
        ("job.confirm", "success"),
        ("job.reject", "success"),
        ("job.cancel", "denied"),
        ("job.cancel", "success"),
        ("job.status.transition", "success"),
        ("job.status.transition", "error"),
        ("auth.denied", "denied"),
        ("audit.read", "success"),
    }


def test_the_load_generator_says_what_went_wrong(tmp_path: Path) -> None:
    """An answer that is not the expected one ends a counted round with its text and status 1."""
    with Service(tmp_path) as service:
        folder = tmp_path / "people"
        folder.mkdir()
        for who in ("olga", "omar", "ann", "audrey"):
            (folder / f"{who}.key").write_text("atk_nobody_x")
        play = [sys.executable, DEPLOY / "demo" / "load.py", service.url, folder, "--rounds", "1"]
        done = subprocess.run(play, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 1
    assert "POST /v1/jobs: expected 201, got 401" in done.stderr


def test_the_volumes_get_the_right_owners_and_a_password_once(tmp_path: Path) -> None:
    """The collector can write to its volumes, and a password is made up that the database and the service can read."""
    if os.geteuid() != 0:
        assert not os.environ.get("CI"), "prepare.sh changes owners, and is tested as root"  # noqa: TID251
        pytest.skip("prepare.sh changes owners, and is tested as root")
    for name in ("queue", "archive", "secrets"):
        (tmp_path / name).mkdir()
    seen = []
    for _ in range(2):
        subprocess.run(
            ["sh", DEPLOY / "demo" / "prepare.sh"], env={"ROOT": str(tmp_path), "PATH": "/usr/bin:/bin"}, check=True
        )
        seen.append((tmp_path / "secrets" / "postgres.password").read_text().strip())
    assert seen[0] == seen[1]
    assert len(seen[0]) > 24
    assert {(tmp_path / name).stat().st_uid for name in ("queue", "archive", "secrets/pgpass")} == {10001}
    assert (tmp_path / "secrets" / "postgres.password").stat().st_uid == 0
    modes = {
        name: stat.S_IMODE((tmp_path / "secrets" / name).stat().st_mode) for name in ("pgpass", "postgres.password")
    }
    assert modes == {"pgpass": 0o600, "postgres.password": 0o600}
    assert (tmp_path / "secrets" / "pgpass").read_text() == f"postgres:5432:*:auditrace:{seen[0]}\n"

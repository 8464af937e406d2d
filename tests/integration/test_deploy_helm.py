"""The Helm chart: rendered and judged by helm and by the schemas of Kubernetes; no cluster runs it here."""

import json
import re
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from service.config import read_settings
from telemetry.audit.verify import read_copy, verify
from tests.support.collector import ROOT, require_binary
from tests.support.keys import public_key
from tests.support.poll_until import poll_until
from tests.support.service import Service

CHART = ROOT / "deploy" / "helm" / "auditrace"
NEEDED = (
    "database.url=postgresql://auditrace@postgres:5432/auditrace",
    "database.passwordSecret.name=auditrace-database",
    "keys.existingSecret=auditrace-keys",
)
EVERYTHING = (
    *NEEDED,
    "monitoring.serviceMonitor.enabled=true",
    "monitoring.prometheusRule.enabled=true",
    "monitoring.prometheusRule.runbookBase=https://forge.example/auditrace",
    "settings.traceUrlTemplate=https://traces.example/{trace_id}",
    "templates=[templates.x]",
    "priorityClassName=high",
    "collector.queue.storageClass=fast",
)
RELEASES = ("1.27", "1.34")

Thing = Mapping[str, Any]


def helm(*arguments: str | Path) -> "subprocess.CompletedProcess[str]":
    """Run helm, as `make tools` built it."""
    return subprocess.run(
        [require_binary("helm", "make tools"), *arguments], capture_output=True, text=True, check=False
    )


def options(settings: Sequence[str]) -> list[str]:
    """Return the command line for these values; a comma in one would begin the next, and a brace a list."""
    escaped = [re.sub(r"([{},])", r"\\\1", setting) for setting in settings]
    return [part for setting in escaped for part in ("--set", setting)]


@cache
def rendered(*settings: str) -> str:
    """Return what the chart makes of these values."""
    done = helm("template", "audit", CHART, "--namespace", "trail", *options(settings))
    assert done.returncode == 0, done.stderr
    return done.stdout


def things(*settings: str) -> list[Thing]:
    """Return the objects that the chart makes of these values."""
    return [thing for thing in yaml.safe_load_all(rendered(*settings)) if thing]


def of_kind(kind: str, *settings: str) -> dict[str, Thing]:
    """Return the objects of a kind by their names."""
    return {thing["metadata"]["name"]: thing for thing in things(*(settings or EVERYTHING)) if thing["kind"] == kind}


def pods(*settings: str) -> Iterator[tuple[str, Thing]]:
    """Yield the pods of everything that has some, by the kind and name of what they belong to."""
    for thing in things(*(settings or EVERYTHING)):
        name = f"{thing['kind']} {thing['metadata']['name']}"
        if thing["kind"] == "Pod":
            yield name, thing["spec"]
        elif thing["kind"] in {"Deployment", "StatefulSet", "Job"}:
            yield name, thing["spec"]["template"]["spec"]


def test_helm_takes_the_chart() -> None:
    """`helm lint --strict` has nothing to say, with the least and with all values."""
    for settings in (NEEDED, EVERYTHING):
        done = helm("lint", "--strict", CHART, *options(settings))
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("release", RELEASES)
@pytest.mark.parametrize(
    "settings",
    [NEEDED, EVERYTHING, (*NEEDED, "collector.enabled=false", "externalCollector.auditEndpoint=http://c:4328/v1/logs")],
)
def test_kubernetes_takes_what_it_makes(settings: Sequence[str], release: str) -> None:
    """Every object is one by the schemas of the oldest and of a recent release, without any unknown field."""
    python = require_binary("kubernetes", "make tools") / "bin" / "python"
    check = ROOT / "deploy" / "tools" / "kubernetes" / "check.py"
    done = subprocess.run(
        [python, check, release], input=rendered(*settings), capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, ""), done.stdout + done.stderr


def test_a_wrong_object_is_noticed() -> None:
    """The judge of the test above is one: a field that Kubernetes does not have is named."""
    python = require_binary("kubernetes", "make tools") / "bin" / "python"
    check = ROOT / "deploy" / "tools" / "kubernetes" / "check.py"
    broken = rendered(*NEEDED).replace("terminationGracePeriodSeconds", "terminationGracePeriod")
    done = subprocess.run([python, check, "1.34"], input=broken, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "terminationGracePeriod" in done.stdout


@pytest.mark.parametrize(
    ("missing", "says"),
    [
        ("database.url", "set database.url"),
        ("keys.existingSecret", "openssl genpkey -algorithm ed25519"),
    ],
)
def test_what_is_missing_is_said_with_what_to_do(missing: str, says: str) -> None:
    """An install without database or keys ends before anything is made."""
    done = helm("template", "audit", CHART, *options([each for each in NEEDED if not each.startswith(missing)]))
    assert done.returncode != 0
    assert says in done.stderr


@pytest.mark.parametrize(
    "wrong",
    [
        "databse.url=x",
        "database.url=postgresql://user:password@host/name",
        "collector.replicas=0",
        "collector.queue.size=10GB",
        "settings.checkpointInterval=1 minute",
        "settings.traceUrlTemplate=https://traces.example/",
        "collector.endpoints.traces=http://tempo:4317",
        "image.digest=latest",
        "monitoring.prometheusRule.runbookBase=forge",
    ],
)
def test_the_schema_refuses_values_that_are_wrong(wrong: str) -> None:
    """A misspelt name, a password in an address, an amount in a unit that nobody knows: refused, and named."""
    done = helm("template", "audit", CHART, *options([*NEEDED, wrong]))
    assert done.returncode != 0
    assert "values don't meet the specifications of the schema" in done.stderr


def test_the_versions_are_those_of_the_demonstration() -> None:
    """The collector's version stands in deploy/images.env and here, and they agree; so do chart and package."""
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    image = values["collector"]["image"]
    pinned = dict(re.findall(r"^(\w+)=(.+)$", (ROOT / "deploy" / "images.env").read_text(), re.MULTILINE))
    assert f"{image['repository']}:{image['tag']}" == pinned["COLLECTOR_IMAGE"]
    version = yaml.safe_load((CHART / "Chart.yaml").read_text())["appVersion"]
    assert pinned["AUDITRACE_IMAGE"] == f"auditrace:{version}"
    assert f'version = "{version}"' in (ROOT / "pyproject.toml").read_text()


def test_every_container_is_confined() -> None:
    """No root, no capabilities, a read-only root file system, bounded memory, no token of the cluster."""
    seen = 0
    for name, pod in pods():
        assert pod["automountServiceAccountToken"] is False, name
        assert pod["securityContext"]["runAsNonRoot"] is True, name
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, name
        for container in [*pod.get("initContainers", []), *pod["containers"]]:
            seen += 1
            security = container["securityContext"]
            assert security["readOnlyRootFilesystem"], name
            assert security["allowPrivilegeEscalation"] is False, name
            assert security["capabilities"] == {"drop": ["ALL"]}, name
            assert security["runAsUser"] == 10001, name
            assert "memory" in container["resources"]["limits"], name
    assert seen >= 8


def test_a_worker_can_be_allowed_to_make_sandboxes() -> None:
    """Only then, and only in its own container, it has more of the kernel; it does not start without the sandbox."""
    found = dict(pods(*EVERYTHING, "worker.sandbox=true"))
    for name, pod in found.items():
        is_worker = name == "Deployment audit-auditrace-worker"
        assert pod.get("hostUsers", True) is not is_worker, name
        for container in pod["containers"]:
            security = container["securityContext"]
            assert security.get("procMount") == ("Unmasked" if is_worker else None), name
            assert security["seccompProfile"] == {"type": "Unconfined" if is_worker else "RuntimeDefault"}, name
            assert ({"name": "AUDITRACE_ISOLATION", "value": "required"} in container.get("env", [])) is is_worker, name
            assert security["capabilities"] == {"drop": ["ALL"]}, name
    assert "Deployment audit-auditrace-worker" in found


def test_the_collector_keeps_its_queue() -> None:
    """A StatefulSet with volumes that stay when it is deleted or made smaller, and nothing that scales it by itself."""
    (collector,) = of_kind("StatefulSet").values()
    spec = collector["spec"]
    assert spec["persistentVolumeClaimRetentionPolicy"] == {"whenDeleted": "Retain", "whenScaled": "Retain"}
    claims = {claim["metadata"]["name"]: claim["spec"] for claim in spec["volumeClaimTemplates"]}
    mounted = {mount["name"]: mount["mountPath"] for mount in spec["template"]["spec"]["containers"][0]["volumeMounts"]}
    assert mounted["audit-queue"] == "/var/lib/otelcol/audit-queue"
    assert mounted["audit-archive"] == "/var/lib/otelcol/audit-archive"
    assert set(claims) == {"audit-queue", "audit-archive"}
    assert claims["audit-queue"]["storageClassName"] == "fast"
    assert "storageClassName" not in claims["audit-archive"]
    assert of_kind("HorizontalPodAutoscaler") == {}
    assert spec["template"]["spec"]["terminationGracePeriodSeconds"] > 30


def test_the_collector_runs_the_shipped_configuration() -> None:
    """Its text is the one that is tested, byte for byte, and each variable that is set is one of it."""
    shipped = (ROOT / "otel-collector.yaml").read_text()
    config = of_kind("ConfigMap")["audit-auditrace-collector"]["data"]["otel-collector.yaml"]
    assert config.strip() == shipped.strip()
    (collector,) = of_kind("StatefulSet").values()
    container = collector["spec"]["template"]["spec"]["containers"][0]
    known = set(re.findall(r"\$\{env:(\w+)", shipped)) | {"GOMEMLIMIT"}
    assert {each["name"] for each in container["env"]} <= known
    listening = {str(each["containerPort"]) for each in container["ports"]}
    assert listening == {"4317", "4318", "4327", "4328", "8888", "13133"}
    assert {each["name"]: each["value"] for each in container["env"]}["AUDIT_QUEUE_BYTES"] == "1073741824"


def test_readiness_asks_neither_collector_nor_backends() -> None:
    """The probes of the API are its own health routes; the parts without a port are restarted when they end."""
    deployments = of_kind("Deployment")
    assert set(deployments) == {"audit-auditrace", "audit-auditrace-worker", "audit-auditrace-relay"}
    api = deployments["audit-auditrace"]["spec"]["template"]["spec"]["containers"][0]
    assert api["readinessProbe"]["httpGet"]["path"] == "/health/ready"
    assert api["livenessProbe"]["httpGet"]["path"] == api["startupProbe"]["httpGet"]["path"] == "/health/live"
    for deployment in deployments.values():
        assert deployment["spec"]["strategy"]["rollingUpdate"]["maxUnavailable"] == 0
        assert deployment["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] >= 60


def environments() -> Iterator[tuple[str, dict[str, str]]]:
    """Yield the plain environment of each part of the service."""
    for name, deployment in of_kind("Deployment").items():
        container = deployment["spec"]["template"]["spec"]["containers"][0]
        yield name, {each["name"]: each["value"] for each in container["env"] if "value" in each}


def test_every_setting_is_one_that_is_read() -> None:
    """The service takes the environment as it is, and every variable of its own in it is documented."""
    documented = set(re.findall(r"AUDITRACE_[A-Z_]+", (ROOT / "docs" / "configuration.md").read_text()))
    for _, environment in environments():
        assert {key for key in environment if key.startswith("AUDITRACE_")} <= documented
        settings = read_settings(environment)
        assert settings.audit_endpoint == "http://audit-auditrace-collector:4328/v1/logs"
        assert settings.shutdown_grace_ms == 20_000


def test_metrics_are_not_counted_twice() -> None:
    """What is scraped is not sent as well; the parts that nobody can scrape send."""
    by_name = dict(environments())
    assert by_name["audit-auditrace"]["OTEL_METRICS_EXPORTER"] == "none"
    assert "OTEL_METRICS_EXPORTER" not in by_name["audit-auditrace-worker"]
    assert "OTEL_METRICS_EXPORTER" not in rendered(*NEEDED)


def test_selectors_find_what_they_are_for() -> None:
    """Services, budgets, monitors and policies select pods of this release that exist, and services ports of theirs."""
    labels = {
        name: thing["spec"]["template"]["metadata"]["labels"]
        for thing in things(*EVERYTHING)
        if thing["kind"] in {"Deployment", "StatefulSet"}
        for name in [thing["metadata"]["name"]]
    }
    for thing in things(*EVERYTHING):
        if thing["kind"] == "Service":
            assert any(thing["spec"]["selector"].items() <= each.items() for each in labels.values())
        elif thing["kind"] in {"PodDisruptionBudget", "Deployment", "StatefulSet"}:
            wanted = thing["spec"]["selector"]["matchLabels"].items()
            assert sum(wanted <= each.items() for each in labels.values()) == 1, thing["metadata"]["name"]
        elif thing["kind"] == "ServiceMonitor":
            wanted = thing["spec"]["selector"]["matchLabels"].items()
            found = [
                each for each in of_kind("Service").values() if wanted <= each["metadata"].get("labels", {}).items()
            ]
            assert len(found) == 1
            ports = {port["name"] for port in found[0]["spec"]["ports"]}
            assert {endpoint["port"] for endpoint in thing["spec"]["endpoints"]} <= ports
    assert set(of_kind("PodDisruptionBudget")) == set(labels)


def test_the_network_is_closed_but_for_what_is_needed() -> None:
    """The service reaches names, database and collector; the collector is reached by the service and by scrapes."""
    policies = of_kind("NetworkPolicy")
    service, collector = policies["audit-auditrace"]["spec"], policies["audit-auditrace-collector"]["spec"]
    assert service["policyTypes"] == collector["policyTypes"] == ["Ingress", "Egress"]
    reached = [sorted(port["port"] for port in rule["ports"]) for rule in service["egress"]]
    assert reached == [[53, 53], [5432], [4317, 4318, 4327, 4328]]
    taken = [sorted(port["port"] for port in rule["ports"]) for rule in collector["ingress"]]
    assert taken == [[4317, 4318, 4327, 4328], [8888]]
    assert all(rule["from"] for rule in collector["ingress"])


def test_the_alerts_are_the_tested_ones_with_links_that_lead_somewhere() -> None:
    """All rules of deploy/alerts, unchanged but for the address before the runbook."""
    (rule,) = of_kind("PrometheusRule").values()
    made = rule["spec"]["groups"]
    shipped = [
        group
        for path in sorted((ROOT / "deploy" / "alerts").glob("*.rules.yaml"))
        for group in yaml.safe_load(path.read_text())["groups"]
    ]
    text = json.dumps(shipped).replace("docs/runbook.md", "https://forge.example/auditrace/docs/runbook.md")
    assert made == json.loads(text)


def test_the_keys_are_copied_for_their_owner_only() -> None:
    """The service refuses a private key that others can read, and a Secret is mounted so that a group can."""
    for name, pod in pods():
        if not name.startswith("Deployment"):
            continue
        (keys,) = pod["initContainers"]
        volumes = {volume["name"]: volume for volume in pod["volumes"]}
        assert volumes["given"]["secret"]["secretName"] == "auditrace-keys"
        assert volumes["keys"]["emptyDir"]["medium"] == "Memory"
        assert "umask 077" in keys["command"][-1]
        assert {mount["name"] for mount in pod["containers"][0]["volumeMounts"]} >= {"keys", "work", "tmp"}
        assert "given" not in {mount["name"] for mount in pod["containers"][0]["volumeMounts"]}


def test_the_script_that_copies_the_keys_leaves_them_as_the_service_wants_them(tmp_path: Path) -> None:
    """Run for real: links as Kubernetes makes them become files that only their owner can read."""
    given, keys = tmp_path / "given", tmp_path / "keys"
    (given / "..data").mkdir(parents=True)
    keys.mkdir()
    for name in ("signing.pem", "ledger.secret"):
        (given / "..data" / name).write_text(name)
        (given / "..data" / name).chmod(0o440)
        (given / name).symlink_to(Path("..data") / name)
    (deployment,) = [each for each in of_kind("Deployment").values() if each["metadata"]["name"].endswith("relay")]
    command = deployment["spec"]["template"]["spec"]["initContainers"][0]["command"]
    script = command[-1].replace("/given", str(given)).replace("/keys", str(keys))
    subprocess.run([*command[:-1], script], check=True)
    assert oct((keys / "own").stat().st_mode & 0o777) == "0o700"
    assert {each.name: oct(each.stat().st_mode & 0o777) for each in (keys / "own").iterdir()} == {
        "signing.pem": "0o600",
        "ledger.secret": "0o600",
    }


def test_the_test_of_the_chart_asks_a_real_service(tmp_path_factory: pytest.TempPathFactory) -> None:
    """What `helm test` would run says of a running service that it is well, and of none that it is not."""
    (pod,) = of_kind("Pod").values()
    *command, url = pod["spec"]["containers"][0]["command"]
    assert url == "http://audit-auditrace:8080"
    with Service(tmp_path_factory.mktemp("service")) as service:
        done = subprocess.run([*command, service.url], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["status"] == "ready"
    assert subprocess.run([*command, service.url], capture_output=True, check=False).returncode != 0


def test_the_documented_rotation_of_the_signing_key_works(tmp_path: Path) -> None:
    """A key that lies beside the old one signs from the rotation on, without a restart, and everything verifies."""
    keys = tmp_path / "keys"
    keys.mkdir()
    for name in ("signing.pem", "signing.pem.next"):
        subprocess.run(["openssl", "genpkey", "-algorithm", "ed25519", "-out", keys / name], check=True)
    secret = subprocess.run(["openssl", "rand", "-hex", "32"], capture_output=True, check=True).stdout
    (keys / "ledger.secret").write_bytes(secret)
    for file in keys.iterdir():
        file.chmod(0o600)
    old = public_key(keys / "signing.pem")
    with Service(tmp_path, {"AUDITRACE_CHECKPOINT_INTERVAL": "1s"}) as service:
        client = service.client()
        rotated = service.command("keys", "rotate", "--new-key", str(keys / "signing.pem.next"))
        assert "checkpoints from" in rotated.stdout

        def signed() -> list[str]:
            return [key for (key,) in service.rows("SELECT DISTINCT fingerprint FROM audit_checkpoints")]

        poll_until(lambda: len(signed()) == 2, "a checkpoint by the new key")
        assert client.get("/health/ready")["checks"]["checkpoints"] == "ok"
        assert client.get("/health/ready")["checks"]["verification"] == "ok"
    assert {each.name for each in keys.iterdir()} >= {"signing.pem", "ledger.secret"}
    report = verify(read_copy([service.archive.parent]), public_keys=[old, public_key(keys / "signing.pem")])
    assert (report.verdict, report.findings) == ("intact", ())

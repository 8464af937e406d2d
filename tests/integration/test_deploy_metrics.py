"""The alerts meet the real thing: what they ask for is exported, and a real fault makes a real Prometheus fire."""

import re
import sqlite3
import urllib.request
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import msgspec
import pytest
import yaml

from service.jobs.plan import plan_sha256
from service.store.rows import decode_job, encode
from tests.support.collector import Collector
from tests.support.otlp_client import post
from tests.support.otlp_sink import Answer, OtlpSink
from tests.support.poll_until import poll_until
from tests.support.prometheus import ALERTS, Prometheus
from tests.support.service import Service
from tests.support.telemetry_maker import audit_request
from tests.support.webhook_receiver import WebhookReceiver
from tests.support.webhooks import secret_file

_METRIC = re.compile(r"\b((?:auditrace|otelcol|http_server)_\w+)")
_LABELS = re.compile(r"\bby \([^)]*\)")
_SERIES = re.compile(r"^(\w+)(?:\{.*\})? ", re.MULTILINE)


def asked_for(rules: str) -> set[str]:
    """Return the metrics that the expressions of a file of rules name."""
    groups = yaml.safe_load((ALERTS / rules).read_text())["groups"]
    return {
        name for group in groups for rule in group["rules"] for name in _METRIC.findall(_LABELS.sub("", rule["expr"]))
    }


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service that verifies itself every second, and has an endpoint of webhooks that takes everything."""
    folder = tmp_path_factory.mktemp("service")
    settings = {
        "AUDITRACE_SELF_CHECK_INTERVAL": "1s",
        "AUDITRACE_CHECKPOINT_INTERVAL": "1s",
        "AUDITRACE_WEBHOOKS": str(folder / "webhooks.toml"),
    }
    with WebhookReceiver() as receiver:
        endpoint = f'url = "{receiver.url}"\nsecret_file = "{secret_file(folder)}"\nallow_private = true\n'
        (folder / "webhooks.toml").write_text(f"[endpoints.siem]\n{endpoint}")
        with Service(folder, settings) as running:
            yield running


def exported(url: str) -> set[str]:
    """Return the names of the series of a scrape."""
    with urllib.request.urlopen(url, timeout=30) as answer:
        return set(_SERIES.findall(answer.read().decode()))


def test_every_metric_that_an_alert_asks_the_service_for_is_there(service: Service) -> None:
    """No alert on the service waits for a series that nobody exports."""
    service.client().create("greet", name="you")
    poll_until(
        lambda: asked_for("auditrace.rules.yaml") <= exported(f"{service.url}/metrics"), "all of them", timeout_s=30
    )


def test_a_change_of_the_database_shows_in_metrics_readiness_and_alerts(service: Service, tmp_path: Path) -> None:
    """Somebody edits a record: the next verification finds it, /health/ready names it, and the alert fires."""
    client = service.client()
    job = client.create("greet", name="you")
    with Prometheus(tmp_path, [service.url.removeprefix("http://")]) as prometheus:
        query = "auditrace_audit_verification_findings"
        poll_until(
            lambda: [value for _, value in prometheus.query(query)] == [0.0], "the scrape of an intact ledger", 30
        )
        assert client.get("/health/ready")["checks"]["verification"] == "ok"
        with closing(sqlite3.connect(service.database, timeout=30)) as connection:
            triggers = connection.execute("SELECT name FROM sqlite_schema WHERE type = 'trigger'").fetchall()
            for (name,) in triggers:
                connection.execute(f"DROP TRIGGER {name}")
            record_id = client.create("greet", name="me")["audit"]["record_id"]
            edit = "UPDATE audit_records SET body = replace(body, '\"me\"', '\"us\"') WHERE record_id = ?"
            assert connection.execute(edit, (record_id,)).rowcount == 1
            connection.commit()
        poll_until(lambda: "AuditVerifyBroken" in prometheus.alerts(), "the alert")
        assert "AuditOutboxOld" not in prometheus.alerts()
    ready = client.get("/health/ready")
    assert ready["status"] == "ready"
    assert re.search(r"[1-9]\d* findings?, first \w+ at [0-9a-f-]{36}:\d+", ready["checks"]["verification"])
    assert client.get(f"/v1/jobs/{job['id']}")["status"] == "created"


def test_a_run_that_is_refused_shows_in_metrics_readiness_and_alerts(service: Service, tmp_path: Path) -> None:
    """Somebody changes the plan of a draft, with its hash: the worker does not run it, and the alert fires."""
    client = service.client()
    job_id = client.create("greet", name="you")["id"]
    client.post(f"/v1/jobs/{job_id}/draft")
    ((document,),) = service.rows("SELECT document FROM jobs WHERE job_id = ?", job_id)
    job = decode_job(document)
    assert job.plan is not None
    plan = msgspec.structs.replace(job.plan, argv=("id",))
    changed = msgspec.structs.replace(job, plan=msgspec.structs.replace(plan, sha256=plan_sha256(plan)))
    with closing(sqlite3.connect(service.database, timeout=30)) as connection:
        connection.execute("DROP TRIGGER IF EXISTS jobs_change_by_versions")
        connection.execute("UPDATE jobs SET document = ? WHERE job_id = ?", (encode(changed), job_id))
        connection.commit()
    with Prometheus(tmp_path, [service.url.removeprefix("http://")]) as prometheus:
        client.post(f"/v1/jobs/{job_id}/run")
        assert client.until(job_id, "failed")["runs"][-1]["error_type"] == "job_differs"
        poll_until(lambda: "AuditRunRefused" in prometheus.alerts(), "the alert")
    ready = client.get("/health/ready")
    assert (ready["status"], f"run 1 of job {job_id}" in ready["checks"]["worker"]) == ("ready", True)


def test_a_store_that_refuses_for_good_fires_the_alert_out_of_nothing(tmp_path: Path) -> None:
    """The first dropped records of a collector's life are seen, though their counter was not there before."""
    with (
        OtlpSink(lambda _: Answer(400)) as store,
        Collector(tmp_path / "collector", {"AUDIT_LOGS_ENDPOINT": store.http_endpoint}) as collector,
        Prometheus(tmp_path / "metrics", [collector.metrics_endpoint.split("/")[2]]) as prometheus,
    ):
        poll_until(lambda: bool(prometheus.query("otelcol_process_uptime")), "the first scrape")
        assert "AuditExporterDropped" not in prometheus.alerts()
        assert post(collector.audit_endpoint, audit_request()).status == 200
        poll_until(lambda: "AuditExporterDropped" in prometheus.alerts(), "the alert")
        named = {name for name in asked_for("collector.rules.yaml") if "queue" in name or "failed_log" in name}
        assert named - {"otelcol_exporter_enqueue_failed_log_records"} <= prometheus.names()

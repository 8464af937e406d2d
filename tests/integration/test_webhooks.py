"""Webhooks in the processes of a deployment: where they run, what they show, and that a wrong file starts nothing."""

import hashlib
import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from service.webhooks.endpoints import KEYS
from service.webhooks.filters import FILTERS
from tests.support.collector import ROOT
from tests.support.deployment import RelayProcess
from tests.support.poll_until import poll_until
from tests.support.service import Service
from tests.support.webhook_receiver import Reply, WebhookReceiver
from tests.support.webhooks import secret_file

DOCUMENT = ROOT / "docs" / "webhooks.md"

FILE = """
[endpoints.siem]
url = "{url}"
secret_file = "webhook.secret"
allow_private = true
timeout = "2s"
filter.event_name = "job.create"
"""


@pytest.fixture
def receiver() -> Iterator[WebhookReceiver]:
    """A receiver that listens."""
    with WebhookReceiver() as started:
        yield started


def service_with(folder: Path, text: str, *arguments: str) -> Service:
    """Return a service whose file of webhooks has this text."""
    service = Service(folder, {"AUDITRACE_WEBHOOKS": str(folder / "webhooks.toml")}, arguments)
    (folder / "webhooks.toml").write_text(text)
    secret_file(folder)
    return service


def arrives(receiver: WebhookReceiver, *record_ids: str) -> None:
    """Wait until these records have arrived, each once and in this order, and no other has."""
    poll_until(lambda: len(receiver.kept()) >= len(record_ids), "the webhooks")
    assert [each.id for each in receiver.kept()] == list(record_ids)


def checks_of(service: Service) -> dict[str, dict[str, str]]:
    """Return what `auditrace doctor` says, by check."""
    told = json.loads(service.command("doctor", "--json", check=False).stdout)
    return {one["check"]: one for one in told["checks"]}


def test_a_service_delivers_and_shows_what_it_delivers(receiver: WebhookReceiver, tmp_path: Path) -> None:
    """Records of the endpoint's kind arrive; metrics, readiness and `doctor` name the endpoint, and its outage."""
    with service_with(tmp_path, FILE.format(url=receiver.url)) as service:
        client = service.client()
        sent = [client.create("greet", name=name)["audit"]["record_id"] for name in "ab"]
        arrives(receiver, *sent)
        assert client.get("/health/ready")["checks"]["webhooks"] == "ok"
        receiver.reply = Reply(503)
        sent.append(client.create("greet", name="c")["audit"]["record_id"])

        def is_shown() -> bool:
            ready = client.get("/health/ready")
            assert ready["status"] == "ready"
            return "webhook siem (http://127.0.0.1:" in ready["checks"]["webhooks"]

        poll_until(is_shown, "the readiness detail")
        metrics = httpx.get(f"{service.url}/metrics", timeout=30).text
        assert _value(metrics, "auditrace_webhook_lag", 'auditrace_webhook_name="siem"') > 0
        assert _value(metrics, "auditrace_webhook_age_seconds", 'auditrace_webhook_name="siem"') > 0
        assert _value(metrics, "auditrace_webhook_deliveries_total", 'error_type="503"') > 0
        poll_until(lambda: checks_of(service)["webhooks"]["status"] == "wrong", "doctor")
        assert re.search(
            r"siem holds \d+ records back: 503 Service Unavailable", checks_of(service)["webhooks"]["detail"]
        )
        receiver.reply = Reply()
        arrives(receiver, *sent)
        poll_until(lambda: client.get("/health/ready")["checks"]["webhooks"] == "ok", "the end of the outage")
        poll_until(lambda: checks_of(service)["webhooks"]["status"] == "ok", "doctor")
        assert re.fullmatch(r"siem is \d+ records behind", checks_of(service)["webhooks"]["detail"])


def _value(metrics: str, name: str, label: str) -> float:
    found = re.search(rf"^{name}\{{[^}}]*{label}[^}}]*\}} (\S+)$", metrics, re.MULTILINE)
    assert found is not None, metrics
    return float(found[1])


def test_a_relay_delivers_webhooks_and_a_service_without_relay_does_not(
    receiver: WebhookReceiver, tmp_path: Path
) -> None:
    """With `--no-relay` a process makes no requests of any kind; what it commits is delivered by `auditrace relay`."""
    with service_with(tmp_path, FILE.format(url=receiver.url), "--no-relay") as service:
        assert "webhooks" not in service.client().get("/health/ready")["checks"]
        relay = RelayProcess(service)
        relay.start()
        poll_until(lambda: bool(service.rows("SELECT 1 FROM webhook_endpoints")), "the endpoint to begin")
        record_id = service.client().create("greet", name="a")["audit"]["record_id"]
        arrives(receiver, record_id)
        assert relay.stop() == 0


def test_a_stop_does_not_wait_for_a_dead_endpoint(receiver: WebhookReceiver, tmp_path: Path) -> None:
    """The endpoint hangs: the service ends cleanly, and the next start delivers what is left."""
    receiver.reply = Reply(hang=True)
    service = service_with(tmp_path, FILE.format(url=receiver.url).replace('"2s"', '"120s"'))
    service.start()
    record_id = service.client().create("greet", name="a")["audit"]["record_id"]
    poll_until(lambda: receiver.request_count > 0, "a request")
    # It would wait two minutes for the answer; the harness waits for one.
    assert service.stop() == 0
    receiver.reply = Reply()
    with service:
        arrives(receiver, record_id)


def test_the_document_leads_to_a_verified_webhook(receiver: WebhookReceiver, tmp_path: Path) -> None:
    """Its secret, its file and its check by hand: what a service sends for them is signed as openssl signs it."""
    document = DOCUMENT.read_text()
    (make,) = re.findall(r"^ *\$ (\(umask .*)$", document, re.MULTILINE)
    (declared,) = re.findall(r"```toml\n(.*?)```", document, re.DOTALL)
    (by_hand,) = re.findall(r"```sh\n(.*?)```", document, re.DOTALL)
    _bash(make, tmp_path)
    text = declared.replace("https://hooks.example.com/auditrace", receiver.url)
    text = text.replace("secret_file = ", "allow_private = true\nsecret_file = ").replace("job.confirm", "job.create")
    receiver.secret = (tmp_path / "var" / "siem.secret").read_text().strip()
    with service_with(tmp_path, text) as service:
        service.client().post("/v1/jobs", {"template": "unknown", "parameters": {}}, expect=400)
        poll_until(lambda: len(receiver.kept()) == 1, "the webhook")
    (webhook,) = receiver.kept()
    (tmp_path / "body.json").write_bytes(webhook.body)
    names = {"ID": webhook.headers["webhook-id"], "TIMESTAMP": webhook.headers["webhook-timestamp"]}
    signature = _bash(by_hand, tmp_path, **names).strip()
    assert f"v1,{signature}" == webhook.headers["webhook-signature"]
    body = str(webhook.payload["data"]["body"])
    assert hashlib.sha256(body.encode()).hexdigest() == webhook.payload["data"]["record_hash"]


def test_the_document_names_every_key_and_filter() -> None:
    """The table of docs/webhooks.md has each key of an endpoint, and each filter, and no other."""
    keys = re.findall(r"^\| `(\w+)` \| [^|]+ \| ([^|]+) \|$", DOCUMENT.read_text(), re.MULTILINE)
    assert {key for key, _ in keys} == set(KEYS)
    assert re.findall(r"`(\w+)`", dict(keys)["filter"].partition(":")[0]) == list(FILTERS)


def _bash(script: str, folder: Path, **variables: str) -> str:
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=folder,
        env={"PATH": "/usr/local/bin:/usr/bin:/bin", **variables},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout


def test_a_wrong_file_starts_nothing(tmp_path: Path) -> None:
    """All mistakes of the file and of its secrets are named at once, and no database or key is made."""
    text = (
        '[endpoints.a]\nurl = "ftp://x/"\nsecret_file = "s"\n[endpoints.b]\nurl = "https://x/"\nsecret_file = "none"\n'
    )
    service = service_with(tmp_path, text)
    for command in (["serve"], ["relay"], ["doctor"]):
        done = service.command(*command, check=False)
        assert done.returncode != 0
        said = done.stdout + done.stderr
        assert "endpoints.a.url: must begin with https://" in said, said
        assert "none is missing: make it as docs/webhooks.md says" in said, said
    assert not (tmp_path / "keys").exists()
    assert not service.database.exists()

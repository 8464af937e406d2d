"""What a process applies, as one document: every setting counts or has a reason, and no secret gets in."""

from ipaddress import ip_network
from pathlib import Path

import msgspec
import pytest

from service.bootstrap import configuration as tables
from service.bootstrap.configuration import ConfiguredPart, Stated, stated, template_text
from service.config import Settings, read_settings
from service.jobs.templates import templates_of
from service.ports import RecordFilter
from service.secrets import DeploymentSecret
from service.webhooks import WebhookEndpoint
from telemetry.delivery.settings import SinkSettings
from telemetry.otel_settings import OtelSettings, SignalSettings

MASK = DeploymentSecret(b"s" * 32).mask
EVERYTHING = frozenset(ConfiguredPart)


def _stated(environment: dict[str, str], parts: frozenset[ConfiguredPart] = EVERYTHING) -> Stated:
    return stated(read_settings(environment), parts, MASK, version="1", fingerprint="sha256:f", templates={})


def test_every_setting_counts_or_has_a_reason_not_to() -> None:
    """A new setting is put into one of the lists, or this test fails."""
    listed = [*tables.LISTED, *tables.OTHERWISE, *tables.LEFT_OUT]
    assert sorted(listed) == sorted(field.name for field in msgspec.structs.fields(Settings))
    members = {
        field.name for kind in (OtelSettings, SignalSettings, SinkSettings) for field in msgspec.structs.fields(kind)
    }
    assert sorted([*tables.TELEMETRY_LISTED, *tables.TELEMETRY_LEFT_OUT]) == sorted(members)


def test_every_member_of_a_webhook_endpoint_counts() -> None:
    """Another address, filter, file or permission of an endpoint shows, and its path only as a keyed hash."""
    endpoint = WebhookEndpoint(
        name="siem",
        scheme="https",
        host="hooks.example.com",
        port=8443,
        target="/hunter2",
        secret_file=Path("/s"),
        where=RecordFilter(tenant_id="acme"),
    )
    others = {
        "scheme": "http",
        "host": "other.example.com",
        "port": 8444,
        "target": "/hunter3",
        "secret_file": Path("/t"),
        "where": RecordFilter(tenant_id="acme", result=("denied",)),
        "from_start": True,
        "allowed": (ip_network("10.0.0.0/8"),),
        "may_be_plain": True,
        "ca_file": Path("/c"),
    }
    assert {"name", "timeout_s", *others} == {field.name for field in msgspec.structs.fields(WebhookEndpoint)}
    settings = read_settings({})
    shown = {
        stated(settings, EVERYTHING, MASK, version="1", templates={}, endpoints=[each]).configuration.document
        for each in (endpoint, *(msgspec.structs.replace(endpoint, **{name: value}) for name, value in others.items()))
    }
    assert len(shown) == 1 + len(others)
    assert not any("hunter" in document for document in shown)


@pytest.mark.parametrize(
    ("name", "value", "other", "shown"),
    [
        (
            "OTEL_EXPORTER_OTLP_HEADERS",
            "authorization=Bearer%20hunter2",
            "authorization=Bearer%20hunter3",
            "sink.headers",
        ),
        (
            "OTEL_EXPORTER_OTLP_ENDPOINT",
            "http://c:4318/p?key=hunter2",
            "http://c:4318/p?key=hunter3",
            "sink.endpoint.secret",
        ),
        (
            "AUDITRACE_AUDIT_ENDPOINT",
            "http://c:4328/p?key=hunter2",
            "http://c:4328/p?key=hunter3",
            "sink.endpoint.secret",
        ),
        ("http_proxy", "http://user:hunter2@proxy:3128", "http://user:hunter3@proxy:3128", "sink.proxy.secret"),
    ],
)
def test_a_secret_shows_only_that_it_changed(name: str, value: str, other: str, shown: str) -> None:
    """The document holds a keyed hash in its place, and everything else stays the same."""
    more = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318"}
    one, changed = (_stated({**more, name: text}).configuration for text in (value, other))
    assert "hunter" not in one.document + changed.document
    assert str(one.settings[shown]).startswith("hmac-sha256:")
    differing = {key for key in one.settings if one.settings[key] != changed.settings.get(key)}
    assert shown in differing
    assert all(str(one.settings[key]).startswith("hmac-sha256:") for key in differing)


def test_a_process_states_the_parts_that_it_has() -> None:
    """A worker states no sink and no issuers, a relay no checkpoints."""
    issuer = {
        "AUDITRACE_JWT_ISSUER": "https://id",
        "AUDITRACE_JWT_AUDIENCE": "a",
        "AUDITRACE_JWT_JWKS": "https://id/k?x=1",
    }
    whole = _stated(issuer).configuration.settings
    assert (whole["jwt.issuer"], whole["jwt.jwks"], whole["jwt.roles_claim"]) == ("https://id", "https://id/k", "roles")
    worker = _stated(issuer, frozenset({ConfiguredPart.LEDGER, ConfiguredPart.WORKER})).configuration
    assert not worker.sink
    assert not any(name.startswith("jwt.") for name in worker.settings)
    assert worker.settings["worker_slots"] == 2
    relay = _stated(issuer, frozenset({ConfiguredPart.RELAY})).configuration
    assert dict(relay.sink) == {"sink.archive": str(Path("var/archive/audit.jsonl").resolve())}
    assert "checkpoint_interval_ms" not in relay.settings


def test_a_sink_over_grpc_is_stated_as_a_url() -> None:
    """The address says the protocol and whether TLS is used, so that the sink can be opened again."""
    for url in ("grpc://c:4327", "grpcs://c:4327", "https://c:4328/v1/logs"):
        assert _stated({"AUDITRACE_AUDIT_ENDPOINT": url}).configuration.settings["sink.endpoint"] == url


def test_a_folder_behind_the_same_name_is_another_sink(tmp_path: Path) -> None:
    """A link that leads elsewhere is a change of the archive."""
    (tmp_path / "one").mkdir()
    (tmp_path / "other").mkdir()
    found = []
    for name in ("one", "other"):
        (tmp_path / "archive").unlink(missing_ok=True)
        (tmp_path / "archive").symlink_to(tmp_path / name)
        environment = {"AUDITRACE_AUDIT_ARCHIVE": str(tmp_path / "archive" / "audit.jsonl")}
        found.append(_stated(environment).configuration.settings["sink.archive"])
    assert found == [str(tmp_path / name / "audit.jsonl") for name in ("one", "other")]


def test_the_text_of_a_template_is_canonical_and_has_its_defaults() -> None:
    """The order of a file changes nothing, and what is left out shows as what it means."""
    one = {"description": "d", "command": ["true"], "limits": {"memory": "1GiB"}}
    other = {"limits": {"memory": "1024MiB"}, "command": ["true"], "description": "d", "requires_confirmation": False}
    texts = [template_text(templates_of({"templates": {"a": content}})["a"]) for content in (one, other)]
    assert texts[0] == texts[1]
    assert '"requires_confirmation":false' in texts[0]


def test_what_proxies_may_say_counts() -> None:
    """A proxy that is trusted, or a header in which it may name anybody, shows."""
    plain = _stated({}).configuration.settings
    assert not [name for name in plain if name.startswith("proxies.")]
    environment = {
        "AUDITRACE_TRUSTED_PROXIES": "10.0.0.7, 2001:db8::/64",
        "AUDITRACE_PROXY_IDENTITY_HEADER": "X-User",
        "AUDITRACE_PROXY_ROLES_HEADER": "X-Roles",
        "AUDITRACE_PROXY_TENANT_HEADER": "X-Tenant",
    }
    values = _stated(environment).configuration.settings
    assert {name: value for name, value in values.items() if name not in plain} == {
        "proxies.trusted": "10.0.0.7/32, 2001:db8::/64",
        "proxies.identity_header": "x-user",
        "proxies.roles_header": "x-roles",
        "proxies.tenant_header": "x-tenant",
    }

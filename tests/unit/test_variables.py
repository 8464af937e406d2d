"""Variables that look like settings and are none are refused with the nearest name; those of others are let be."""

import pytest

from service.config import examine_settings, read_settings
from service.errors import SettingsError
from service.variables import service_links
from telemetry.settings import SettingsReader

# What Kubernetes gives to every pod beside a Service called auditrace, whose pods it may be.
LINKS = {
    "AUDITRACE_SERVICE_HOST": "10.0.0.1",
    "AUDITRACE_SERVICE_PORT": "8080",
    "AUDITRACE_SERVICE_PORT_HTTP": "8080",
    "AUDITRACE_PORT": "tcp://10.0.0.1:8080",
    "AUDITRACE_PORT_8080_TCP": "tcp://10.0.0.1:8080",
    "AUDITRACE_PORT_8080_TCP_PROTO": "tcp",
    "AUDITRACE_PORT_8080_TCP_PORT": "8080",
    "AUDITRACE_PORT_8080_TCP_ADDR": "10.0.0.1",
}


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("AUDITRACE_PROT", "AUDITRACE_PORT"),
        ("AUDITRACE_DATABSE", "AUDITRACE_DATABASE"),
        ("AUDITRACE_ENDPOINT", "AUDITRACE_AUDIT_ENDPOINT"),
        ("AUDITRACE_LEDGER_SECRET_FILE", "AUDITRACE_LEDGER_SECRET"),
        ("AUDITRACE_JWT_AUDIANCE", "AUDITRACE_JWT_AUDIENCE"),
    ],
)
def test_an_unknown_name_is_refused_with_the_nearest_one(name: str, nearest: str) -> None:
    """Whoever misspells a setting would believe it to be in force."""
    with pytest.raises(SettingsError) as refused:
        read_settings({name: "secret"})
    assert refused.value.problems == (f"{name}: there is no such setting; did you mean {nearest}?",)


def test_a_name_that_is_like_none_is_refused_too() -> None:
    """The message says where all of them stand, and never shows the value."""
    with pytest.raises(SettingsError) as refused:
        read_settings({"AUDITRACE_XYZZY": "secret"})
    assert refused.value.problems == ("AUDITRACE_XYZZY: there is no such setting: docs/configuration.md has them all",)


def test_an_empty_variable_is_not_set() -> None:
    """Compose files pass variables that nobody has set as empty ones."""
    assert read_settings({"AUDITRACE_PROT": "", "AUDITRACE_PORT": ""}).port == 8080


@pytest.mark.parametrize(
    "name", ["AUDITRACE_JOB_ID", "AUDITRACE_RUN", "AUDITRACE_TEMPLATE", "AUDITRACE_IMAGE", "AUDITRACE_TEST_LONG"]
)
def test_what_runs_and_deployments_are_given_is_no_mistake(name: str) -> None:
    """A run may be a command of auditrace, and gets the variables of runs."""
    read_settings({name: "1"})


def test_service_links_of_kubernetes_are_ignored() -> None:
    """A pod beside a Service called auditrace starts as it would without it, and the port is the default."""
    settings = read_settings(
        {**LINKS, "AUDITRACE_COLLECTOR_SERVICE_HOST": "h", "AUDITRACE_COLLECTOR_SERVICE_PORT": "1"}
    )
    assert settings.port == 8080
    assert settings.environment["AUDITRACE_PORT"] == "tcp://10.0.0.1:8080"
    assert set(service_links(LINKS)) == set(LINKS)


def test_a_port_is_a_setting_also_beside_service_links() -> None:
    """Who sets AUDITRACE_PORT to a number in the pod means the setting."""
    assert read_settings({**LINKS, "AUDITRACE_PORT": "9090"}).port == 9090
    with pytest.raises(SettingsError, match="AUDITRACE_PORT: 'eighty'"):
        read_settings({**LINKS, "AUDITRACE_PORT": "eighty"})


@pytest.mark.parametrize("name", ["AUDITRACE_SERVICE_HOST", "AUDITRACE_PORT_8080_TCP", "AUDITRACE_SERVICE_PORT"])
def test_a_link_does_not_stand_alone(name: str) -> None:
    """Nobody who guesses the name of a setting is taken for Kubernetes."""
    with pytest.raises(SettingsError, match=name):
        read_settings({name: "10.0.0.1"})
    with pytest.raises(SettingsError, match="is not a whole number"):
        read_settings({"AUDITRACE_PORT": "tcp://10.0.0.1:8080"})


def test_what_is_wrong_has_its_default_and_a_port_is_any() -> None:
    """Those who look at more than the variables have settings to go on with, and no address that nobody named."""
    settings = examine_settings({"AUDITRACE_PORT": "x", "AUDITRACE_WORKER_SLOTS": "x", "AUDITRACE_RUN_LEASE": "x"})
    assert len(settings.problems) == 3
    assert (settings.port, settings.worker_slots, settings.run_lease_ms) == (0, 2, 60_000)


def test_empty_variables_of_telemetry_are_not_set_for_the_sdk_either(monkeypatch: pytest.MonkeyPatch) -> None:
    """The SDK reads them itself, and would stop at an empty number."""
    monkeypatch.setenv("OTEL_METRIC_EXPORT_INTERVAL", "")
    monkeypatch.setenv("OTEL_SERVICE_NAME", "mine")
    environment = read_settings().environment
    assert "OTEL_METRIC_EXPORT_INTERVAL" not in environment
    assert environment["OTEL_SERVICE_NAME"] == "mine"


def test_only_otel_variables_lose_white_space() -> None:
    """By the OpenTelemetry specification, a blank variable is not set. A blank setting of ours is a mistake."""
    reader = SettingsReader({"AUDITRACE_DATABASE": " ", "AUDITRACE_SIGNING_KEY": "/k ", "OTEL_A": " ", "OTEL_B": " x "})
    read = [reader.get(name) for name in ("AUDITRACE_DATABASE", "AUDITRACE_SIGNING_KEY", "OTEL_A", "OTEL_B")]
    assert read == [" ", "/k ", None, "x"]
    with pytest.raises(SettingsError, match="AUDITRACE_PORT: ' 8081' is not a whole number"):
        read_settings({"AUDITRACE_PORT": " 8081"})

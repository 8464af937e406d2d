"""Where records go and how is decided by the audit trail's own settings, then by the standard variables."""

from pathlib import Path

import pytest

from telemetry.delivery.settings import sink_settings
from telemetry.errors import TelemetrySettingsError
from telemetry.otlp_settings import GRPC, HTTP


def _where(environment: dict[str, str], endpoint: str | None = None) -> tuple[str, str, bool]:
    settings = sink_settings(environment, endpoint)
    assert settings is not None
    return settings.protocol, settings.endpoint, settings.is_secure


def test_without_an_endpoint_there_is_none() -> None:
    """The records then go to the embedded archive; an empty variable is not set."""
    assert sink_settings({}, None) is None
    assert sink_settings({"OTEL_EXPORTER_OTLP_ENDPOINT": " ", "OTEL_EXPORTER_OTLP_LOGS_ENDPOINT": ""}, "") is None
    assert sink_settings({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://localhost:4318/v1/traces"}, None) is None


@pytest.mark.parametrize(
    ("endpoint", "meant"),
    [
        ("http://localhost:4328/v1/logs", (HTTP, "http://localhost:4328/v1/logs", False)),
        ("https://logs.example.com/audit?tenant=a", (HTTP, "https://logs.example.com/audit?tenant=a", True)),
        ("http://localhost:4328", (HTTP, "http://localhost:4328/v1/logs", False)),
        ("http://localhost:4328/", (HTTP, "http://localhost:4328/v1/logs", False)),
        ("http://localhost:4327", (GRPC, "localhost:4327", False)),
        ("https://localhost:4317", (GRPC, "localhost:4317", True)),
        ("http://localhost:4317/v1/logs", (HTTP, "http://localhost:4317/v1/logs", False)),
        ("grpc://localhost:9000", (GRPC, "localhost:9000", False)),
        ("grpcs://localhost:9000", (GRPC, "localhost:9000", True)),
        ("grpc://localhost", (GRPC, "localhost:4317", False)),
        ("grpcs://[::1]", (GRPC, "[::1]:443", True)),
    ],
)
def test_the_audit_endpoint_says_what_is_spoken(endpoint: str, meant: tuple[str, str, bool]) -> None:
    """By its scheme, its path, or the port that everybody uses for gRPC."""
    assert _where({}, endpoint) == meant


def test_the_audit_endpoint_comes_first() -> None:
    """A collector of its own for audit records does not get the traces, and the other way round."""
    general = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": "http://general:4318",
        "OTEL_EXPORTER_OTLP_LOGS_ENDPOINT": "http://logs:4318/in",
        "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc",
    }
    assert _where(general, "http://audit:4328/v1/logs") == (HTTP, "http://audit:4328/v1/logs", False)
    assert _where(general, "http://audit:4328") == (GRPC, "audit:4328", False)


@pytest.mark.parametrize(
    ("environment", "meant"),
    [
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://a:4318"}, (HTTP, "http://a:4318/v1/logs", False)),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://a:4318/"}, (HTTP, "http://a:4318/v1/logs", False)),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "https://a/otlp/"}, (HTTP, "https://a/otlp/v1/logs", True)),
        ({"OTEL_EXPORTER_OTLP_LOGS_ENDPOINT": "http://a:4318"}, (HTTP, "http://a:4318/", False)),
        ({"OTEL_EXPORTER_OTLP_LOGS_ENDPOINT": "http://a:4318/v1/logs"}, (HTTP, "http://a:4318/v1/logs", False)),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://a:4317"}, (GRPC, "a:4317", False)),
        (
            {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://a:4317", "OTEL_EXPORTER_OTLP_PROTOCOL": HTTP},
            (HTTP, "http://a:4317/v1/logs", False),
        ),
        (
            {"OTEL_EXPORTER_OTLP_ENDPOINT": "https://a:9", "OTEL_EXPORTER_OTLP_LOGS_PROTOCOL": GRPC},
            (GRPC, "a:9", True),
        ),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "a:9", "OTEL_EXPORTER_OTLP_PROTOCOL": GRPC}, (GRPC, "a:9", True)),
        (
            {
                "OTEL_EXPORTER_OTLP_ENDPOINT": "a:9",
                "OTEL_EXPORTER_OTLP_PROTOCOL": GRPC,
                "OTEL_EXPORTER_OTLP_INSECURE": "true",
            },
            (GRPC, "a:9", False),
        ),
    ],
)
def test_the_standard_endpoints_mean_what_the_specification_says(
    environment: dict[str, str], meant: tuple[str, str, bool]
) -> None:
    """The general one is a base, the one for logs is taken as it is; the specific protocol wins."""
    assert _where(environment) == meant


def test_the_specific_variables_win(tmp_path: Path) -> None:
    """Headers, timeout, compression and files for logs come before the general ones."""
    for name in ("ca", "own", "key"):
        (tmp_path / name).touch()
    settings = sink_settings(
        {
            "OTEL_EXPORTER_OTLP_HEADERS": "a=1",
            "OTEL_EXPORTER_OTLP_LOGS_HEADERS": "B=2%2C3, c = d=e ,",
            "OTEL_EXPORTER_OTLP_TIMEOUT": "3",
            "OTEL_EXPORTER_OTLP_LOGS_TIMEOUT": "2.5",
            "OTEL_EXPORTER_OTLP_COMPRESSION": "gzip",
            "OTEL_EXPORTER_OTLP_LOGS_COMPRESSION": "zstd",
            "OTEL_EXPORTER_OTLP_CERTIFICATE": "/nowhere",
            "OTEL_EXPORTER_OTLP_LOGS_CERTIFICATE": str(tmp_path / "ca"),
            "OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE": str(tmp_path / "own"),
            "OTEL_EXPORTER_OTLP_CLIENT_KEY": str(tmp_path / "key"),
        },
        "https://audit:4328/v1/logs",
    )
    assert settings is not None
    assert settings.headers == {"b": "2,3", "c": "d=e"}
    assert (settings.timeout_s, settings.compression) == (2.5, "zstd")
    assert settings.files == (tmp_path / "ca", tmp_path / "own", tmp_path / "key")


def test_the_defaults_are_those_of_the_specification() -> None:
    """Ten seconds, no compression, no headers, the authorities of the system."""
    settings = sink_settings({}, "https://audit:4328/v1/logs")
    assert settings is not None
    assert (settings.timeout_s, settings.compression, settings.headers, settings.files) == (10.0, "none", {}, ())


@pytest.mark.parametrize(
    ("environment", "endpoint", "problem"),
    [
        ({}, "collector", "AUDITRACE_AUDIT_ENDPOINT: 'collector' is not a URL such as http://localhost:4328/v1/logs"),
        ({}, "ftp://collector/", "AUDITRACE_AUDIT_ENDPOINT: 'ftp://collector/' is not a URL"),
        ({}, "http://:4328/", "is not a URL"),
        ({}, "http://[::1/", "is not a URL"),
        ({}, "http://collector:99999/", "is not a URL"),
        ({}, "http://collector/a\nb", "is not a URL"),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "grpc://a:1"}, None, "OTEL_EXPORTER_OTLP_ENDPOINT: 'grpc://a:1' is not a URL"),
        ({"OTEL_EXPORTER_OTLP_PROTOCOL": "http/json"}, "http://a/b", "'http/json' is none of http/protobuf, grpc"),
        ({"OTEL_EXPORTER_OTLP_TIMEOUT": "soon"}, "http://a/b", "OTEL_EXPORTER_OTLP_TIMEOUT: 'soon' is not a number"),
        ({"OTEL_EXPORTER_OTLP_TIMEOUT": "0"}, "http://a/b", "is not a number of seconds"),
        ({"OTEL_EXPORTER_OTLP_TIMEOUT": "nan"}, "http://a/b", "is not a number of seconds"),
        ({"OTEL_EXPORTER_OTLP_COMPRESSION": "lz4"}, "http://a/b", "'lz4' is none of deflate, gzip, none, zstd"),
        ({"OTEL_EXPORTER_OTLP_COMPRESSION": "zstd"}, "grpc://a", "'zstd' is none of deflate, gzip, none, over grpc"),
        ({"OTEL_EXPORTER_OTLP_CERTIFICATE": "/nowhere"}, "https://a/b", "CERTIFICATE: there is no file /nowhere"),
    ],
)
def test_a_mistake_is_named_with_what_it_should_be(
    environment: dict[str, str], endpoint: str | None, problem: str
) -> None:
    """Nothing is guessed, and nothing is delivered to another place than the one that was meant."""
    with pytest.raises(TelemetrySettingsError) as raised:
        sink_settings(environment, endpoint)
    assert problem in str(raised.value)


def test_all_mistakes_are_named_at_once(tmp_path: Path) -> None:
    """Nobody has to start five times."""
    (tmp_path / "key").touch()
    environment = {
        "OTEL_EXPORTER_OTLP_TIMEOUT": "soon",
        "OTEL_EXPORTER_OTLP_COMPRESSION": "lz4",
        "OTEL_EXPORTER_OTLP_CLIENT_KEY": str(tmp_path / "key"),
    }
    with pytest.raises(TelemetrySettingsError) as raised:
        sink_settings(environment, "nowhere", tmp_path / "token")
    for part in (
        "AUDIT_ENDPOINT",
        "TIMEOUT",
        "COMPRESSION",
        "needs OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE",
        "TOKEN_FILE",
    ):
        assert part in str(raised.value)


@pytest.mark.parametrize(
    "headers", ["secret", "a=1,secret", "na me=secret", "a=sec%0Aret", "=secret", "a=secret\u00e9", "a=%FFsecret"]
)
def test_secrets_are_never_shown(headers: str) -> None:
    """Neither wrong headers nor credentials in a URL appear in what is said about them."""
    with pytest.raises(TelemetrySettingsError) as raised:
        sink_settings({"OTEL_EXPORTER_OTLP_HEADERS": headers}, "http://user:secret@audit:4328/v1/logs")
    assert "OTEL_EXPORTER_OTLP_HEADERS: must be name=value pairs" in str(raised.value)
    assert "credentials do not belong in the URL" in str(raised.value)
    assert "sec" not in str(raised.value)

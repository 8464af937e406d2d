"""Everything that leaves the process goes through the proxy that the variables name, and past it where they say so."""

import logging
from collections.abc import Iterator, Mapping
from pathlib import Path

import httpx
import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord, ResourceLogs, ScopeLogs
from trustme import CA

from service.api.jwks import fetch_from
from telemetry.delivery import open_sink
from telemetry.delivery.answers import Accepted, Answer, Unreachable
from telemetry.delivery.settings import sink_settings
from telemetry.setup import set_up
from tests.support.certificates import issue, write
from tests.support.deliveries import wall_clock
from tests.support.otlp_sink import OtlpSink
from tests.support.proxies import Proxy

REQUEST = ExportLogsServiceRequest(
    resource_logs=[ResourceLogs(scope_logs=[ScopeLogs(log_records=[LogRecord(event_name="job.create")])])]
).SerializeToString()
CREDENTIALS = "me:s3cret@:/"
ENCODED = "me:s3cret%40%3A%2F"
LOG = logging.getLogger("service.test")


@pytest.fixture
def server() -> Iterator[OtlpSink]:
    """A server to be reached."""
    with OtlpSink() as running:
        yield running


def _audit(environment: Mapping[str, str], endpoint: str) -> Answer:
    settings = sink_settings({"OTEL_EXPORTER_OTLP_TIMEOUT": "20", **environment}, endpoint)
    assert settings is not None
    sink = open_sink(settings, wall_clock)
    try:
        return sink.send(REQUEST)
    finally:
        sink.close()


def _port(endpoint: str) -> str:
    return endpoint.rpartition(":")[2].partition("/")[0]


def _scheme(kind: str) -> str:
    return "socks5" if kind == "socks" else "http"


@pytest.mark.parametrize("kind", ["forward", "socks"])
@pytest.mark.parametrize("credentials", [None, CREDENTIALS])
def test_audit_records_over_http_go_through_the_proxy(server: OtlpSink, kind: str, credentials: str | None) -> None:
    """An HTTP proxy forwards, a SOCKS proxy connects; with the credentials that stand encoded in its URL."""
    with Proxy(credentials) as proxy:
        login = "" if credentials is None else f"{ENCODED}@"
        answer = _audit({"ALL_PROXY": f"{_scheme(kind)}://{login}{proxy.address}"}, f"{server.http_endpoint}/v1/logs")
        assert answer == Accepted()
        assert proxy.asked == [f"{kind} 127.0.0.1:{_port(server.http_endpoint)}"]
    assert server.kept_count == 1


def test_audit_records_over_https_are_tunnelled(tmp_path: Path) -> None:
    """The proxy sees host and port and no more: the certificate that is checked is the collector's."""
    authority = CA()
    tls = write(issue(authority), tmp_path, "sink")
    (tmp_path / "ca.crt").write_bytes(authority.cert_pem.bytes())
    with OtlpSink(tls=tls) as server, Proxy() as proxy:
        environment = {"https_proxy": proxy.address, "OTEL_EXPORTER_OTLP_CERTIFICATE": str(tmp_path / "ca.crt")}
        assert _audit(environment, f"{server.http_endpoint}/v1/logs") == Accepted()
        assert proxy.asked == [f"connect 127.0.0.1:{_port(server.http_endpoint)}"]


@pytest.mark.parametrize("credentials", [None, CREDENTIALS])
@pytest.mark.parametrize("variable", ["grpc_proxy", "HTTPS_PROXY", "ALL_PROXY"])
def test_audit_records_over_grpc_go_through_the_proxy(server: OtlpSink, variable: str, credentials: str | None) -> None:
    """By CONNECT, with and without credentials, also by variables that gRPC itself does not read."""
    with Proxy(credentials) as proxy:
        login = "" if credentials is None else f"{ENCODED}@"
        environment = {variable: f"http://{login}{proxy.address}"}
        assert _audit(environment, f"grpc://{server.grpc_endpoint}") == Accepted()
        assert proxy.asked == [f"connect {server.grpc_endpoint}"]


@pytest.mark.parametrize("no_proxy", ["127.0.0.1", "127.0.0.0/8,[::1]", "fe80::/10 127.0.0.1:{port}", "*"])
@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_what_no_proxy_names_is_reached_past_it(
    server: OtlpSink, monkeypatch: pytest.MonkeyPatch, protocol: str, no_proxy: str
) -> None:
    """Every form holds for both protocols, also where the library that sends knows the form not, or otherwise."""
    endpoint = f"{server.http_endpoint}/v1/logs" if protocol == "http" else f"grpc://{server.grpc_endpoint}"
    with Proxy() as proxy:
        environment = {
            "http_proxy": f"http://{proxy.address}",
            "NO_PROXY": no_proxy.format(port=_port(endpoint)),
        }
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        assert _audit(environment, endpoint) == Accepted()
        assert proxy.asked == []


def test_a_name_is_resolved_by_a_socks_proxy(server: OtlpSink) -> None:
    """Hosts that only the proxy knows can be reached."""
    with Proxy(resolve={"collector.invalid": "127.0.0.1"}) as proxy:
        endpoint = f"http://collector.invalid:{_port(server.http_endpoint)}/v1/logs"
        assert _audit({"http_proxy": f"socks5://{proxy.address}"}, endpoint) == Accepted()


@pytest.mark.parametrize("scheme", ["http", "socks5"])
@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_a_proxy_that_refuses_is_an_outage_and_names_no_credentials(
    server: OtlpSink, scheme: str, protocol: str
) -> None:
    """Nothing is delivered past it, and what is said of it holds no password."""
    if (scheme, protocol) == ("socks5", "grpc"):
        return
    with Proxy("me:other") as proxy:
        endpoint = f"{server.http_endpoint}/v1/logs" if protocol == "http" else f"grpc://{server.grpc_endpoint}"
        answer = _audit({"ALL_PROXY": f"{scheme}://me:s3cret@{proxy.address}"}, endpoint)
    assert not isinstance(answer, Accepted)
    assert "s3cret" not in str(answer)
    assert server.request_count == 0


def test_a_proxy_that_is_away_is_an_outage(server: OtlpSink) -> None:
    """The sink is not reached in another way."""
    with Proxy() as proxy:
        address = proxy.address
    answer = _audit({"HTTP_PROXY": f"http://me:s3cret@{address}"}, f"{server.http_endpoint}/v1/logs")
    assert isinstance(answer, Unreachable)
    assert "s3cret" not in str(answer)
    assert server.request_count == 0


def _export(environment: Mapping[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Let telemetry that is set up so export a span, metrics and a line of log."""
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    telemetry = set_up(environment, instance_id="i-1", version="1", certificate="sha256:ab", is_daemon=True)
    with telemetry.tracer.start_as_current_span("work"):
        LOG.info("said")
    telemetry.shutdown()
    telemetry._output.close()


@pytest.mark.parametrize("is_exempt", [False, True])
@pytest.mark.parametrize(
    ("protocol", "scheme", "kind"),
    [("http/protobuf", "http", "forward"), ("http/protobuf", "socks5", "socks"), ("grpc", "http", "connect")],
)
def test_traces_metrics_and_logs_take_the_same_way(
    server: OtlpSink,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    protocol: str,
    scheme: str,
    kind: str,
    is_exempt: bool,
) -> None:
    """The SDK's exporters go through the proxy, or past it, as audit records do."""
    # A name that only the proxy knows: what goes past it arrives nowhere.
    host = "127.0.0.1" if is_exempt else "collector.invalid"
    endpoint = f"{host}:{_port(server.grpc_endpoint if protocol == 'grpc' else server.http_endpoint)}"
    with Proxy(CREDENTIALS, {host: "127.0.0.1"}) as proxy:
        environment = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://{endpoint}",
            "OTEL_EXPORTER_OTLP_PROTOCOL": protocol,
            "ALL_PROXY": f"{scheme}://{ENCODED}@{proxy.address}",
            "NO_PROXY": "127.*,[::1]" if is_exempt else "fe80::/10,[::1]",
        }
        _export(environment, monkeypatch)
        assert set(proxy.asked) == (set() if is_exempt else {f"{kind} {endpoint}"})
    assert [each.span.name for each in server.spans()] == ["work"]
    assert server.metrics()
    assert [each.record.body.string_value for each in server.log_records()] == ["said"]
    assert "s3cret" not in capfd.readouterr().err


@pytest.mark.parametrize(
    ("protocol", "scheme"), [("http/protobuf", "http"), ("http/protobuf", "socks5"), ("grpc", "http")]
)
def test_what_exporters_say_of_a_proxy_that_refuses_holds_no_credentials(
    server: OtlpSink, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], protocol: str, scheme: str
) -> None:
    """The log says that nothing could be sent, and nothing was."""
    endpoint = server.grpc_endpoint if protocol == "grpc" else server.http_endpoint.removeprefix("http://")
    with Proxy("me:other") as proxy:
        environment = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://{endpoint}",
            "OTEL_EXPORTER_OTLP_PROTOCOL": protocol,
            "OTEL_EXPORTER_OTLP_TIMEOUT": "1",
            "ALL_PROXY": f"{scheme}://me:s3cret@{proxy.address}",
        }
        _export(environment, monkeypatch)
    said = capfd.readouterr().err
    assert "opentelemetry" in said
    assert "s3cret" not in said
    assert server.request_count == 0


@pytest.mark.parametrize("is_exempt", [False, True])
@pytest.mark.parametrize(("scheme", "kind"), [("http", "connect"), ("socks5", "socks")])
def test_the_keys_of_an_identity_provider_come_through_the_proxy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scheme: str, kind: str, is_exempt: bool
) -> None:
    """A JWKS URL is fetched by way of HTTPS_PROXY or ALL_PROXY, unless NO_PROXY names its host."""
    authority = CA()
    tls = write(issue(authority), tmp_path, "provider")
    (tmp_path / "ca.crt").write_bytes(authority.cert_pem.bytes())
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.crt"))
    with OtlpSink(tls=tls) as provider, Proxy() as proxy:
        url = f"{provider.http_endpoint}/jwks"
        environment = {"ALL_PROXY": f"{scheme}://{proxy.address}", "NO_PROXY": "127.0.0.1" if is_exempt else "[::1]"}
        # The server has no keys to give, but it was reached, and its certificate was trusted.
        with pytest.raises(httpx.HTTPStatusError):
            fetch_from(url, environment)()
        assert proxy.asked == ([] if is_exempt else [f"{kind} 127.0.0.1:{_port(url)}"])

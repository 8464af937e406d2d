"""The relay and the real collector: every protocol and compression, and TLS with secrets that change."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from telemetry.delivery import open_sink
from telemetry.delivery.answers import Sink
from telemetry.delivery.settings import sink_settings
from tests.integration.test_collector_tls import TOKEN, Secured
from tests.support.archive import archived
from tests.support.certificates import issue, replace, write
from tests.support.collector import Collector
from tests.support.deliveries import arrived, commit, committed, drain, relay_over, wall_clock
from tests.support.otlp_sink import OtlpSink
from tests.support.sqlite_stores import SqliteStore

WAYS = [
    *(("http", compression) for compression in ("none", "gzip", "deflate", "zstd")),
    *(("grpc", compression) for compression in ("none", "gzip")),
]


def _sink(endpoint: str, environment: dict[str, str], token_file: Path | None = None) -> Sink:
    settings = sink_settings({"OTEL_EXPORTER_OTLP_TIMEOUT": "30", **environment}, endpoint, token_file)
    assert settings is not None
    return open_sink(settings, wall_clock)


@pytest.fixture
def collector(tmp_path: Path) -> Iterator[Collector]:
    """The collector as it is shipped, with a log backend behind it."""
    with (
        OtlpSink() as backend,
        Collector(tmp_path / "collector", {"AUDIT_LOGS_ENDPOINT": backend.http_endpoint}) as one,
    ):
        yield one


def test_the_collector_takes_every_protocol_and_compression(store: SqliteStore, collector: Collector) -> None:
    """What it archives is what was committed, byte for byte, whichever way it came."""
    lane = store.lane()
    for protocol, compression in WAYS:
        commit(store, lane, 20)
        endpoint = collector.audit_endpoint if protocol == "http" else f"grpc://{collector.audit_grpc_endpoint}"
        sink = _sink(endpoint, {"OTEL_EXPORTER_OTLP_COMPRESSION": compression})
        outbox = store.outbox()
        drain(relay_over(store, sink, outbox))
        outbox.release()
        sink.close()
    assert arrived(each.record for each in archived(collector.archive_dir)) == committed(store)


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_changed_secrets_take_effect_without_a_restart(store: SqliteStore, tmp_path: Path, protocol: str) -> None:
    """A relay that is refused for its token, its certificate or its trust delivers once the files are right."""
    commit(store, store.lane(), 5)
    folder = tmp_path / "secured"
    folder.mkdir()
    with OtlpSink() as backend:
        secured = Secured(folder, backend)
        trusted, token = tmp_path / "servers.crt", tmp_path / "token"
        replace(trusted, secured.strangers.cert_pem.bytes())
        replace(token, b"another\n")
        certificate, key = write(issue(secured.strangers), tmp_path, "relay")
        environment = {
            "OTEL_EXPORTER_OTLP_CERTIFICATE": str(trusted),
            "OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE": str(certificate),
            "OTEL_EXPORTER_OTLP_CLIENT_KEY": str(key),
        }
        endpoint = secured.url if protocol == "http" else f"grpcs://{secured.collector.audit_grpc_endpoint}"
        with secured.collector:
            sink = _sink(endpoint, environment, token)
            relay = relay_over(store, sink)
            assert not relay.once()
            replace(trusted, secured.servers.cert_pem.bytes())
            assert not relay.once()
            write(issue(secured.clients), tmp_path, "relay")
            assert not relay.once()
            assert "401" in relay.state().text or "UNAUTHENTICATED" in relay.state().text
            replace(token, TOKEN.encode())
            drain(relay)
            assert arrived(each.record for each in archived(secured.collector.archive_dir)) == committed(store)
            sink.close()

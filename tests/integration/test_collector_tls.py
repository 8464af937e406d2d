"""With deploy/otelcol/tls.yaml audit records are taken only over TLS, from a known client that knows the token."""

import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import grpc
import pytest
from trustme import CA, LeafCert

from telemetry.names import AUDIT_RECORD_ID
from tests.support.archive import archived
from tests.support.certificates import issue, replace, write
from tests.support.collector import TLS, Collector
from tests.support.otlp_client import export, post
from tests.support.otlp_messages import log_records_of
from tests.support.otlp_sink import OtlpSink
from tests.support.poll_until import poll_until
from tests.support.telemetry_maker import app_request, audit_request, record_ids_of

TOKEN = "token-of-the-test"
# Small, because an answer to a body that was not read to its end may be lost to a reset.
SMALL = app_request("small", attributes={AUDIT_RECORD_ID: "019b76da-a800-7001-8000-000000000001"})


def _bearer(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}


def _outcome(url: str, token: str, tls: ssl.SSLContext | None = None) -> str:
    """Returns the status of an attempt, or why there was no answer."""
    try:
        return str(post(url, SMALL, headers=_bearer(token), tls=tls).status)
    except OSError as error:
        return str(error)


class Client(NamedTuple):
    """What a client trusts, and what it shows for itself; the same for HTTP and gRPC."""

    trusted: CA
    shown: LeafCert | None

    def http(self) -> ssl.SSLContext:
        """Returns the context for OTLP/HTTP."""
        context = ssl.create_default_context(cadata=self.trusted.cert_pem.bytes().decode())
        if self.shown:
            self.shown.configure_cert(context)
        return context

    def grpc(self) -> grpc.ChannelCredentials:
        """Returns the credentials for OTLP/gRPC."""
        trusted = self.trusted.cert_pem.bytes()
        if self.shown is None:
            return grpc.ssl_channel_credentials(trusted)
        shown = self.shown.cert_chain_pems[0].bytes()
        return grpc.ssl_channel_credentials(trusted, self.shown.private_key_pem.bytes(), shown)


class Secured:
    """A collector with the overlay, its secrets in a folder, and the authorities that vouch for both sides."""

    def __init__(self, folder: Path, store: OtlpSink) -> None:
        self.folder = folder
        self.servers, self.clients, self.strangers = CA(), CA(), CA()
        certificate, key = write(issue(self.servers), folder, "collector")
        replace(folder / "clients-ca.crt", self.clients.cert_pem.bytes())
        replace(folder / "token", f"{TOKEN}\n".encode())
        self.unauthenticated = folder / "unauthenticated"
        settings = {
            "AUDIT_TLS_CERT_FILE": str(certificate),
            "AUDIT_TLS_KEY_FILE": str(key),
            "AUDIT_TLS_CLIENT_CA_FILE": str(folder / "clients-ca.crt"),
            "AUDIT_TLS_RELOAD_INTERVAL": "100ms",
            "AUDIT_INGEST_TOKEN_FILE": str(folder / "token"),
            "AUDIT_UNAUTHENTICATED_DIR": str(self.unauthenticated),
            "AUDIT_LOGS_ENDPOINT": store.http_endpoint,
        }
        self.collector = Collector(folder, settings, [TLS])
        self.url = self.collector.audit_endpoint.replace("http:", "https:")
        self.known = Client(self.servers, issue(self.clients))


@pytest.fixture
def store() -> Iterator[OtlpSink]:
    """The log backend behind the audit pipeline."""
    with OtlpSink() as sink:
        yield sink


@pytest.fixture
def secured(tmp_path: Path, store: OtlpSink) -> Iterator[Secured]:
    """The secured collector, running."""
    secured = Secured(tmp_path, store)
    with secured.collector:
        yield secured


def test_a_known_client_with_the_token_is_served_on_both_ports(secured: Secured, store: OtlpSink) -> None:
    """Its records are in the archive when they are acknowledged, and reach the store."""
    first, second = audit_request(1), audit_request(2)
    assert post(secured.url, first, headers=_bearer(TOKEN), tls=secured.known.http()).status == 200
    endpoint = secured.collector.audit_grpc_endpoint
    assert export(endpoint, second, headers=_bearer(TOKEN), tls=secured.known.grpc()) is grpc.StatusCode.OK
    assert archived(secured.collector.archive_dir) == log_records_of([first, second])
    ids = set(record_ids_of(log_records_of([first, second])))
    poll_until(lambda: ids <= set(record_ids_of(store.log_records())), "the records in the store")


def test_a_missing_or_wrong_token_is_refused(secured: Secured) -> None:
    """A known client without the token, or with another, gets 401 and leaves nothing."""
    for headers in ({}, _bearer("another"), {"authorization": TOKEN}):
        assert post(secured.url, SMALL, headers=headers, tls=secured.known.http()).status == 401
        code = export(secured.collector.audit_grpc_endpoint, SMALL, headers=headers, tls=secured.known.grpc())
        assert code is grpc.StatusCode.UNAUTHENTICATED
    assert archived(secured.collector.archive_dir) == []


@pytest.mark.parametrize("wrong", ["none", "stranger", "expired"])
def test_a_client_that_cannot_prove_who_it_is_gets_no_connection(secured: Secured, wrong: str) -> None:
    """Without certificate, with one of another authority or one that has expired, the token does not help."""
    shown = {
        "none": None,
        "stranger": issue(secured.strangers),
        "expired": issue(secured.clients, is_expired=True),
    }[wrong]
    client = Client(secured.servers, shown)
    with pytest.raises(OSError, match=r"(?i)alert|eof|reset|broken pipe"):
        post(secured.url, SMALL, headers=_bearer(TOKEN), tls=client.http())
    code = export(secured.collector.audit_grpc_endpoint, SMALL, headers=_bearer(TOKEN), tls=client.grpc())
    assert code is grpc.StatusCode.UNAVAILABLE
    assert archived(secured.collector.archive_dir) == []


def test_plain_text_and_old_tls_are_refused(secured: Secured) -> None:
    """Plain HTTP gets 400 or no answer at all, and nothing older than TLS 1.3 is spoken."""
    # Where the connection is closed with the request unread, the reset may overtake the answer.
    plain = _outcome(secured.collector.audit_endpoint, TOKEN)
    assert plain == "400" or not plain.isdigit()
    old = secured.known.http()
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    with pytest.raises(OSError, match=r"(?i)version"):
        post(secured.url, SMALL, headers=_bearer(TOKEN), tls=old)
    assert archived(secured.collector.archive_dir) == []


def test_the_client_learns_that_the_collector_is_not_the_one_it_trusts(secured: Secured) -> None:
    """A client that trusts another authority sends nothing."""
    client = Client(secured.strangers, issue(secured.clients))
    with pytest.raises(OSError, match="certificate verify failed"):
        post(secured.url, SMALL, headers=_bearer(TOKEN), tls=client.http())


def test_a_rotated_token_is_taken_without_a_restart(secured: Secured) -> None:
    """Both tokens are valid while both stand in the file; then only the new one is."""
    token_file = secured.folder / "token"
    replace(token_file, f"{TOKEN}\nnext\n".encode())
    poll_until(lambda: _outcome(secured.url, "next", secured.known.http()) == "200", "the next token to be valid")
    assert _outcome(secured.url, TOKEN, secured.known.http()) == "200"
    replace(token_file, b"next\n")
    poll_until(lambda: _outcome(secured.url, TOKEN, secured.known.http()) == "401", "the old token to be refused")
    assert _outcome(secured.url, "next", secured.known.http()) == "200"


def test_renewed_certificates_are_taken_without_a_restart(secured: Secured) -> None:
    """A collector whose certificate expired is refused by its clients, until a renewed one lies in its place."""
    write(issue(secured.servers, is_expired=True), secured.folder, "collector")
    poll_until(
        lambda: "certificate has expired" in _outcome(secured.url, TOKEN, secured.known.http()),
        "the expired certificate to be shown",
    )
    write(issue(secured.servers), secured.folder, "collector")
    poll_until(lambda: _outcome(secured.url, TOKEN, secured.known.http()) == "200", "the renewed certificate")


def test_another_authority_for_clients_is_taken_without_a_restart(secured: Secured) -> None:
    """Clients of the new authority are served, and those of the old one no longer."""
    stranger = Client(secured.servers, issue(secured.strangers))
    replace(secured.folder / "clients-ca.crt", secured.strangers.cert_pem.bytes())
    poll_until(lambda: _outcome(secured.url, TOKEN, stranger.http()) == "200", "the new authority's client")
    assert not _outcome(secured.url, TOKEN, secured.known.http()).isdigit()


def test_records_from_the_unauthenticated_ports_are_kept_apart(secured: Secured, store: OtlpSink) -> None:
    """Whoever needs no certificate cannot write into archive or store, and what was sent astray is not lost."""
    forged, genuine = audit_request(3), audit_request(4)
    assert post(secured.collector.logs_endpoint, forged).status == 200
    assert post(secured.url, genuine, headers=_bearer(TOKEN), tls=secured.known.http()).status == 200
    assert archived(secured.unauthenticated) == log_records_of([forged])
    assert archived(secured.collector.archive_dir) == log_records_of([genuine])
    poll_until(lambda: store.log_records() == log_records_of([genuine]), "the genuine record alone in the store")

"""One request of a webhook: to a checked address only, over verified TLS, signed with the present secrets."""

import os
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from ipaddress import ip_network
from pathlib import Path

import msgspec
import pytest
from trustme import CA

from service.ports import WebhookRecord
from service.webhooks import WebhookEndpoint
from service.webhooks.addresses import PRIVATE
from service.webhooks.sender import WebhookSender
from telemetry.delivery.answers import Accepted, Refused, Unreachable
from telemetry.errors import TelemetrySettingsError
from tests.support.certificates import replace, write
from tests.support.webhook_receiver import OTHER_SECRET, SECRET, Reply, WebhookReceiver
from tests.support.webhooks import endpoint_to, secret_file, sender_to

HOST = "hooks.test"
RECORD = WebhookRecord(
    stream_id="stream",
    number=1,
    record_id="019b76da-a800-7001-8000-000000000001",
    record_hash="ab" * 32,
    event_name="job.create",
    body='{"attributes":{},"event_name":"job.create","timestamp":"2026-01-02T03:04:05Z"}',
)


class Names:
    """A resolver whose answers a test changes, and counts."""

    def __init__(self, *addresses: str) -> None:
        self.addresses = addresses
        self.asked: list[tuple[str, int]] = []

    def __call__(self, host: str, port: int) -> Sequence[str]:
        self.asked.append((host, port))
        if not self.addresses:
            raise OSError("Name or service not known")
        return self.addresses


@pytest.fixture
def authority() -> CA:
    """An authority that the endpoint trusts."""
    return CA()


@pytest.fixture
def receiver(authority: CA, tmp_path: Path) -> Iterator[WebhookReceiver]:
    """A receiver that speaks HTTPS, with a certificate for the name and not for the address."""
    replace(tmp_path / "ca.pem", authority.cert_pem.bytes())
    with WebhookReceiver(tls=write(authority.issue_cert(HOST), tmp_path, "server")) as started:
        yield started


@pytest.fixture
def endpoint(receiver: WebhookReceiver, tmp_path: Path) -> WebhookEndpoint:
    """An endpoint that leads to the receiver by its name."""
    return endpoint_to(receiver, tmp_path, host=HOST, ca_file=tmp_path / "ca.pem", timeout_s=20.0)


def changed(endpoint: WebhookEndpoint, **values: object) -> WebhookEndpoint:
    """Return the endpoint with other values."""
    return msgspec.structs.replace(endpoint, **values)


def closing(sender: WebhookSender) -> object:
    """Send one record, close, and return the answer."""
    answer = sender.send(RECORD)
    sender.close()
    return answer


def test_the_connection_goes_to_the_address_and_the_certificate_is_of_the_name(
    receiver: WebhookReceiver, endpoint: WebhookEndpoint
) -> None:
    """The name is resolved once, and stands in TLS and in the header; the connection is kept."""
    names = Names("127.0.0.1")
    sender = sender_to(endpoint, names)
    assert [sender.send(RECORD) for _ in range(3)] == [Accepted()] * 3
    sender.close()
    assert names.asked == [(HOST, receiver.port)]
    assert receiver.connections == 1
    assert {each.headers["host"] for each in receiver.kept()} == {f"{HOST}:{receiver.port}"}
    assert {each.id for each in receiver.kept()} == {RECORD.record_id}
    assert receiver.unsigned == 0


@pytest.mark.parametrize("wrong", ["name", "authority", "expired"])
def test_a_certificate_that_is_not_of_the_name_is_refused(
    authority: CA, endpoint: WebhookEndpoint, tmp_path: Path, wrong: str
) -> None:
    """Another name, another authority, or a time that is over: nothing is sent."""
    issuer = CA() if wrong == "authority" else authority
    name = "other.test" if wrong == "name" else HOST
    leaf = issuer.issue_cert(name, not_after=datetime(2001, 1, 1, tzinfo=UTC) if wrong == "expired" else None)
    with WebhookReceiver(tls=write(leaf, tmp_path, "wrong")) as other:
        answer = closing(sender_to(changed(endpoint, port=other.port), Names("127.0.0.1")))
    assert isinstance(answer, Unreachable)
    assert "certificate" in str(answer).lower()
    assert other.kept() == []


@pytest.mark.parametrize(
    "addresses",
    [
        *(
            ("127.0.0.1",),
            ("::ffff:127.0.0.1",),
            ("64:ff9b::7f00:1",),
            ("10.1.2.3",),
            ("169.254.169.254",),
            ("fd00::1",),
        ),
        *(("93.184.216.34", "127.0.0.1"), ("0.0.0.0",)),
    ],
    ids=",".join,
)
def test_a_name_that_leads_to_a_private_address_is_not_connected_to(
    receiver: WebhookReceiver, endpoint: WebhookEndpoint, addresses: tuple[str, ...]
) -> None:
    """Whatever the form of the address, and also when another address of the name is public."""
    answer = closing(sender_to(changed(endpoint, allowed=()), Names(*addresses)))
    assert isinstance(answer, Unreachable)
    assert answer.error_type == "address_not_allowed"
    assert "is not a public address" in str(answer)
    assert receiver.connections == 0


def test_a_private_address_is_connected_to_where_its_network_is_allowed(
    receiver: WebhookReceiver, endpoint: WebhookEndpoint
) -> None:
    """A list of networks is exact: the address beside it is refused."""
    loopback = (ip_network("127.0.0.1/32"),)
    assert closing(sender_to(changed(endpoint, allowed=loopback), Names("127.0.0.1"))) == Accepted()
    answer = closing(sender_to(changed(endpoint, allowed=loopback), Names("127.0.0.2")))
    assert isinstance(answer, Unreachable)
    assert len(receiver.kept()) == 1


def test_a_name_that_changes_its_address_is_checked_again(receiver: WebhookReceiver, endpoint: WebhookEndpoint) -> None:
    """After a failure the name is resolved anew: a private address then is refused, as it is at the first time."""
    names = Names("127.0.0.1")
    allowed = (ip_network("127.0.0.1/32"),)
    sender = sender_to(changed(endpoint, allowed=allowed), names)
    assert sender.send(RECORD) == Accepted()
    names.addresses = ("127.0.0.2",)
    receiver.reply = Reply(reset=True)
    assert isinstance(sender.send(RECORD), Unreachable)
    answer = sender.send(RECORD)
    assert isinstance(answer, Unreachable)
    assert answer.error_type == "address_not_allowed"
    sender.close()


def test_another_address_of_the_name_is_tried_after_a_failure(
    receiver: WebhookReceiver, endpoint: WebhookEndpoint
) -> None:
    """Not every address of a name needs to work."""
    sender = sender_to(endpoint, Names("127.0.0.3", "127.0.0.1"))
    assert isinstance(sender.send(RECORD), Unreachable)
    assert sender.send(RECORD) == Accepted()
    sender.close()


def test_a_name_that_cannot_be_resolved_is_an_outage(endpoint: WebhookEndpoint) -> None:
    """It may be resolved later."""
    answer = closing(sender_to(endpoint, Names()))
    assert isinstance(answer, Unreachable)
    assert answer.error_type == "name_resolution"


def test_a_redirect_is_not_followed(receiver: WebhookReceiver, endpoint: WebhookEndpoint, tmp_path: Path) -> None:
    """Not even to another path: an endpoint cannot send the records elsewhere."""
    with WebhookReceiver() as private:
        for status in (301, 302, 303, 307, 308):
            receiver.reply = Reply(status, {"Location": private.url})
            answer = closing(sender_to(endpoint, Names("127.0.0.1")))
            assert isinstance(answer, Refused)
            assert answer.status == status
            assert "not followed" in str(answer)
        assert private.connections == 0


def test_no_cookie_of_a_receiver_is_kept(receiver: WebhookReceiver, endpoint: WebhookEndpoint) -> None:
    """A receiver cannot fill the memory of the sender, nor make its own requests too large."""
    receiver.reply = Reply(200, {"Set-Cookie": f"filling={'x' * 3000}; Max-Age=3600"})
    sender = sender_to(endpoint, Names("127.0.0.1"))
    for _ in range(2):
        assert sender.send(RECORD) == Accepted()
    sender.close()
    assert ["cookie" in arrival.headers for arrival in receiver.kept()] == [False, False]


def test_http_leads_to_this_machine_only(tmp_path: Path) -> None:
    """Also a name that says it is this machine must resolve to it, unless the operator allows more."""
    with WebhookReceiver() as plain:
        endpoint = endpoint_to(plain, tmp_path, host="localhost", allowed=(*PRIVATE, ip_network("0.0.0.0/0")))
        assert closing(sender_to(endpoint, Names("127.0.0.1"))) == Accepted()
        answer = closing(sender_to(endpoint, Names("10.1.2.3")))
        assert isinstance(answer, Unreachable)
        assert "allow_http" in str(answer)


@pytest.mark.parametrize(
    ("reply", "text"),
    [
        (Reply(410), "wants no more webhooks"),
        (Reply(500), "500"),
        (Reply(429, {"Retry-After": "7"}), "429"),
    ],
)
def test_what_is_no_success_says_what_it_is(
    receiver: WebhookReceiver, endpoint: WebhookEndpoint, reply: Reply, text: str
) -> None:
    """The status is in the message, and `Retry-After` is read."""
    receiver.reply = reply
    answer = closing(sender_to(endpoint, Names("127.0.0.1")))
    assert isinstance(answer, Refused)
    assert text in str(answer)
    assert answer.retry_after_s == (7.0 if reply.headers else None)


@pytest.mark.parametrize("status", [200, 201, 202, 204, 299])
def test_every_2xx_is_a_success(receiver: WebhookReceiver, endpoint: WebhookEndpoint, status: int) -> None:
    """Whatever the body is."""
    receiver.reply = Reply(status, body=b"" if status == 204 else b"<p>thanks")
    assert closing(sender_to(endpoint, Names("127.0.0.1"))) == Accepted()


def test_an_endless_answer_is_not_read(receiver: WebhookReceiver, endpoint: WebhookEndpoint) -> None:
    """The status is the answer: after a little of the body the connection is closed."""
    receiver.reply = Reply(endless=True)
    sender = sender_to(endpoint, Names("127.0.0.1"))
    assert [sender.send(RECORD) for _ in range(2)] == [Accepted()] * 2
    sender.close()
    assert receiver.connections == 2


def test_an_endpoint_that_hangs_is_given_up(receiver: WebhookReceiver, endpoint: WebhookEndpoint) -> None:
    """After its timeout, the request counts as unanswered."""
    receiver.reply = Reply(hang=True)
    answer = closing(sender_to(changed(endpoint, timeout_s=0.3), Names("127.0.0.1")))
    assert isinstance(answer, Unreachable)
    assert answer.error_type == "timeout"


def test_a_secret_is_exchanged_without_a_restart(
    receiver: WebhookReceiver, endpoint: WebhookEndpoint, tmp_path: Path
) -> None:
    """With two secrets both receivers accept the webhook; with the new one only the receiver that knows it."""
    sender = sender_to(endpoint, Names("127.0.0.1"))
    assert sender.send(RECORD) == Accepted()
    for secrets, taken in (((OTHER_SECRET, SECRET), (SECRET, OTHER_SECRET)), ((OTHER_SECRET,), (OTHER_SECRET,))):
        secret_file(tmp_path, *secrets)
        for secret in (SECRET, OTHER_SECRET):
            receiver.secret = secret
            answer = sender.send(RECORD)
            assert isinstance(answer, Accepted) == (secret in taken)
    secret_file(tmp_path, "broken")
    assert sender.send(RECORD) == Accepted()
    sender.close()


@pytest.mark.parametrize("wrong", ["missing", "open", "empty", "authority"])
def test_files_that_cannot_be_used_are_named(endpoint: WebhookEndpoint, tmp_path: Path, wrong: str) -> None:
    """A secret that others may read, or none, and certificates that are none: at the start, with what to do."""
    path = endpoint.secret_file
    if wrong == "missing":
        path.unlink()
    elif wrong == "open":
        path.chmod(0o644)
    elif wrong == "empty":
        path.write_text("")
    else:
        path = tmp_path / "ca.pem"
        path.write_text("no certificate")
    with pytest.raises(TelemetrySettingsError) as raised:
        sender_to(endpoint)
    assert "webhook one" in str(raised.value)
    assert os.fspath(path) in str(raised.value)

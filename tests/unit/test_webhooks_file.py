"""The file of webhooks: what it declares, and that all its mistakes are reported at once with their places."""

import tomllib
from ipaddress import ip_network
from pathlib import Path

import pytest

from service.errors import SettingsError
from service.ports import RecordFilter
from service.webhooks import WebhookEndpoint, endpoints_of
from service.webhooks.addresses import PRIVATE

FOLDER = Path("/etc/auditrace")


def read(text: str) -> list[WebhookEndpoint]:
    """Return the endpoints of a file whose other files are right."""
    return list(endpoints_of(tomllib.loads(text), FOLDER, lambda _: ()))


def problems_of(text: str) -> list[str]:
    """Return what is wrong with a file."""
    with pytest.raises(SettingsError) as raised:
        read(text)
    return list(raised.value.problems)


def wrong(line: str, **instead: str) -> list[str]:
    """Return what is wrong with an endpoint that has this line beside its URL and its secret."""
    given = {"url": 'url = "https://hooks.example.com/"', "secret_file": 'secret_file = "s"', **instead}
    return problems_of("[endpoints.one]\n" + "\n".join([*given.values(), line]))


def test_an_endpoint_has_what_its_table_says() -> None:
    """Every key has its effect; relative files lie beside the file that names them."""
    (found,) = read(
        """
        [endpoints.siem]
        url = "https://Hooks.example.com:8443/in?key=1"
        secret_file = "siem.secret"
        tenant = "acme"
        from_start = true
        timeout = "5s"
        allow_private = ["10.0.0.0/8", "fd00::/8"]
        allow_http = true
        ca_file = "/ca.pem"
        [endpoints.siem.filter]
        event_name = "job.confirm"
        outcome = "failure"
        actor_id = "anna"
        """
    )
    assert found == WebhookEndpoint(
        name="siem",
        scheme="https",
        host="hooks.example.com",
        port=8443,
        target="/in?key=1",
        secret_file=FOLDER / "siem.secret",
        where=RecordFilter(tenant_id="acme", event_name="job.confirm", outcome="failure", actor_id="anna"),
        from_start=True,
        timeout_s=5.0,
        allowed=(ip_network("10.0.0.0/8"), ip_network("fd00::/8")),
        may_be_plain=True,
        ca_file=Path("/ca.pem"),
    )
    assert found.authority == "hooks.example.com:8443"
    assert "key=1" not in found.address


def test_an_endpoint_needs_little() -> None:
    """Without more it gets all records of the default tenant, from now on, and only at public addresses."""
    (found,) = read('endpoints.one = { url = "https://[2606:2800:220::1]", secret_file = "/s" }')
    assert (found.where, found.from_start, found.allowed) == (RecordFilter(tenant_id="default"), False, ())
    assert (found.host, found.authority, found.target) == ("2606:2800:220::1", "[2606:2800:220::1]", "/")
    (private,) = read(
        'endpoints.one = { url = "http://127.0.0.1:9/x", secret_file = "/s", allow_private = true, timeout = "1s" }'
    )
    assert private.allowed == PRIVATE


def test_all_mistakes_are_reported_at_once_with_their_places() -> None:
    """An operator corrects the file once: each endpoint's problems are there, and those of the files it names."""
    text = """
    more = 1
    [endpoints.One]
    url = "https://hooks.example.com/"
    secret_file = "s"
    [endpoints.two]
    url = "https://user:password@hooks.example.com/#part"
    unknown = 1
    [endpoints.two.filter]
    outcome = "good"
    since = "-1h"
    [endpoints.three]
    url = "https://hooks.example.com/"
    secret_file = "s"
    """
    with pytest.raises(SettingsError) as raised:
        endpoints_of(tomllib.loads(text), FOLDER, lambda endpoint: [f"{endpoint.secret_file} is missing"])
    places = [problem.split(":")[0] for problem in raised.value.problems]
    assert places == [
        *("the file.more", "endpoints.One", "endpoints.two.unknown", "endpoints.two.url", "endpoints.two.secret_file"),
        *("endpoints.two.filter.since", "endpoints.two.filter.outcome", "endpoints.three"),
    ]
    assert "password" not in "".join(raised.value.problems).replace("no user, password", "")


@pytest.mark.parametrize(
    "url",
    [
        *("ftp://hooks.example.com/", "hooks.example.com", "https://", "https://ho st/", "https://hööks.example.com/"),
        *("https://hooks.example.com:0/", "https://hooks.example.com:x/", "https://[::1%25eth0]/", "https://a@b.c/"),
        *("http://hooks.example.com/", "http://10.0.0.1/", "https://10.0.0.1/", "https://[::ffff:127.0.0.1]/"),
        *("https://169.254.169.254/", "https://hooks.example.com/#x", "http://127.0.0.1/"),
    ],
)
def test_a_wrong_url_is_named(url: str) -> None:
    """Other schemes, other machines without TLS, private addresses, and what is no URL."""
    problems = wrong("", url=f'url = "{url}"')
    assert problems
    assert {problem.partition(":")[0] for problem in problems} == {"endpoints.one.url"}


@pytest.mark.parametrize(
    ("line", "place"),
    [
        ('tenant = ""', "tenant"),
        ("from_start = 1", "from_start"),
        ('timeout = "1h"', "timeout"),
        ('timeout = "soon"', "timeout"),
        ('allow_private = "10.0.0.0/8"', "allow_private"),
        ('allow_private = ["10.0.0.1/8"]', "allow_private"),
        ('allow_http = "yes"', "allow_http"),
        ("filter = 1", "filter"),
        ("filter.event_name = 1", "filter.event_name"),
        ('filter.event_name = "job.creat"', "filter.event_name"),
        ('filter.actor_id = ""', "filter.actor_id"),
        ('filter.tenant_id = "acme"', "filter.tenant_id"),
        ('filter.actor = "anna"', "filter.actor"),
    ],
)
def test_a_wrong_value_is_named(line: str, place: str) -> None:
    """A value that would match nothing, or mean something else than was meant, starts nothing."""
    assert [problem.partition(":")[0] for problem in wrong(line)] in (
        [f"endpoints.one.{place}"],
        [f"endpoints.one.{place} must be a table"],
    )


def test_no_file_declares_nothing() -> None:
    """A file without endpoints is right: it declares none."""
    assert read("") == []

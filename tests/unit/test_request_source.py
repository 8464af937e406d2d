"""The address of a client behind proxies: what trusted proxies wrote, and nothing that a client could have made up."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from litestar.datastructures import Headers

from service.api.proxy_settings import ProxySettings, header_name, trusted_proxies
from service.api.request_source import RequestSource, source_of
from service.config import examine_settings

PROXIES = ProxySettings(trusted=trusted_proxies("10.0.0.1, 10.0.0.2 2001:db8:0:1::/64"))
CLIENT, CLIENT_6 = "203.0.113.5", "2001:db8:cafe::17"


def _source(*headers: tuple[str, str], connected: str | None = "10.0.0.1") -> RequestSource:
    return source_of(connected, Headers([(name.encode(), value.encode("latin-1")) for name, value in headers]), PROXIES)


@pytest.mark.parametrize(
    ("name", "value", "client"),
    [
        ("x-forwarded-for", CLIENT, CLIENT),
        ("x-forwarded-for", f" {CLIENT}\t", CLIENT),
        ("x-forwarded-for", f"192.0.2.66, {CLIENT}", CLIENT),
        ("x-forwarded-for", f"10.0.0.2, {CLIENT}, 10.0.0.2", CLIENT),
        ("x-forwarded-for", f"nonsense, {CLIENT}, 10.0.0.2", CLIENT),
        ("x-forwarded-for", f",,{CLIENT},,", CLIENT),
        ("x-forwarded-for", f"{CLIENT}:4711", CLIENT),
        ("x-forwarded-for", CLIENT_6, CLIENT_6),
        ("x-forwarded-for", "2001:DB8:CAFE:0::17", CLIENT_6),
        ("x-forwarded-for", f"[{CLIENT_6}]:443", CLIENT_6),
        ("x-forwarded-for", f"::ffff:{CLIENT}", CLIENT),
        ("x-forwarded-for", f"{CLIENT_6}, 2001:db8:0:1::5", CLIENT_6),
        ("x-forwarded-for", "10.0.0.2", "10.0.0.2"),
        ("x-forwarded-for", "10.0.0.2, 10.0.0.1", "10.0.0.2"),
        ("x-forwarded-for", f"{CLIENT}, unknown, 10.0.0.2", "10.0.0.2"),
        ("forwarded", f"for={CLIENT}", CLIENT),
        ("forwarded", f"For={CLIENT};proto=http;by=203.0.113.43", CLIENT),
        ("forwarded", f'for="{CLIENT}:4711"', CLIENT),
        ("forwarded", f'for="[{CLIENT_6}]"', CLIENT_6),
        ("forwarded", f'for="[{CLIENT_6}]:_port"; proto=https', CLIENT_6),
        ("forwarded", f'for=192.0.2.1, for={CLIENT};by="_a,b;c", for=10.0.0.2', CLIENT),
        ("forwarded", 'host="a\\"b, for=192.0.2.1";for="203\\.0.113.5"', CLIENT),
        ("forwarded", f"for={CLIENT}, for=_hidden, for=10.0.0.2", "10.0.0.2"),
        ("forwarded", f"for={CLIENT}, for=unknown, for=10.0.0.2", "10.0.0.2"),
        ("forwarded", f"for={CLIENT}, proto=https, for=10.0.0.2", "10.0.0.2"),
        ("forwarded", f",for={CLIENT} , ;,", CLIENT),
    ],
)
def test_the_client_is_the_first_address_from_the_right_that_is_no_proxy(name: str, value: str, client: str) -> None:
    """Ports are dropped, IPv6 has its canonical form, and what a proxy does not tell ends the walk."""
    assert _source((name, value)) == RequestSource(client, "10.0.0.1")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("x-forwarded-for", "unknown"),
        ("x-forwarded-for", "10.0.0.1"),
        ("forwarded", "for=_x"),
        ("forwarded", ""),
        ("x-forwarded-for", " , "),
    ],
)
def test_without_another_address_the_proxy_is_the_client(name: str, value: str) -> None:
    """Then no proxy spoke for anybody."""
    assert _source((name, value)) == RequestSource("10.0.0.1")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("x-forwarded-for", "nonsense"),
        ("x-forwarded-for", f"{CLIENT}, nonsense"),
        ("x-forwarded-for", "203.0.113.256"),
        ("x-forwarded-for", "203.0.113.05"),
        ("x-forwarded-for", "203.0.113.5:x"),
        ("x-forwarded-for", "fe80::1%eth0"),
        ("x-forwarded-for", "[::1"),
        ("x-forwarded-for", f"for={CLIENT}"),
        ("x-forwarded-for", "\xb2"),
        ("forwarded", CLIENT),
        ("forwarded", "for="),
        ("forwarded", f"for ={CLIENT}"),
        ("forwarded", f"for= {CLIENT}"),
        ("forwarded", f"for={CLIENT}:4711"),
        ("forwarded", f'for="{CLIENT_6}"'),
        ("forwarded", f'for="{CLIENT}'),
        ("forwarded", f'for="x, for={CLIENT}'),
        ("forwarded", f"for={CLIENT};for=192.0.2.1"),
        ("forwarded", f"for={CLIENT} for=192.0.2.1"),
        ("forwarded", 'for="\x01"'),
        ("forwarded", "for=203.0.113.256"),
    ],
)
def test_what_a_proxy_cannot_have_meant_is_a_problem(name: str, value: str) -> None:
    """The address is then that of the connection, and the request is to be refused."""
    source = _source((name, value))
    assert (source.address, source.peer) == ("10.0.0.1", None)
    assert source.problem


def test_two_headers_must_name_the_same_client() -> None:
    """A proxy that writes one of them passes on the other one as a client sent it."""
    both = ("forwarded", f'for="[{CLIENT_6}]"'), ("x-forwarded-for", CLIENT_6)
    assert _source(*both) == RequestSource(CLIENT_6, "10.0.0.1")
    assert (
        _source(both[0], ("x-forwarded-for", CLIENT)).problem
        == "the headers forwarded and x-forwarded-for name different clients"
    )


def test_lines_of_a_header_are_one_list() -> None:
    """A proxy may add a line instead of a value."""
    assert _source(("x-forwarded-for", "192.0.2.66"), ("x-forwarded-for", CLIENT)).address == CLIENT
    assert _source(("forwarded", "for=192.0.2.66"), ("forwarded", f"for={CLIENT}")).address == CLIENT


@pytest.mark.parametrize("connected", ["10.0.0.3", "203.0.113.9", "2001:db8:0:2::1", "testclient", None])
def test_what_no_proxy_wrote_is_ignored(connected: str | None) -> None:
    """The address of the connection counts, whatever the headers hold."""
    headers = ("x-forwarded-for", CLIENT), ("forwarded", "nonsense")
    assert _source(*headers, connected=connected) == RequestSource(connected)


@pytest.mark.parametrize("connected", ["::ffff:10.0.0.1", "2001:db8:0:1::abc", "2001:db8:0:1::abc%eth0"])
def test_a_proxy_is_known_in_every_form_of_its_address(connected: str) -> None:
    """IPv4 in IPv6, networks, and addresses with a zone."""
    assert _source(("x-forwarded-for", CLIENT), connected=connected) == RequestSource(CLIENT, connected)


@given(made_up=st.text(st.characters(max_codepoint=255, exclude_categories=["Cc"]), max_size=40))
def test_nothing_that_a_client_sends_changes_the_address_that_a_proxy_adds(made_up: str) -> None:
    """Whatever stands in the header before: the proxy's own entry is used, or the request is refused."""
    assert _source(("x-forwarded-for", f"{made_up}, {CLIENT}")) == RequestSource(CLIENT, "10.0.0.1")
    assert _source(("x-forwarded-for", made_up), ("x-forwarded-for", CLIENT)) == RequestSource(CLIENT, "10.0.0.1")
    source = _source(("forwarded", f"{made_up}, for={CLIENT}"))
    assert source.problem or source == RequestSource(CLIENT, "10.0.0.1")


@pytest.mark.parametrize("text", ["10.0.0.1/8", "proxy.example", "0.0.0.0/0", "::/0", "::ffff:0:0/96", "10.0.0.0/33"])
def test_a_wrong_list_of_proxies_is_refused_at_the_start(text: str) -> None:
    """No names, no bits behind the prefix, not everybody."""
    (problem,) = examine_settings({"AUDITRACE_TRUSTED_PROXIES": text}).problems
    assert problem.startswith("AUDITRACE_TRUSTED_PROXIES: ")


@pytest.mark.parametrize(
    "text", ["Authorization", "X-Forwarded-For", "Host", "Cookie", "Content-Type", "a b", "", "x:y", "é"]
)
def test_a_header_that_says_something_else_is_no_identity(text: str) -> None:
    """Only a header that nobody but the proxy has a reason to set."""
    with pytest.raises(ValueError, match=r"header|meaning"):
        header_name(text)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"IDENTITY": "X-User"}, "set AUDITRACE_TRUSTED_PROXIES, AUDITRACE_PROXY_ROLES_HEADER too"),
        ({"ROLES": "X-Roles"}, "set AUDITRACE_TRUSTED_PROXIES, AUDITRACE_PROXY_IDENTITY_HEADER too"),
        ({"IDENTITY": "X-User", "ROLES": "x-user"}, "must name different headers"),
    ],
)
def test_the_headers_of_an_identity_are_set_together(given: dict[str, str], told: str) -> None:
    """An identity without roles, or without a proxy that may state it, is a mistake."""
    environment = {f"AUDITRACE_PROXY_{name}_HEADER": value for name, value in given.items()}
    assert any(told in problem for problem in examine_settings(environment).problems)

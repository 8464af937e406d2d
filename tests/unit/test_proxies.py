"""The proxy variables mean the same for every exporter, and a wrong one is refused in one line without its secrets."""

import pytest

from telemetry.errors import TelemetrySettingsError
from telemetry.proxies import grpc_proxy, http_proxy

URL = "http://collector.example.com:4318/v1/logs"
PROXY = "http://proxy:3128"


@pytest.mark.parametrize(
    ("environment", "url", "proxy"),
    [
        ({}, URL, None),
        ({"http_proxy": PROXY}, URL, PROXY),
        ({"HTTP_PROXY": PROXY}, URL, PROXY),
        ({"HTTPS_PROXY": PROXY}, URL, None),
        ({"HTTPS_PROXY": PROXY}, "https://collector/v1/logs", PROXY),
        ({"ALL_PROXY": "socks5://proxy"}, URL, "socks5://proxy:1080"),
        ({"all_proxy": "socks5h://proxy:9"}, "https://collector/", "socks5h://proxy:9"),
        ({"HTTP_PROXY": PROXY, "ALL_PROXY": "socks5://other"}, URL, PROXY),
        ({"http_proxy": PROXY, "HTTP_PROXY": "http://other:1"}, URL, PROXY),
        ({"http_proxy": "", "HTTP_PROXY": PROXY}, URL, None),
        ({"HTTP_PROXY": "  ", "ALL_PROXY": PROXY}, URL, PROXY),
        ({"HTTP_PROXY": "proxy:3128"}, URL, PROXY),
        ({"HTTP_PROXY": "http://proxy/"}, URL, "http://proxy:80"),
        ({"HTTP_PROXY": "HTTPS://proxy"}, URL, "https://proxy:443"),
        ({"HTTP_PROXY": "http://[::1]:3128"}, URL, "http://[::1]:3128"),
        ({"HTTP_PROXY": "http://me:p%40ss@proxy:3128"}, URL, "http://me:p%40ss@proxy:3128"),
        ({"HTTP_PROXY": "http://me:p@ss@proxy:3128"}, URL, "http://me:p%40ss@proxy:3128"),
    ],
)
def test_the_proxy_is_taken_from_the_usual_variables(environment: dict[str, str], url: str, proxy: str | None) -> None:
    """By the scheme of the URL, else the one for all; lower case first; an empty one is none."""
    assert http_proxy(environment, url) == proxy


@pytest.mark.parametrize(
    ("environment", "proxy"),
    [
        ({"grpc_proxy": PROXY, "https_proxy": "http://other:1"}, PROXY),
        ({"HTTPS_PROXY": PROXY, "HTTP_PROXY": "http://other:1"}, PROXY),
        ({"http_proxy": PROXY}, PROXY),
        ({"ALL_PROXY": PROXY}, PROXY),
        ({"http_proxy": PROXY, "no_proxy": "collector"}, None),
        ({"http_proxy": PROXY, "no_proxy": "collector", "no_grpc_proxy": "other"}, PROXY),
        ({"http_proxy": PROXY, "NO_GRPC_PROXY": "collector"}, None),
        ({"ALL_PROXY": "socks5://proxy", "NO_PROXY": "collector:4317"}, None),
    ],
)
def test_grpc_has_its_own_variables_first(environment: dict[str, str], proxy: str | None) -> None:
    """`grpc_proxy`, then those of HTTPS and HTTP whatever the target speaks, as gRPC's documentation has it."""
    assert grpc_proxy(environment, "collector:4317") == proxy


@pytest.mark.parametrize(
    ("no_proxy", "url", "is_direct"),
    [
        ("*", URL, True),
        ("collector.example.com", URL, True),
        ("COLLECTOR.Example.com.", URL, True),
        ("example.com", URL, True),
        (".example.com", URL, True),
        ("*.example.com", URL, True),
        ("le.com", URL, False),
        ("other, example.com", URL, True),
        ("other example.com", URL, True),
        ("example.com:4318", URL, True),
        ("example.com:80", URL, False),
        ("localhost", "http://localhost:4318/", True),
        ("localhost", "http://127.0.0.1:4318/", False),
        ("127.0.0.1", "http://127.0.0.1:4318/", True),
        ("127.0.0.1:4318", "http://127.0.0.1:4318/", True),
        ("127.0.0.0/8", "http://127.0.0.1:4318/", True),
        ("127.0.0.5/8", "http://127.0.0.1:4318/", True),
        ("10.0.0.0/8", "http://127.0.0.1:4318/", False),
        ("10.0.0.0/8", "http://10.example.com:4318/", False),
        ("192.168.*", "http://192.168.7.1/", True),
        ("::1", "http://[::1]:4318/", True),
        ("[::1]", "http://[::1]:4318/", True),
        ("[::1]:4318", "http://[::1]:4318/", True),
        ("[::1]:4319", "http://[::1]:4318/", False),
        ("0:0:0:0:0:0:0:1", "http://[::1]:4318/", True),
        ("fe80::/10", "http://[fe80::7]:4318/", True),
        ("[fe80::]/10", "http://[fe80::7]:4318/", True),
        ("fe80::/10", "http://[::1]:4318/", False),
        ("", URL, False),
        (" , ", URL, False),
    ],
)
def test_every_form_of_no_proxy_is_understood(no_proxy: str, url: str, is_direct: bool) -> None:
    """Hosts with what lies below them, addresses in any spelling, networks, patterns, and ports."""
    assert (http_proxy({"ALL_PROXY": PROXY, "NO_PROXY": no_proxy}, url) is None) == is_direct


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({"HTTP_PROXY": "foo://proxy:1"}, "HTTP_PROXY: foo:// is none of http://, https://, socks5://, socks5h://"),
        ({"http_proxy": "socks4://proxy:1"}, "http_proxy: socks4:// is none of"),
        ({"HTTP_PROXY": "http://"}, "HTTP_PROXY: must be the URL of a proxy"),
        ({"HTTP_PROXY": "http://proxy:port"}, "HTTP_PROXY: must be the URL of a proxy"),
        ({"ALL_PROXY": "http://[::1"}, "ALL_PROXY: must be the URL of a proxy"),
        ({"ALL_PROXY": "http://a b"}, "ALL_PROXY: must be the URL of a proxy"),
        ({"ALL_PROXY": PROXY, "NO_PROXY": "10.0.0.0/99"}, "NO_PROXY: '10.0.0.0/99' is no host"),
        ({"ALL_PROXY": PROXY, "no_proxy": "a,[::1"}, "no_proxy: '[::1' is no host"),
        ({"ALL_PROXY": PROXY, "no_proxy": "http://collector"}, "no_proxy: 'http://collector' is no host"),
        ({"ALL_PROXY": PROXY, "no_proxy": "collector:http"}, "no_proxy: 'collector:http' is no host"),
    ],
)
def test_a_wrong_variable_is_refused_in_one_line(environment: dict[str, str], said: str) -> None:
    """The line names the variable and what it may be."""
    with pytest.raises(TelemetrySettingsError) as refused:
        http_proxy(environment, URL)
    (problem,) = refused.value.problems
    assert problem.startswith(said)


def test_what_is_not_used_is_not_refused() -> None:
    """Variables that other programs have a use for stop nothing here: another scheme's, or one that is exempted."""
    assert http_proxy({"HTTPS_PROXY": "foo://x", "NO_PROXY": "10.0.0.0/99"}, URL) is None
    assert http_proxy({"HTTP_PROXY": "foo://x", "NO_PROXY": "example.com"}, URL) is None


def test_both_are_said_when_both_are_wrong() -> None:
    """One start lists the proxy and the exception."""
    with pytest.raises(TelemetrySettingsError) as refused:
        http_proxy({"HTTP_PROXY": "foo://x", "NO_PROXY": "1.2.3.4/99"}, URL)
    assert [problem.partition(":")[0] for problem in refused.value.problems] == ["NO_PROXY", "HTTP_PROXY"]


def test_a_socket_of_this_machine_has_no_proxy() -> None:
    """GRPC also speaks over those, and they have no host to go through a proxy to."""
    assert grpc_proxy({"ALL_PROXY": "socks5://proxy"}, "/run/collector.sock") is None


def test_grpc_refuses_what_it_cannot_go_through() -> None:
    """A SOCKS proxy would be left out in silence, and records would go where nobody meant them to go."""
    with pytest.raises(TelemetrySettingsError, match=r"ALL_PROXY: gRPC takes http:// proxies only.*socks5:// one"):
        grpc_proxy({"ALL_PROXY": "socks5://proxy"}, "collector:4317")


@pytest.mark.parametrize(
    "value", ["foo://me:s3cret@proxy", "s3cret@proxy:x", "://me:s3cret@proxy", "http://me:s3cret@", "me:s3cret://x"]
)
def test_credentials_of_a_wrong_proxy_are_not_shown(value: str) -> None:
    """What a line says about a wrong proxy holds nothing of what stands where credentials stand."""
    with pytest.raises(TelemetrySettingsError) as refused:
        http_proxy({"HTTP_PROXY": value}, URL)
    assert "s3cret" not in str(refused.value)

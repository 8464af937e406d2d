"""Which addresses a webhook may connect to."""

from ipaddress import ip_network

import pytest

from service.webhooks.addresses import PRIVATE, refusal_of, resolve

PUBLIC = ("93.184.216.34", "8.8.8.8", "2606:2800:220:1:248:1893:25c8:1946", "::ffff:8.8.8.8", "64:ff9b::808:808")
OF_THE_SITE = ("10.1.2.3", "172.16.0.1", "192.168.1.1", "127.0.0.1", "127.8.9.1", "100.64.0.1", "::1", "fd00::1")
MAPPED = ("::ffff:10.1.2.3", "::ffff:127.0.0.1", "64:ff9b::a01:203")
NOBODYS = (
    *("0.0.0.0", "::", "169.254.169.254", "fe80::1", "::ffff:169.254.169.254", "64:ff9b::a9fe:a9fe", "224.0.0.1"),
    *("239.1.1.1", "255.255.255.255", "240.0.0.1", "192.0.2.1", "198.18.0.1", "203.0.113.5", "ff02::1", "ff0e::1"),
    *(
        "2002:a01:203::1",
        "2002:808:808::1",
        "2001::1",
        "2001:db8::1",
        "64:ff9b:1::1",
        "::10.1.2.3",
        "fec0::1",
        "192.0.0.8",
    ),
)


@pytest.mark.parametrize("address", PUBLIC)
def test_public_addresses_are_connected_to(address: str) -> None:
    """What everybody on the internet can reach needs no permission."""
    assert refusal_of(address, ()) is None


@pytest.mark.parametrize("address", [*OF_THE_SITE, *MAPPED])
def test_private_addresses_need_a_permission_in_every_form(address: str) -> None:
    """Private, loopback and unique-local addresses are refused, also inside of IPv6, until they are allowed."""
    refusal = refusal_of(address, ())
    assert refusal is not None
    assert address in refusal
    assert refusal_of(address, PRIVATE) is None


@pytest.mark.parametrize("address", NOBODYS)
def test_special_addresses_are_not_private_ones(address: str) -> None:
    """Link-local addresses (the metadata of clouds), multicast, reserved ranges and tunnels are not in `true`."""
    assert refusal_of(address, ()) is not None
    assert refusal_of(address, PRIVATE) is not None


def test_a_network_allows_its_own_addresses_only() -> None:
    """A list of networks allows what is in them, and nothing beside them."""
    allowed = (ip_network("10.1.0.0/16"), ip_network("169.254.169.254/32"))
    assert refusal_of("10.1.2.3", allowed) is None
    assert refusal_of("::ffff:10.1.2.3", allowed) is None
    assert refusal_of("169.254.169.254", allowed) is None
    assert refusal_of("10.2.0.1", allowed) is not None
    assert refusal_of("192.168.1.1", allowed) is not None


@pytest.mark.parametrize("host", ["0x7f.1", "2130706433", "127.1", "localhost"])
def test_other_spellings_of_an_address_are_seen_through(host: str) -> None:
    """What the system makes of a host is what is checked, however the URL spells it."""
    found = resolve(host, 443)
    assert found
    assert all(refusal_of(address, ()) is not None for address in found)

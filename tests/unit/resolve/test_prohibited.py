"""Networks that mail must not go to."""

from ipaddress import IPv4Address, IPv6Address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mta.resolve.prohibited import SPECIAL_PURPOSE_NETWORKS, Prohibited, embedded_ipv4

EVERYTHING = Prohibited(SPECIAL_PURPOSE_NETWORKS)


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("127.0.0.1", "127.0.0.0/8"),
        ("0.0.0.0", "0.0.0.0/8"),
        ("10.1.2.3", "10.0.0.0/8"),
        ("172.31.255.255", "172.16.0.0/12"),
        ("192.168.1.1", "192.168.0.0/16"),
        ("169.254.169.254", "169.254.0.0/16"),
        ("100.127.0.1", "100.64.0.0/10"),
        ("224.0.0.1", "224.0.0.0/4"),
        ("255.255.255.255", "240.0.0.0/4"),
        ("::1", "::1/128"),
        ("::", "::/128"),
        ("fe80::1", "fe80::/10"),
        ("fd00::1", "fc00::/7"),
        ("ff02::1", "ff00::/8"),
        ("::ffff:127.0.0.1", "127.0.0.0/8"),
        ("::ffff:10.0.0.1", "10.0.0.0/8"),
        ("::127.0.0.1", "127.0.0.0/8"),
        ("::ffff:0:127.0.0.1", "127.0.0.0/8"),
        ("64:ff9b::127.0.0.1", "127.0.0.0/8"),
        ("2002:7f00:1::1", "2002::/16"),
    ],
)
def test_special_addresses_are_prohibited(address: str, network: str) -> None:
    """Loopback, private, link-local, multicast, unspecified, and the same inside an IPv6 address."""
    assert EVERYTHING.network_of(address) == network


@pytest.mark.parametrize(
    "address",
    ["8.8.8.8", "172.32.0.1", "100.128.0.1", "223.255.255.255", "2a00:1450::1", "::ffff:8.8.8.8", "64:ff9b::8.8.8.8"],
)
def test_public_addresses_are_allowed(address: str) -> None:
    """Addresses of the public Internet, also those that NAT64 makes of them."""
    assert EVERYTHING.network_of(address) == ""


@pytest.mark.parametrize("address", ["2002:a00:1::1", "2001:0:a00:1::f5ff:fffe", "2001:0:808:808::f5ff:fffe"])
def test_tunnels_are_seen_through(address: str) -> None:
    """With nothing but 10/8 prohibited, 6to4 and Teredo addresses into it are prohibited too."""
    assert Prohibited(["10.0.0.0/8"]).network_of(address) == "10.0.0.0/8"


def test_nothing_prohibited() -> None:
    """An admin who prohibits nothing may deliver to the machine itself."""
    assert Prohibited([]).network_of("127.0.0.1") == ""


@pytest.mark.parametrize("text", ["127.0.0.0/33", "loopback", "127.0.0.1/8"])
def test_malformed_networks_are_refused(text: str) -> None:
    """What is not a network is an error, not a hole."""
    with pytest.raises(ValueError):
        Prohibited([text])


def test_shipped_networks_are_networks() -> None:
    """Every entry of the shipped list is in its shortest form."""
    assert [str(ip_network(text)) for text in SPECIAL_PURPOSE_NETWORKS] == list(SPECIAL_PURPOSE_NETWORKS)


@given(st.ip_addresses(v=4))
def test_every_prohibited_ipv4_is_prohibited_in_ipv6(address: IPv4Address) -> None:
    """No way of writing an IPv4 address inside an IPv6 one gets around its prohibition."""
    direct = EVERYTHING.network_of(str(address))

    for prefix in ("::ffff:", "64:ff9b::", "::ffff:0:"):
        assert bool(EVERYTHING.network_of(f"{prefix}{address}")) == bool(direct)


@given(st.ip_addresses(v=4))
def test_embedded_addresses_are_found(address: IPv4Address) -> None:
    """What is put into a 6to4 address is found there."""
    assert embedded_ipv4(IPv6Address(0x2002 << 112 | int(address) << 80)) == [address]

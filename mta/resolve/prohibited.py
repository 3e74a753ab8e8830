"""Networks that mail must not go to: a stranger's MX record may point at our own machine or its neighbours.

Checked for every address after resolution, and for the IPv4 address inside an IPv6 one: a mapped, NAT64,
6to4 or Teredo address reaches the same machine by another name. Pure.
"""

from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

SPECIAL_PURPOSE_NETWORKS = (
    "0.0.0.0/8",  # this network (RFC 791 3.2)
    "10.0.0.0/8",  # private (RFC 1918 3)
    "100.64.0.0/10",  # shared behind carrier NAT (RFC 6598 7)
    "127.0.0.0/8",  # loopback (RFC 1122 3.2.1.3)
    "169.254.0.0/16",  # link-local, clouds' metadata services (RFC 3927 2.1)
    "172.16.0.0/12",  # private (RFC 1918 3)
    "192.0.0.0/24",  # protocol assignments (RFC 6890 2.1)
    "192.0.2.0/24",  # documentation (RFC 5737 3)
    "192.88.99.0/24",  # the former 6to4 relays (RFC 7526 4)
    "192.168.0.0/16",  # private (RFC 1918 3)
    "198.18.0.0/15",  # benchmarks (RFC 2544 C.2.2)
    "198.51.100.0/24",  # documentation (RFC 5737 3)
    "203.0.113.0/24",  # documentation (RFC 5737 3)
    "224.0.0.0/4",  # multicast (RFC 5771 3)
    "240.0.0.0/4",  # reserved, and the broadcast address (RFC 1112 4)
    "::/128",  # unspecified (RFC 4291 2.5.2)
    "::1/128",  # loopback (RFC 4291 2.5.3)
    "64:ff9b:1::/48",  # local NAT64 (RFC 8215 3)
    "100::/64",  # discard (RFC 6666 4)
    "2001::/23",  # protocol assignments, Teredo among them (RFC 2928 2)
    "2001:db8::/32",  # documentation (RFC 3849 2)
    "2002::/16",  # 6to4, which no mail host has used since RFC 7526
    "3fff::/20",  # documentation (RFC 9637 3)
    "5f00::/16",  # segment routing (RFC 9602 5)
    "fc00::/7",  # unique local (RFC 4193 3.1)
    "fe80::/10",  # link-local (RFC 4291 2.5.6)
    "fec0::/10",  # the former site-local (RFC 3879 4)
    "ff00::/8",  # multicast (RFC 4291 2.7)
)
"""Every special-purpose range of the registries of RFC 6890: the default of `prohibited_networks`."""

_MAPPED = IPv6Network("::ffff:0:0/96")  # RFC 4291 2.5.5.2
_COMPATIBLE = IPv6Network("::/96")  # RFC 4291 2.5.5.1
_TRANSLATED = IPv6Network("::ffff:0:0:0/96")  # RFC 2765 2.1
_NAT64 = IPv6Network("64:ff9b::/96")  # RFC 6052 2.1
_6TO4 = IPv6Network("2002::/16")  # RFC 3056 2
_TEREDO = IPv6Network("2001::/32")  # RFC 4380 4
_LAST_32_BITS = (_MAPPED, _COMPATIBLE, _TRANSLATED, _NAT64)
_32_BITS = 0xFFFF_FFFF


class Prohibited:
    """A set of networks, as in `prohibited_networks`. Raises ValueError for what is not a network."""

    def __init__(self, networks: Sequence[str]) -> None:
        self._ipv4: list[IPv4Network] = []
        self._ipv6: list[IPv6Network] = []
        for text in networks:
            network = ip_network(text)
            if isinstance(network, IPv4Network):
                self._ipv4.append(network)
            else:
                self._ipv6.append(network)

    def network_of(self, address: str) -> str:
        """The prohibited network that holds the address, or the IPv4 address inside it; "" if none does."""
        parsed = ip_address(address)
        if isinstance(parsed, IPv4Address):
            return self._find_ipv4(parsed)
        for network in self._ipv6:
            if parsed in network:
                return str(network)
        for inner in embedded_ipv4(parsed):
            found = self._find_ipv4(inner)
            if found:
                return found
        return ""

    def _find_ipv4(self, address: IPv4Address) -> str:
        for network in self._ipv4:
            if address in network:
                return str(network)
        return ""


def embedded_ipv4(address: IPv6Address) -> list[IPv4Address]:
    """The IPv4 addresses that an IPv6 address stands for or is reached through."""
    number = int(address)
    if any(address in network for network in _LAST_32_BITS):
        return [IPv4Address(number & _32_BITS)]
    if address in _6TO4:
        return [IPv4Address(number >> 80 & _32_BITS)]
    if address in _TEREDO:  # server, and the client with its bits turned
        return [IPv4Address(number >> 64 & _32_BITS), IPv4Address(~number & _32_BITS)]
    return []

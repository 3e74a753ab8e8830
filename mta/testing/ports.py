"""Ports: one that is free for a server that a test starts, and stays so until it listens."""

import socket
from random import SystemRandom

PORTS = range(20_000, 32_000)  # below those that the system gives to outgoing connections, which could take one
TRIES_MAX = 200

_random = SystemRandom()  # test processes that run side by side and seed the common generator alike must not collide


def free_port(host: str = "0.0.0.0") -> int:
    """A port of this address that nobody holds now, neither for TCP nor for UDP; raises OSError where none is found.
    By default at no address of IPv4: a sink may listen at all of them."""
    for _ in range(TRIES_MAX):
        port = _random.choice(PORTS)
        with socket.socket() as tcp, socket.socket(type=socket.SOCK_DGRAM) as udp:
            try:
                tcp.bind((host, port))
                udp.bind((host, port))
            except OSError:
                continue
        return port
    raise OSError(f"no free port between {PORTS.start} and {PORTS.stop}")

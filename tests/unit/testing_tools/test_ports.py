"""Free ports for servers that tests start."""

import socket

import pytest

from mta.testing import ports


def test_a_free_port_can_be_listened_on():
    """For TCP and UDP, and it is outside of what the system gives to outgoing connections."""
    port = ports.free_port()

    assert port in ports.PORTS
    with socket.create_server(("127.0.0.1", port)), socket.socket(type=socket.SOCK_DGRAM) as udp:
        udp.bind(("127.0.0.1", port))


def test_a_port_that_is_held_is_not_given(monkeypatch: pytest.MonkeyPatch):
    """Neither where TCP holds it nor where UDP does; where all are held it says so."""
    with (
        socket.create_server(("127.0.0.1", ports.free_port())) as tcp,
        socket.socket(type=socket.SOCK_DGRAM) as udp,
    ):
        udp.bind(("127.0.0.1", ports.free_port()))
        for held in (tcp, udp):
            port = held.getsockname()[1]
            monkeypatch.setattr(ports, "PORTS", range(port, port + 1))

            with pytest.raises(OSError, match="no free port"):
                ports.free_port()

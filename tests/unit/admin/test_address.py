"""Addresses of the admin face."""

import os
import socket
from pathlib import Path

import pytest

from mta.admin.address import TcpAddress, UnixAddress, read_address, short_path


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:8025", TcpAddress("127.0.0.1", 8025)),
        ("[::1]:8025", TcpAddress("::1", 8025)),
        ("[0:0:0:0:0:0:0:1]:1", TcpAddress("::1", 1)),
        ("0.0.0.0:0", TcpAddress("0.0.0.0", 0)),
        ("unix:/run/mta/admin.sock", UnixAddress(Path("/run/mta/admin.sock"))),
        ("unix:var/a:b.sock", UnixAddress(Path("var/a:b.sock"))),
    ],
)
def test_addresses_are_read(text: str, address: object) -> None:
    """IPv4, IPv6 in brackets, and a path behind "unix:"."""
    assert read_address(text) == address


@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            "unix:",
            "8025",
            "127.0.0.1",
            "127.0.0.1:",
            "127.0.0.1:x",
            "127.0.0.1:65536",
            "127.0.0.1:٣",
            "127.0.0.1:-1",
        ),
        *("::1:8025", "[::1]", "[::1:8025", "localhost:8025", "mail.test:1", "http://127.0.0.1:8025"),
    ],
)
def test_other_texts_are_refused(text: str) -> None:
    """What is no address is refused with a sentence that shows what would be."""
    with pytest.raises(ValueError, match=r"not an address|a path is missing"):
        read_address(text)


@pytest.mark.parametrize("text", ["127.0.0.1:8025", "[::1]:8025", "unix:/run/x.sock"])
def test_addresses_are_written_as_they_are_read(text: str) -> None:
    """What is read can be written again."""
    assert str(read_address(text)) == text


def test_an_address_that_means_all_is_asked_on_loopback() -> None:
    """A client on the same machine reaches 0.0.0.0 and [::] on loopback, others where they are."""
    reachable = [str(TcpAddress(host, 1).reachable) for host in ("0.0.0.0", "::", "192.0.2.7")]

    assert reachable == ["127.0.0.1:1", "[::1]:1", "192.0.2.7:1"]


def test_loopback_is_known() -> None:
    """127.0.0.0/8 and ::1 are loopback, an address that means all is not."""
    assert [TcpAddress(host, 1).is_loopback for host in ("127.0.0.9", "::1", "0.0.0.0")] == [True, True, False]


def test_a_long_path_can_be_bound_and_reached(tmp_path: Path) -> None:
    """A path longer than the system's limit works through its folder, and nothing stays open."""
    folder = tmp_path / ("x" * 120)
    folder.mkdir()
    open_before = len(os.listdir("/proc/self/fd"))

    with socket.socket(socket.AF_UNIX) as bound, socket.socket(socket.AF_UNIX) as caller:
        with short_path(folder / "a.sock") as where:
            bound.bind(where)
        bound.listen()
        with short_path(folder / "a.sock") as where:
            caller.connect(where)

    assert (folder / "a.sock").is_socket()
    assert len(os.listdir("/proc/self/fd")) == open_before

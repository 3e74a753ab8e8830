"""A neighbourhood: every address of a network is a mail host, beside the single ones on the same port."""

import asyncio
import socket
from collections.abc import AsyncIterator

import pytest

from bench.neighbourhood import wildcard_socket
from bench.sink import Profile, Sink, apply

NETWORK = "127.64.0.0/16"


async def greet(address: str, port: int) -> tuple[bytes, asyncio.StreamWriter]:
    """A connection and what it was greeted with; b"" where it was cut."""
    reader, writer = await asyncio.open_connection(address, port)
    try:
        return await asyncio.wait_for(reader.readline(), 10), writer
    except ConnectionResetError:
        return b"", writer


async def hand_in(address: str, port: int, *commands: bytes) -> list[bytes]:
    reader, writer = await asyncio.open_connection(address, port)
    lines = [await reader.readline()]
    for command in commands:
        writer.write(command)
        lines.append(await asyncio.wait_for(reader.readline(), 10))
    writer.close()
    return [line[:3] for line in lines]


@pytest.fixture
async def sink() -> AsyncIterator[Sink]:
    profiles = [
        Profile(name="single"),
        Profile(name="tail", address=NETWORK, connections_max=1),
        Profile(name="other", address="127.65.0.0/16", rate_per_s=1.0, burst=1),
    ]
    async with Sink(profiles) as sink:
        yield sink


async def test_the_address_says_whose_a_connection_is(sink: Sink):
    """Single hosts keep theirs; all others on the same port belong to the network they are in."""
    greetings = {}
    for address in ("127.0.0.2", "127.64.3.4", "127.64.200.1", "127.65.0.9"):
        greeting, writer = await greet(address, sink.port)
        greetings[address] = greeting.split()[1]
        writer.close()

    assert greetings == {
        "127.0.0.2": b"single.sink.test",
        "127.64.3.4": b"tail.sink.test",
        "127.64.200.1": b"tail.sink.test",
        "127.65.0.9": b"other.sink.test",
    }


async def test_an_address_of_nobody_is_cut(sink: Sink):
    """There is no mail host: the connection ends without a word."""
    greeting, writer = await greet("127.99.0.1", sink.port)
    writer.close()

    assert greeting == b""


async def test_mail_is_counted_for_the_whole_network(sink: Sink):
    """Messages, connections and addresses together; each with its id."""
    for number in range(5):
        content = b"X-Bench-Id: m%d\r\n\r\nbody\r\n.\r\n" % number
        codes = await hand_in(
            f"127.64.0.{number % 3 + 1}", sink.port, b"MAIL FROM:<>\r\n", b"RCPT TO:<a@b.test>\r\n", b"DATA\r\n",
            b"Subject: x\r\n" + content,
        )  # fmt: skip
        assert codes == [b"220", b"250", b"250", b"354", b"250"]
    tail = sink.profiles["tail"]
    await sink.until(lambda: tail.connections_open == 0)

    assert (tail.messages, tail.connections_total, tail.addresses) == (5, 5, 3)
    assert tail.connections_max_by_address == 1
    assert set(tail.ids()) == {f"m{number}" for number in range(5)}


async def test_each_host_has_its_own_number_of_connections(sink: Sink):
    """One is allowed at each address; the second one at the same is too many."""
    first, one = await greet("127.64.0.1", sink.port)
    second, two = await greet("127.64.0.2", sink.port)
    third, three = await greet("127.64.0.1", sink.port)
    for writer in (one, two, three):
        writer.close()

    assert (first[:3], second[:3], third[:3]) == (b"220", b"220", b"421")
    assert sink.profiles["tail"].connections_over == 1
    assert sink.profiles["tail"].connections_max_by_address == 2


async def test_each_host_has_its_own_rate(sink: Sink):
    """A MAIL too early at one address is in time at another."""
    mail = b"MAIL FROM:<>\r\n"

    same = await hand_in("127.65.0.1", sink.port, mail, mail)
    other = await hand_in("127.65.0.2", sink.port, mail)

    assert same == [b"220", b"250", b"451"]
    assert other == [b"220", b"250"]


async def test_a_network_may_be_down(sink: Sink):
    """Its hosts cut every connection, those that are open too, and come back together."""
    _, writer = await greet("127.64.0.1", sink.port)
    await apply(sink, b'{"set": {"tail": {"down": true}}}')

    while_down, cut = await greet("127.64.0.7", sink.port)
    single, other = await greet("127.0.0.2", sink.port)
    await apply(sink, b'{"set": {"tail": {"down": false}}}')
    again, back = await greet("127.64.0.7", sink.port)
    for each in (writer, cut, other, back):
        each.close()

    assert (while_down, single[:3], again[:3]) == (b"", b"220", b"220")


async def test_a_network_alone_gets_a_port_too():
    """No single host is needed to choose it."""
    async with Sink([Profile(name="tail", address=NETWORK)]) as sink:
        greeting, writer = await greet("127.64.9.9", sink.port)
        writer.close()

    assert greeting[:3] == b"220"
    assert sink.profiles["tail"].port == sink.port != 0


def test_nobody_from_outside_is_heard():
    """The socket hears only what comes over the loopback interface."""
    with wildcard_socket(0) as wild:
        assert wild.getsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, 16).rstrip(b"\0") == b"lo"

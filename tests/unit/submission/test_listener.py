"""Listeners: who comes in, who is trusted, what happens when there is no room, and how it all ends."""

import asyncio
import errno
import os
import resource
import socket

import pytest

from mta.smtp import replies
from mta.submission.listener import (
    ACCEPTED_AT_ONCE_MAX,
    CONNECTIONS_MAX,
    Doors,
    Listener,
    ListenerSettings,
)

MESSAGE = b"Subject: x\r\n\r\nHello\r\n"
OPEN_RELAY_FORMS = [
    b"<user%victim.test@mail.test>",
    b"<user%victim.test>",
    b'<"user%victim.test"@mail.test>',
    b'<"user@victim.test"@mail.test>',
    b'<"user@victim.test">',
    b"<user@victim.test@mail.test>",
    b"<@mail.test:user@victim.test>",
    b"<@mail.test,@other.test:user@victim.test>",
    b"<victim.test!user>",
    b"<victim.test!user@mail.test>",
    b"<mail.test!victim.test!user>",
    b"<user@[127.0.0.1]>",
    b"<user@[IPv6:::1]>",
    b"<user%victim.test@[127.0.0.1]>",
    b"<user@victim.test.>",
    b"<USER@VICTIM.TEST>",
    b"<user@mail.test>",
    b"<postmaster>",
    b"<Postmaster@victim.test>",
    b"<user@xn--bcher-kva.test>",
    "<user@bücher.test>".encode(),
    "<user@例え.jp>".encode(),
    b"user@victim.test",
    b" <user@victim.test>",
    b"<user@victim.test> NOTIFY=NEVER",
    b"<user@victim.test> ORCPT=rfc822;x@y.test",
    b"<>",
    b"<user>",
    b"<user@>",
    b"<@victim.test>",
    b"<user@localhost>",
    b"<user@127.0.0.1>",
    b"<user@2130706433>",
    b"<user@0x7f.1>",
    b"<|/bin/sh@victim.test>",
    b"</dev/null@victim.test>",
    b'<"|/bin/sh"@victim.test>',
    b"<user+detail@victim.test>",
    b"<user@sub.mail.test>",
    b"<user@victim.test\x00@mail.test>",
    b"<user@victim.test\x0b>",
    b'<"\\user"@victim.test>',
]


def listener(*trusted: str) -> Listener:
    """One that is asked who is trusted, and nothing else."""
    settings = ListenerSettings("mail.test", 1000, 100, trusted)
    return Listener(object(), settings, object())  # pyright: ignore[reportArgumentType] - it opens nothing here


# --- who a client is


@pytest.mark.parametrize(
    ("peer", "trusted", "answer"),
    [
        ("127.0.0.1", "127.0.0.0/8", True),
        ("128.0.0.1", "127.0.0.0/8", False),
        ("::1", "::1/128", True),
        ("::2", "::1/128", False),
        ("10.1.2.3", "10.1.2.3", True),
        ("10.1.2.3", "10.1.2.99/24", True),
        ("::ffff:10.1.2.3", "10.1.2.0/24", True),
        ("::ffff:10.1.2.3", "::/0", False),
        ("::ffff:10.1.2.3", "::ffff:10.1.2.0/120", True),
        ("10.1.2.3", "::ffff:10.1.2.0/120", True),
        ("10.1.3.3", "::ffff:10.1.2.0/120", False),
        ("10.1.2.3", "::/0", False),
        ("2001:db8::1", "0.0.0.0/0", False),
        ("fe80::1%eth0", "fe80::/10", True),
        ("", "0.0.0.0/0", False),
        ("/run/some.sock", "0.0.0.0/0", False),
    ],
)
def test_who_may_relay(peer, trusted, answer):
    """An IPv4 address is the same by whichever socket it comes; a network of one family says nothing of the other."""
    assert listener(trusted).visitor(peer).is_trusted is answer


@pytest.mark.parametrize(
    ("peer", "client", "network"),
    [
        ("192.0.2.1", "192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1", "192.0.2.1"),
        ("2001:DB8::1", "2001:db8::1", "2001:db8::/64"),
        ("2001:db8::ffff:1", "2001:db8::ffff:1", "2001:db8::/64"),
        ("fe80::1%eth0", "fe80::1", "fe80::/64"),
    ],
)
def test_how_a_client_is_told_and_counted(peer, client, network):
    """In one form, without zone; in IPv6 by its network, since the rest of the address is its own choice."""
    assert listener().visitor(peer)[:2] == (client, network)


def test_what_is_remembered_of_clients_is_bounded(monkeypatch):
    """Whoever comes by."""
    monkeypatch.setattr("mta.submission.listener.KNOWN_CLIENTS_MAX", 3)
    asked = listener("10.0.0.0/8")

    answers = [asked.visitor(f"10.0.0.{number}").is_trusted for number in range(10)]

    assert all(answers)
    assert len(asked._visitors) <= 3


# --- relaying


@pytest.mark.parametrize("form", OPEN_RELAY_FORMS)
async def test_nobody_else_relays(build, form):
    """Whatever the form of the recipient: 550 5.7.1, or no command at all."""
    house = await build(trusted=())
    client = await house.client()
    assert (await client.ask(b"MAIL FROM:<a@shop.test>\r\n")).startswith(b"250 ")

    said = await client.ask(b"RCPT TO:" + form + b"\r\n")

    assert said.startswith(b"501 5.5.2 " if b"\0" in form or b"\x0b" in form else b"550 5.7.1 ")
    assert (await client.ask(b"DATA\r\n"))[:1] == b"5"
    assert house.submitter.taken == []


async def test_a_trusted_client_relays_over_ipv6(build):
    """Its literal stands in the trace line (RFC 5321 4.4)."""
    house = await build(host="::1")
    client = await house.client()
    await client.envelope()

    assert (await client.ask(MESSAGE + b".\r\n")).startswith(b"250 ")
    assert b"from client.test ([IPv6:::1])\r\n" in house.submitter.contents[0]


# --- room


async def test_a_client_has_so_many_connections(build):
    """One more is told so and closed; when one ends there is room again."""
    house = await build(connections_per_client_max=2)
    first, _ = await house.client(), await house.client()

    third = await house.connect()
    assert (await third.rest()).startswith(b"421 4.7.0 ")
    other = await house.connect(local_addr=("127.0.0.9", 0))
    assert (await other.line()).startswith(b"220 ")

    first.writer.close()
    await house.until(lambda: house.doors.connections == 2)
    assert (await (await house.connect()).line()).startswith(b"220 ")
    assert house.doors.turned_away == 1


async def test_all_clients_have_so_many_connections(build):
    """And no more, from whichever address."""
    house = await build(connections_max=2)
    await house.client()
    await house.client()

    third = await house.connect(local_addr=("127.0.0.9", 0))

    assert (await third.rest()).startswith(b"421 4.7.0 ")
    assert house.doors.connections == 2


async def test_more_clients_at_once_than_one_turn_takes(build):
    """They come in turn after turn."""
    house = await build()

    clients = await asyncio.gather(*(house.connect() for _ in range(3 * ACCEPTED_AT_ONCE_MAX)))

    for client in clients:
        assert (await client.line()).startswith(b"220 ")
    assert house.doors.connections == 3 * ACCEPTED_AT_ONCE_MAX


def test_sessions_leave_descriptors_for_the_rest(monkeypatch):
    """Half of them, and never more than the fixed number."""
    seen = {}
    for soft in (1024, 1_000_000, resource.RLIM_INFINITY):
        monkeypatch.setattr(resource, "getrlimit", lambda _, soft=soft: (soft, soft))
        doors = Doors(object(), object(), object())  # pyright: ignore[reportArgumentType] - it opens nothing here
        seen[soft] = doors._connections_max

    assert seen == {1024: 512, 1_000_000: CONNECTIONS_MAX, resource.RLIM_INFINITY: CONNECTIONS_MAX}


async def test_without_descriptors_accepting_pauses_and_resumes(build):
    """No client is lost, nothing spins, and sessions that are open go on."""
    house = await build()
    session = await house.client()
    sockets = [socket.create_connection(house.address) for _ in range(3)]  # complete in the kernel, not taken yet
    for each in sockets:
        each.setblocking(False)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest_free = os.dup(0)
    os.close(lowest_free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest_free, hard))
    try:
        await house.until(lambda: house.doors.pauses == 1)
        assert (await session.ask(b"NOOP\r\n")).startswith(b"250 ")
        assert house.doors.listeners[0].is_paused
        house.later(1)
        await house.until(lambda: house.doors.pauses == 2)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert house.doors.connections == 1
    house.later(1)

    loop = asyncio.get_running_loop()
    greetings = await asyncio.gather(*(loop.sock_recv(each, 100) for each in sockets))

    assert all(greeting.startswith(b"220 ") for greeting in greetings)
    assert house.doors.pauses == 2
    for each in sockets:
        each.close()


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EINVAL])
async def test_any_trouble_with_accept_pauses_it(build, number, monkeypatch):
    """It is tried once in every sweep, and works again when the trouble is over."""
    house = await build()
    door = house.doors.listeners[0]
    real = door._socket

    class Troubled:
        def accept(self):
            raise OSError(number, "trouble")

        def fileno(self):
            return real.fileno()

    door.pause()
    monkeypatch.setattr(door, "_socket", Troubled())
    house.later(1)
    client = await house.connect()
    await house.until(lambda: house.doors.pauses == 1)
    monkeypatch.setattr(door, "_socket", real)
    house.later(1)

    assert (await client.line()).startswith(b"220 ")


async def test_a_client_that_is_gone_before_it_is_let_in(build):
    """Nothing of it stays."""
    house = await build()
    house.doors.listeners[0].pause()
    for _ in range(20):
        client = await house.connect()
        client.writer.transport.abort()
    house.doors.listeners[0].open()

    assert (await (await house.connect()).line()).startswith(b"220 ")
    await house.until(lambda: house.doors.connections == 1)
    assert len(house.doors.clients) == 1


# --- the end


async def test_a_stop_ends_idle_sessions_and_answers_messages(build):
    """421 for who is between two messages, the 250 for who waits for it, and 421 behind it (RFC 5321 3.8)."""
    house = await build()
    house.submitter.does = "wait"
    of_the_supervisor = house.bound.dup()
    idle, busy = await house.client(), await house.client()
    await busy.envelope()
    busy.say(MESSAGE + b".\r\n")
    await house.until(lambda: house.submitter.waiting)

    closing = asyncio.ensure_future(house.doors.close(20))
    assert (await idle.rest()) == replies.SHUTTING_DOWN
    late = await house.connect()
    assert (await late.rest()) == replies.SHUTTING_DOWN
    house.submitter.accept()

    heard = await busy.rest()
    await closing
    assert [line[:3] for line in heard.splitlines()] == [b"250", b"421"]
    with pytest.raises(ConnectionRefusedError):
        await house.connect()
    of_the_supervisor.close()


async def test_a_message_that_begins_before_the_stop_may_end(build):
    """Content that is coming in is taken and answered."""
    house = await build()
    client, other = await house.client(), await house.client()
    await client.envelope()
    client.say(MESSAGE)
    assert (await other.ask(b"MAIL FROM:<a@shop.test>\r\n")).startswith(b"250 ")

    closing = asyncio.ensure_future(house.doors.close(20))
    await asyncio.sleep(0)
    client.say(b".\r\n")
    heard = await client.rest()
    again = await other.ask(b"RSET\r\nMAIL FROM:<a@shop.test>\r\n", 2)
    house.later(1)

    assert heard.startswith(b"250 2.0.0 ")
    assert heard.endswith(replies.SHUTTING_DOWN)
    assert again.endswith(replies.SHUTTING_DOWN)
    assert (await other.rest()) == replies.SHUTTING_DOWN
    await closing


async def test_a_stop_has_its_time(build):
    """Who has not ended by then is cut off: with a word, unless its message may be accepted yet."""
    house = await build()
    house.submitter.does = "wait"
    slow, waiting = await house.client(), await house.client()
    await slow.envelope()
    await waiting.envelope()
    waiting.say(MESSAGE + b".\r\n")
    await house.until(lambda: house.submitter.waiting)

    await house.doors.close(0)

    assert (await slow.rest()) == replies.SHUTTING_DOWN
    try:
        heard = await waiting.rest()
    except ConnectionError:
        heard = b""
    assert heard == b""
    house.submitter.accept()
    assert house.acceptor.accepted == 1

"""Sessions over real sockets: honest clients, rude ones, slow ones, and those that go away."""

import asyncio
import socket
import struct

import pytest

from mta.testing.server_dialogue import FAKE_ENDS

MESSAGE = b"Subject: x\r\n\r\nHello\r\n"
SMALL = {"size_max_bytes": 100_000, "content_bytes_max": 200_000}


# --- the answer to a message


async def test_the_250_waits_for_stable_storage(build):
    """The client hears nothing before, and then the id that the message has."""
    house = await build()
    house.submitter.does = "wait"
    client = await house.client()
    await client.envelope()
    client.say(MESSAGE + b".\r\n")
    await house.until(lambda: house.submitter.waiting)
    client.say(b"NOOP\r\n")
    await house.until(lambda: house.acceptor.held_bytes)
    assert house.acceptor.being_written == 1

    house.submitter.accept()

    envelope = house.submitter.taken[0][0]
    assert await client.line() == f"250 2.0.0 Ok: queued as {envelope.id}\r\n".encode()
    assert (await client.line()).startswith(b"250 2.0.0 Ok")
    assert (house.acceptor.being_written, house.acceptor.being_written_bytes, house.acceptor.held_bytes) == (0, 0, 0)


@pytest.mark.parametrize("does", ["wait", "refuse at once"])
async def test_a_message_that_is_not_stored_is_refused(build, does):
    """The session goes on, the event log tells it, and no memory stays counted."""
    house = await build()
    house.submitter.does = does
    client = await house.client()
    await client.envelope()
    client.say(MESSAGE + b".\r\n")
    await house.until(lambda: house.submitter.taken)
    if does == "wait":
        house.submitter.refuse()

    assert (await client.line()).startswith(b"452 4.3.1 ")
    assert (await client.ask(b"NOOP\r\n")).startswith(b"250 ")
    assert [(each["event"], each["code"]) for each in house.events()] == [("rejected", 452)]
    assert (house.acceptor.refused, house.acceptor.being_written_bytes) == (1, 0)


@pytest.mark.parametrize("does", ["accept", "accept at once"])
async def test_replies_keep_the_order_of_what_was_asked(build, does):
    """Also where the next group comes behind a content, and however fast the storage is (RFC 2920 3.2)."""
    house = await build()
    house.submitter.does = does
    client = await house.client()
    await client.envelope()

    said = await client.ask(MESSAGE + b".\r\nRSET\r\nMAIL FROM:<a@shop.test>\r\nRCPT TO:<b@d.test>\r\nVRFY x\r\n", 5)

    assert [line[:3] for line in said.splitlines()] == [b"250", b"250", b"250", b"250", b"252"]
    assert said.startswith(b"250 2.0.0 Ok: queued")


async def test_many_messages_are_sent_without_waiting_for_answers(build):
    """A client that pipelines across messages gets every answer, and its reading is resumed each time."""
    house = await build(limits={"read_ahead_bytes": 10})
    house.submitter.does = "wait"
    client = await house.client()
    await client.envelope()
    for number in range(5):
        client.say(MESSAGE + b".\r\nMAIL FROM:<a@shop.test>\r\nRCPT TO:<b@d.test>\r\nDATA\r\n")
        await house.until(lambda number=number: len(house.submitter.taken) == number + 1)
        await house.until(lambda: house.acceptor.held_bytes)

        house.submitter.accept()

        assert [(await client.line())[:3] for _ in range(4)] == [b"250", b"250", b"250", b"354"]
        assert house.acceptor.held_bytes == 0


async def test_a_half_closed_client_hears_its_answer(build):
    """It said all that it had to say, and listens on."""
    house = await build()
    house.submitter.does = "wait"
    client = await house.client()
    await client.envelope()
    client.say(MESSAGE + b".\r\nQUIT\r\n")
    client.writer.write_eof()
    (session,) = house.doors.sessions
    await house.until(lambda: session._is_at_end)
    for _ in range(20):
        await asyncio.sleep(0)
    assert house.doors.connections == 1

    house.submitter.accept()

    heard = await client.rest()
    assert [line[:3] for line in heard.splitlines()] == [b"250", b"221"]


async def test_a_half_closed_client_without_quit_is_closed_behind_its_answer(build):
    """Nothing more can come."""
    house = await build()
    house.submitter.does = "wait"
    client = await house.client()
    await client.envelope()
    client.say(MESSAGE + b".\r\n")
    client.writer.write_eof()
    await house.until(lambda: house.submitter.waiting)
    house.submitter.accept()

    assert (await client.rest()).startswith(b"250 2.0.0 ")
    await house.until(lambda: not house.doors.connections)


async def test_a_client_that_vanishes_leaves_its_message_and_nothing_else(build):
    """The message that is being written down stays accepted; the answer goes nowhere."""
    house = await build()
    house.submitter.does = "wait"
    client = await house.client()
    await client.envelope()
    client.say(MESSAGE + b".\r\nNOOP\r\n")
    await house.until(lambda: house.submitter.waiting)
    sock = client.writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.writer.transport.abort()
    client.say(b"")
    await house.until(lambda: not house.doors.connections)

    house.submitter.accept()

    assert house.acceptor.accepted == 1
    assert (house.acceptor.held_bytes, house.acceptor.being_written_bytes) == (0, 0)
    assert not house.doors.clients


async def test_half_a_message_is_none(build):
    """Content without its end mark is forgotten with the connection."""
    house = await build()
    client = await house.client()
    await client.envelope()
    client.say(MESSAGE + b".\r")
    await house.until(lambda: house.acceptor.held_bytes)

    client.writer.close()

    await house.until(lambda: not house.doors.connections)
    assert house.submitter.taken == []
    assert house.acceptor.held_bytes == 0


# --- content


@pytest.mark.parametrize("end", FAKE_ENDS)
@pytest.mark.parametrize("before", [b"", MESSAGE[:-2]])
async def test_no_false_end_makes_a_second_message(build, end, before):
    """The session stays in step: one answer, a refusal, behind the true end."""
    house = await build()
    client = await house.client()
    await client.envelope()
    smuggled = b"MAIL FROM:<evil@shop.test>\r\nRCPT TO:<victim@d.test>\r\nDATA\r\nSubject: evil\r\n\r\nevil\r\n"

    client.say(before + end + smuggled + b".\r\n")

    assert (await client.line()).startswith(b"550 5.6.0 ")
    assert (await client.ask(b"NOOP\r\n")).startswith(b"250 ")
    assert house.submitter.taken == []


async def test_content_in_pieces_is_counted_while_it_comes(build):
    """Its memory is known over all sessions, and given back with the message."""
    house = await build()
    client = await house.client()
    await client.envelope()
    for number in range(1, 4):
        client.say(b"x" * 98 + b"\r\n")
        await house.until(lambda number=number: house.acceptor.held_bytes >= 100 * number)

    said = await client.ask(b".\r\n")

    assert said.startswith(b"250 ")
    assert house.acceptor.held_bytes == 0
    assert house.submitter.contents[0].endswith((b"x" * 98 + b"\r\n") * 3)


async def test_content_over_the_size_is_swallowed_and_refused(build):
    """In constant memory, and the session goes on."""
    house = await build(**SMALL)
    client = await house.client()
    await client.envelope()
    for _ in range(40):
        client.say((b"y" * 98 + b"\r\n") * 200)
        await client.writer.drain()
        assert house.acceptor.held_bytes < 700_000

    assert (await client.ask(b".\r\n")).startswith(b"552 5.3.4 ")
    assert (await client.ask(b"NOOP\r\n")).startswith(b"250 ")
    assert house.acceptor.held_bytes == 0


async def test_a_size_too_big_is_refused_before_it_is_sent(build):
    """RFC 1870 6.1."""
    house = await build(**SMALL)
    client = await house.client()

    assert (await client.ask(b"MAIL FROM:<a@shop.test> SIZE=100001\r\n")).startswith(b"552 5.3.4 ")


# --- memory and disk


async def test_mail_is_refused_while_disk_or_log_cannot_follow(build):
    """452 at MAIL, and all is well again when space is back."""
    house = await build()
    client = await house.client()
    house.acceptor.closed_reply = b"452 4.3.1 Not enough storage for now\r\n"
    refused = await client.ask(b"MAIL FROM:<a@shop.test>\r\n")
    house.acceptor.closed_reply = b""

    assert refused.startswith(b"452 4.3.1 ")
    assert (await client.ask(b"MAIL FROM:<a@shop.test>\r\n")).startswith(b"250 ")


async def test_a_message_that_ends_after_the_disk_filled_is_refused(build):
    """MAIL was taken while there was space."""
    house = await build()
    client = await house.client()
    await client.envelope()
    house.acceptor.closed_reply = b"452 4.3.1 Not enough storage for now\r\n"

    assert (await client.ask(MESSAGE + b".\r\n")).startswith(b"452 4.3.1 ")
    assert house.submitter.taken == []


async def test_mail_is_refused_where_memory_is_short(build):
    """What waits for the disk counts, and what the client says that it will send."""
    house = await build(**SMALL)
    house.submitter.does = "wait"
    first, second = await house.client(), await house.client()
    await first.envelope()
    first.say((b"x" * 98 + b"\r\n") * 900 + b".\r\n")
    await house.until(lambda: house.submitter.waiting)
    big = await second.ask(b"MAIL FROM:<a@shop.test> SIZE=90000\r\n")
    small = await second.ask(b"MAIL FROM:<a@shop.test> SIZE=1000\r\nRSET\r\n", 2)
    house.submitter.accept()
    assert (await first.line()).startswith(b"250 ")

    again = await second.ask(b"MAIL FROM:<a@shop.test> SIZE=90000\r\n")

    assert big.startswith(b"452 4.3.1 ")
    assert small.startswith(b"250 ")
    assert again.startswith(b"250 ")


async def test_memory_stays_bounded_when_all_contents_grow(build):
    """Whoever grows beyond it hears 421 behind all that it sends; the others end well."""
    house = await build(**SMALL)
    clients = [await house.client() for _ in range(4)]
    for client in clients:
        await client.envelope()
    piece = (b"x" * 98 + b"\r\n") * 100
    most = 0
    for _ in range(8):
        for client in clients:
            client.say(piece)
            await client.writer.drain()
        for _ in range(50):
            await asyncio.sleep(0)
            most = max(most, house.acceptor.held_bytes)
    for client in clients:
        client.say(b".\r\n")

    replies = sorted([(await client.line())[:9] for client in clients])

    assert most <= 200_000
    assert set(replies) == {b"250 2.0.0", b"421 4.3.1"}
    assert house.acceptor.held_bytes == 0


# --- out of step


@pytest.mark.parametrize(
    "group",
    [b"EHLO c.test\r\nMAIL FROM:<a@shop.test>\r\n", b"QUIT\r\nNOOP\r\n", b"STARTTLS\r\nEHLO injected.test\r\n"],
)
async def test_nothing_may_follow_what_ends_a_group(build, group):
    """RFC 2920 3.1: refused, and the client can read why."""
    house = await build()
    client = await house.client()
    client.say(group)

    heard = await client.rest()

    assert heard.splitlines()[-1][:3] in (b"554", b"221")
    assert heard.count(b"\r\n") <= 10
    assert b"250 2.1.0" not in heard


async def test_content_behind_data_is_refused_and_all_of_it_is_heard_out(build):
    """A client that sends megabytes ahead reads our reply, no reset connection (RFC 2920 3.1)."""
    house = await build()
    client = await house.client()
    client.say(b"MAIL FROM:<a@shop.test>\r\nRCPT TO:<b@d.test>\r\nDATA\r\n" + b"x" * 3_000_000)

    heard = [await client.line() for _ in range(4)]
    await asyncio.wait_for(client.writer.drain(), 20)

    assert [line[:3] for line in heard] == [b"250", b"250", b"354", b"554"]
    assert house.submitter.taken == []
    client.writer.close()
    await house.until(lambda: not house.doors.connections)


async def test_who_speaks_before_the_greeting_is_refused(build):
    """RFC 5321 4.3.1: a client waits for it."""
    house = await build()
    house.doors.listeners[0].pause()
    client = await house.connect()
    client.say(b"EHLO eager.test\r\n")
    await client.writer.drain()
    house.doors.listeners[0].open()

    heard = await client.rest()

    assert heard.startswith(b"554 5.5.0 ")
    assert b"220" not in heard


async def test_a_client_told_goodbye_that_never_stops_is_cut_off(build):
    """We do not listen for ever."""
    house = await build()
    client = await house.client()
    client.say(b"EHLO c.test\r\nNOOP\r\n")
    await client.rest()
    assert house.doors.connections == 1
    house.later(31)

    await house.until(lambda: not house.doors.connections)


# --- errors and floods


async def test_after_ten_errors_replies_take_their_time(build):
    """Each is said a while later, by the clock, and what comes meanwhile is not read."""
    house = await build()
    client = await house.client()
    for _ in range(10):
        assert (await client.ask(b"WHAT\r\n")).startswith(b"500 ")
    client.say(b"WHAT\r\n")
    (session,) = house.doors.sessions
    await house.until(lambda: session.is_slow)
    client.say(b"not read")
    house.later(0.9)
    for _ in range(20):
        await asyncio.sleep(0)
    assert session.is_slow
    assert house.acceptor.held_bytes == 0
    house.later(0.2)

    assert (await client.line()).startswith(b"500 ")
    await house.until(lambda: house.acceptor.held_bytes == 8)


async def test_a_slow_reply_that_is_none_moves_no_deadline(build):
    """A client with many errors that drips a command is told goodbye as any other."""
    house = await build()
    client = await house.client()
    client.say(b"WHAT\r\n" * 11)
    (session,) = house.doors.sessions
    await house.until(lambda: session.is_slow)
    house.later(2)
    for number in range(1, 4):
        client.say(b"N")
        await house.until(lambda number=number: house.acceptor.held_bytes == number)
        house.later(100)
    house.later(2)

    assert (await client.rest()).splitlines()[-1].startswith(b"421 4.4.2 ")


async def test_after_twenty_errors_it_is_over(build):
    """In one group or one after the other."""
    house = await build()
    client = await house.client()

    client.say(b"WHAT\r\n" * 1000)
    heard = await client.rest()

    assert heard.count(b"500 ") == 20
    assert heard.splitlines()[-1].startswith(b"421 4.7.0 ")


async def test_a_client_with_errors_may_still_hand_in_a_message(build):
    """Its content is not slowed down, and the 250 makes up for it."""
    house = await build()
    client = await house.client()
    client.say(b"WHAT\r\n" * 11)
    (session,) = house.doors.sessions
    await house.until(lambda: session.is_slow)
    house.later(2)
    for _ in range(11):
        await client.line()
    client.say(b"MAIL FROM:<a@shop.test>\r\nRCPT TO:<b@d.test>\r\nDATA\r\n")
    for _ in range(3):
        assert (await client.line())[:1] in b"23"
    client.say(b"x\r\n")
    await house.until(lambda: house.acceptor.held_bytes)
    assert not session.is_slow

    assert (await client.ask(b".\r\nNOOP\r\n", 2)).startswith(b"250 2.0.0 Ok: queued")


async def test_a_flood_of_commands_is_taken_in_slices(build):
    """Other sessions are answered in between; every command is answered, in one group."""
    house = await build(limits={"slice_bytes": 100})
    flood, other = await house.client(), await house.client()
    flood.say(b"NOOP\r\n" * 2000)

    assert (await other.ask(b"NOOP\r\n")).startswith(b"250 ")
    heard = [await flood.line() for _ in range(2000)]
    assert set(heard) == {b"250 2.0.0 Ok\r\n"}
    assert (await flood.ask(b"NOOP\r\n")).startswith(b"250 ")


async def test_slices_do_not_hide_who_speaks_out_of_turn(build):
    """What follows DATA in one group is refused, wherever a slice begins."""
    house = await build(limits={"slice_bytes": 57})
    client = await house.client()
    group = b"MAIL FROM:<a@shop.test>\r\nRCPT TO:<b@d.test>\r\nDATA\r\n"
    assert len(group) < 57
    client.say(group + b" " * 0 + b"Subject: ahead\r\n\r\n.\r\n" * 3)

    heard = await client.rest()

    assert heard.splitlines()[-1].startswith(b"554 5.5.0 ")
    assert house.submitter.taken == []


async def test_a_line_without_end_costs_no_memory(build):
    """Five megabytes without a line end are swallowed, then refused once."""
    house = await build()
    client = await house.client()
    for _ in range(50):
        client.say(b"z" * 100_000)
        await client.writer.drain()
        assert house.acceptor.held_bytes <= 20_000

    assert (await client.ask(b"\r\n")).startswith(b"500 5.5.6 ")
    assert house.acceptor.held_bytes == 0


async def test_a_client_that_does_not_read_is_cut_off(build):
    """Its replies do not gather without end."""
    house = await build(limits={"unread_replies_bytes_max": 10_000})
    client = await house.client()
    client.writer.transport.pause_reading()
    (session,) = house.doors.sessions
    while house.doors.connections:
        client.say(b"HELP\r\n" * 1000)
        await asyncio.sleep(0)

    assert session.is_over
    assert not house.doors.sessions


async def test_a_client_that_does_not_read_our_goodbye_is_cut_off(build):
    """A closed connection does not wait for ever to be flushed."""
    house = await build(limits={"unread_replies_bytes_max": 100_000_000})
    client = await house.client()
    client.writer.transport.pause_reading()
    (session,) = house.doors.sessions
    while not session._transport.get_write_buffer_size():
        client.say(b"HELP\r\n" * 1000)
        await asyncio.sleep(0)
    house.later(301)
    assert session.is_over
    for _ in range(20):
        await asyncio.sleep(0)
    assert house.doors.connections == 1

    house.later(31)

    await house.until(lambda: not house.doors.connections)


async def test_control_bytes_never_make_a_second_line_in_the_event_log(build):
    """Whatever a client says, every event is one line."""
    house = await build(trusted=())
    client = await house.client()
    await client.ask(b"MAIL FROM:<a@shop.test>\r\n")
    evil = b'RCPT TO:<x"\x7f\x1b[31m\xc2\x85\xe2\x80\xa8{"event":"delivered"}@d.test>\r\n'

    assert (await client.ask(evil))[:1] == b"5"
    assert (await client.ask(b'RCPT TO:<"a\\"b{}"@d.test>\r\n')).startswith(b"550 5.7.1 ")
    assert all(line.count(b"\n") == 1 and line.endswith(b"\n") for line in house.event_lines)
    assert {each["event"] for each in house.events()} == {"rejected"}

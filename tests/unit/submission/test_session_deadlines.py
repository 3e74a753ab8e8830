"""Sessions and time: silence, drips, a day of talking. The clock stands still until a test moves it."""

import asyncio

MESSAGE = b"Subject: x\r\n\r\nHello\r\n"


async def test_a_silent_client_is_told_goodbye(build):
    """RFC 5321 4.5.3.2.7."""
    house = await build()
    client = await house.client()
    house.later(299)
    assert (await client.ask(b"NOOP\r\n")).startswith(b"250 ")
    house.later(299)
    assert house.doors.connections == 1
    house.later(2)

    assert (await client.rest()).startswith(b"421 4.4.2 ")
    await house.until(lambda: not house.doors.connections)


async def test_a_drip_of_bytes_moves_no_deadline(build):
    """A command has its time as a whole, however busily its bytes come."""
    house = await build()
    client = await house.client()
    for number in range(1, 5):
        house.later(70)
        client.say(b"N")
        await house.until(lambda number=number: house.acceptor.held_bytes == number)
    house.later(21)

    assert (await client.rest()).startswith(b"421 4.4.2 ")


async def test_content_that_stops_coming_is_given_up(build):
    """RFC 5321 4.5.3.2.5."""
    house = await build()
    client = await house.client()
    await client.envelope()
    client.say(b"x" * 500)
    await house.until(lambda: house.acceptor.held_bytes >= 500)
    house.later(179)
    assert house.acceptor.held_bytes >= 500
    house.later(2)

    assert (await client.line()).startswith(b"421 4.4.2 ")
    assert house.acceptor.held_bytes == 0


async def test_content_that_drips_is_given_up(build):
    """A byte a minute keeps no memory for hours; a slow line that moves is waited for."""
    house = await build()
    drip, slow = await house.client(), await house.client()
    await drip.envelope()
    await slow.envelope()
    for number in range(1, 6):
        house.later(61)
        drip.say(b"x")
        slow.say((b"y" * 98 + b"\r\n") * 700)
        await house.until(lambda number=number: house.acceptor.held_bytes >= number * 70_000)

    house.later(1)

    assert (await drip.line()).startswith(b"421 4.4.2 ")
    assert (await slow.ask(b".\r\n")).startswith(b"250 2.0.0 ")


async def test_a_session_lives_a_day(build):
    """Then it ends between two messages; the one under way has an hour more."""
    house = await build()
    idle, busy = await house.client(), await house.client()
    await busy.ask(b"MAIL FROM:<a@shop.test>\r\n")
    for _ in range(86_400 // 200):
        house.later(200)
        await asyncio.gather(idle.ask(b"NOOP\r\n"), busy.ask(b"NOOP\r\n"))
    house.later(1)
    assert (await idle.rest()).startswith(b"421 4.3.2 ")
    await house.until(lambda: house.doors.connections == 1)
    (session,) = house.doors.sessions
    for _ in range(3600 // 200):
        assert (await busy.ask(b"NOOP\r\n")).startswith(b"250 ")
        house.later(200)

    assert session.is_over
    assert (await busy.rest()).startswith(b"421 4.3.2 ")


async def test_no_deadline_runs_while_the_delay_is_ours(build):
    """A message that is being written down is waited for."""
    house = await build()
    house.submitter.does = "wait"
    client = await house.client()
    await client.envelope()
    client.say(MESSAGE + b".\r\n")
    await house.until(lambda: house.submitter.waiting)
    house.later(4000)
    house.submitter.accept()

    assert (await client.line()).startswith(b"250 ")
    house.later(299)
    assert (await client.ask(b"NOOP\r\n")).startswith(b"250 ")

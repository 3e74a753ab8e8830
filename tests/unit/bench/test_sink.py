"""The sink over real sockets: its providers behave as their profiles say, and count exactly."""

import asyncio
import smtplib
import ssl
from collections.abc import AsyncIterator, Callable
from email.message import EmailMessage
from pathlib import Path
from time import monotonic
from typing import TypeVar

import msgspec
import pytest
import trustme

from bench.sink import Arrivals, Profile, Provider, Sink, apply
from bench.temper import most_in_window

T = TypeVar("T")
MESSAGE = b"Subject: hello\r\nMessage-ID: <m1@x.test>\r\n\r\nbody\r\n"


async def in_thread(work: Callable[[], T]) -> T:
    """smtplib blocks; the sink's loop must not."""
    return await asyncio.get_running_loop().run_in_executor(None, work)


class Talk:
    """A raw client: what is sent and what comes back, byte for byte."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    @classmethod
    async def to(cls, provider: Provider) -> "Talk":
        return cls(*await asyncio.open_connection(provider.address, provider.port))

    async def line(self) -> bytes:
        return await asyncio.wait_for(self.reader.readline(), 10)

    async def say(self, data: bytes, replies: int = 1) -> list[bytes]:
        self.writer.write(data)
        return [(await self.line())[:3] for _ in range(replies)]

    async def close(self) -> None:
        self.writer.close()
        await self.writer.wait_closed()


async def hand_in(provider: Provider, *recipients: str, content: bytes = MESSAGE) -> list[bytes]:
    """One message, pipelined; the codes of greeting, MAIL, each RCPT, DATA and, where it came so far, the dot."""
    talk = await Talk.to(provider)
    codes = [(await talk.line())[:3]]
    rcpt = b"".join(b"RCPT TO:<%b>\r\n" % recipient.encode() for recipient in recipients)
    codes += await talk.say(b"MAIL FROM:<s@x.test>\r\n" + rcpt + b"DATA\r\n", len(recipients) + 2)
    if codes[-1] == b"354":
        codes += await talk.say(content + b".\r\n")
    await talk.close()
    return codes


@pytest.fixture
async def sink() -> AsyncIterator[Sink]:
    async with Sink([Profile(name="swift", keep="contents"), Profile(name="strict")]) as sink:
        yield sink


async def test_providers_share_a_port_and_have_addresses_of_their_own(sink: Sink):
    """As MX hosts do: one port, several addresses."""
    swift, strict = sink.profiles["swift"], sink.profiles["strict"]

    assert (swift.address, strict.address) == ("127.0.0.2", "127.0.0.3")
    assert swift.port == strict.port == sink.port != 0


async def test_a_message_from_smtplib_arrives_byte_for_byte(sink: Sink):
    """Dots are un-stuffed, the envelope is kept, and the id is that of the header."""
    swift = sink.profiles["swift"]
    content = b"Message-ID: <m1@x.test>\r\n\r\n.\r\n..two\r\nlast\r\n"

    def send() -> None:
        with smtplib.SMTP(swift.address, swift.port) as client:
            client.sendmail("s@x.test", ["a@swift.test", "b@swift.test"], content)

    await in_thread(send)

    [delivery] = swift.deliveries
    assert delivery.content == content
    assert (delivery.id, delivery.sender, delivery.recipients) == (
        "m1@x.test",
        "s@x.test",
        ("a@swift.test", "b@swift.test"),
    )
    assert (swift.messages, swift.recipients, swift.recipients_max) == (1, 2, 2)


@pytest.mark.parametrize("piece", [1, 2, 3, 7, 1000])
async def test_the_stream_may_be_split_anywhere(sink: Sink, piece: int):
    """A pipelined transaction, cut into pieces of any length, is one message."""
    swift = sink.profiles["swift"]
    talk = await Talk.to(swift)
    stream = b"EHLO x\r\nMAIL FROM:<>\r\nRCPT TO:<a@swift.test>\r\nDATA\r\n..a\r\n.\r\nQUIT\r\n"

    for at in range(0, len(stream), piece):
        talk.writer.write(stream[at : at + piece])
        await talk.writer.drain()
        await asyncio.sleep(0)
    answers = await asyncio.wait_for(talk.reader.read(), 10)
    await talk.close()

    assert [delivery.content for delivery in swift.deliveries] == [b".a\r\n"]
    assert answers.endswith(b"354 Go ahead\r\n250 2.0.0 Taken\r\n221 2.0.0 Bye\r\n")


async def test_an_empty_message_ends_with_a_lone_dot(sink: Sink):
    """`.CRLF` right behind DATA is the end of nothing."""
    codes = await hand_in(sink.profiles["swift"], "a@swift.test", content=b"")

    assert codes[-1] == b"250"
    assert sink.profiles["swift"].deliveries[0].content == b""


async def test_a_large_message_arrives_whole(sink: Sink):
    """Content far over one read is joined without losing a byte."""
    content = b"Subject: large\r\n\r\n" + b"0123456789abcdef\r\n" * 60_000

    await hand_in(sink.profiles["swift"], "a@swift.test", content=content)

    assert sink.profiles["swift"].deliveries[0].content == content


async def test_each_recipient_gets_its_own_verdict(sink: Sink):
    """Those that were refused are not recipients of the message that was taken."""
    strict = sink.profiles["strict"]

    codes = await hand_in(strict, "a@x.test", "unknown@x.test", "full@x.test", "tempfail@x.test", "b@x.test")

    assert codes == [b"220", b"250", b"250", b"550", b"452", b"451", b"250", b"354", b"250"]
    assert strict.deliveries[0].recipients == ("a@x.test", "b@x.test")
    assert strict.replies == {"RCPT 550": 1, "RCPT 452": 1, "RCPT 451": 1}
    assert strict.attempts["unknown@x.test"] == 1


async def test_nobody_left_gets_no_content(sink: Sink):
    """Where every RCPT was refused DATA is refused too."""
    codes = await hand_in(sink.profiles["strict"], "unknown@x.test")

    assert codes == [b"220", b"250", b"550", b"554"]


async def test_a_refusal_at_the_dot_takes_nothing(sink: Sink):
    """`spam@` and `deferdot@` speak after the content, and the message does not count."""
    strict = sink.profiles["strict"]

    codes = [(await hand_in(strict, f"{word}@x.test"))[-1] for word in ("spam", "deferdot.1", "deferdot.1")]

    assert codes == [b"550", b"451", b"250"]
    assert strict.messages == 1


async def test_connections_are_cut_where_the_address_says_so(sink: Sink):
    """`drop@` ends the connection at RCPT, `dropdot@` at the dot, `421@` with a word."""
    strict = sink.profiles["strict"]
    ends = []

    for recipient in (b"drop@x.test", b"dropdot@x.test", b"421@x.test"):
        talk = await Talk.to(strict)
        talk.writer.write(b"MAIL FROM:<>\r\nRCPT TO:<%b>\r\nDATA\r\n" % recipient)
        if recipient.startswith(b"dropdot"):
            await talk.reader.readuntil(b"354 Go ahead\r\n")
            talk.writer.write(b"x\r\n.\r\n")
        try:
            ends.append((await asyncio.wait_for(talk.reader.read(), 10)).splitlines()[-1:])
        except ConnectionResetError:
            ends.append([b"reset"])
        talk.writer.close()

    assert strict.messages == 0
    assert ends[2] == [b"421 4.7.0 Closing, try again later"]
    assert b"250 2.0.0 Taken" not in ends[1]
    await sink.until(lambda: strict.connections_open == 0)


async def test_connections_are_counted_by_moment_and_by_client(sink: Sink):
    """The most that were ever open at once, all in all and by the address they came from."""
    swift = sink.profiles["swift"]
    talks = [await Talk.to(swift) for _ in range(3)]
    _, other = await asyncio.open_connection(swift.address, swift.port, local_addr=("127.0.0.9", 0))

    await sink.until(lambda: swift.connections_open == 4)
    for talk in talks:
        await talk.close()
    other.close()
    await sink.until(lambda: swift.connections_open == 0)

    assert (swift.connections_max, swift.connections_total) == (4, 4)
    assert swift.connections_max_by_client == {"127.0.0.1": 3, "127.0.0.9": 1}
    assert len(swift.connection_times) == 4


async def test_a_connection_too_many_is_turned_away():
    """It is greeted with the provider's words and closed; it counts as open until then."""
    async with Sink([Profile(name="x", connections_max=1)]) as sink:
        provider = sink.profiles["x"]
        first = await Talk.to(provider)
        greeting = await first.line()

        second = await Talk.to(provider)
        turned_away = await asyncio.wait_for(second.reader.read(), 10)

        assert greeting[:3] == b"220"
        assert turned_away == b"421 4.7.0 Too many connections from your address\r\n"
        assert (provider.connections_over, provider.connections_max) == (1, 2)
        await first.close()
        await second.close()


async def test_a_cap_may_only_be_counted():
    """Without words for it the connection too many is let in."""
    async with Sink([Profile(name="x", connections_max=1, connections_over="")]) as sink:
        talks = [await Talk.to(sink.profiles["x"]) for _ in range(2)]

        greetings = [(await talk.line())[:3] for talk in talks]

        assert greetings == [b"220", b"220"]
        assert sink.profiles["x"].connections_over == 1
        for talk in talks:
            await talk.close()


async def test_the_message_too_many_on_a_connection_ends_it():
    """The provider says why at MAIL, and closes."""
    async with Sink([Profile(name="x", messages_per_connection=2)]) as sink:
        provider = sink.profiles["x"]
        talk = await Talk.to(provider)
        await talk.line()

        mails = [
            *await talk.say(b"MAIL FROM:<>\r\nRCPT TO:<a@x>\r\nDATA\r\nx\r\n.\r\n", 4),
            *await talk.say(b"MAIL FROM:<>\r\n"),
        ]
        refusal = await talk.say(b"MAIL FROM:<>\r\n")
        rest = await talk.reader.read()
        await talk.close()

        assert mails == [b"250", b"250", b"354", b"250", b"250"]
        assert (refusal, rest) == ([b"421"], b"")
        assert provider.messages_per_connection == [2]
        assert (provider.mails, provider.mails_over) == (3, 1)


async def test_mail_over_the_rate_is_refused():
    """A burst is taken, what comes too early is not; every MAIL leaves its time."""
    async with Sink([Profile(name="x", rate_per_s=0.01, burst=3)]) as sink:
        provider = sink.profiles["x"]
        talk = await Talk.to(provider)
        await talk.line()

        codes = await talk.say(b"MAIL FROM:<>\r\n" * 5, 5)
        await talk.close()

        assert codes == [b"250"] * 3 + [b"451"] * 2
        assert provider.mails_over == 2
        assert most_in_window(provider.mail_times, 60.0) == 5


async def test_a_provider_may_go_down_and_come_back(sink: Sink):
    """Down it refuses connections and cuts those that are open; it comes back on the same port."""
    swift = sink.profiles["swift"]
    talk = await Talk.to(swift)
    await talk.line()

    await swift.set_down(True)
    with pytest.raises(ConnectionRefusedError):
        await Talk.to(swift)
    await swift.set_down(False)
    codes = await hand_in(swift, "a@swift.test")

    assert codes[-1] == b"250"
    assert swift.connections_open <= 1
    talk.writer.close()


async def test_a_provider_may_begin_down():
    """It keeps its place, so that the port is its own when it comes up."""
    async with Sink([Profile(name="x", down=True)]) as sink:
        provider = sink.profiles["x"]
        with pytest.raises(ConnectionRefusedError):
            await Talk.to(provider)

        await provider.set_down(False)

        assert (await hand_in(provider, "a@x.test"))[-1] == b"250"


async def test_replies_leave_late_where_the_network_is_slow():
    """Latency delays each group of replies once, in order."""
    async with Sink([Profile(name="x", latency_s=0.02)]) as sink:
        began_s = asyncio.get_running_loop().time()

        codes = await hand_in(sink.profiles["x"], "a@x.test")

        assert codes == [b"220", b"250", b"250", b"354", b"250"]
        assert asyncio.get_running_loop().time() - began_s >= 0.06


async def test_a_slow_recipient_holds_up_what_comes_after_it(sink: Sink):
    """The answers keep their order."""
    codes = await hand_in(sink.profiles["swift"], "slow.0@x.test", "a@x.test")

    assert codes == [b"220", b"250", b"250", b"250", b"354", b"250"]


async def test_starttls_is_offered_with_a_certificate():
    """smtplib upgrades and hands its message in, and EHLO does not offer it twice."""
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("x.sink.test").configure_cert(context)
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    trusting.check_hostname = False
    message = EmailMessage()
    message["Subject"], message["From"], message["To"] = "s", "a@x.test", "b@x.test"

    async with Sink([Profile(name="x", latency_s=0.01)], tls=context) as sink:
        provider = sink.profiles["x"]

        def send() -> tuple[bool, bool]:
            with smtplib.SMTP(provider.address, provider.port) as client:
                client.ehlo()
                before = client.has_extn("starttls")
                client.starttls(context=trusting)
                client.send_message(message)
                return before, client.has_extn("starttls")

        offered = await in_thread(send)

        assert offered == (True, False)
        assert (provider.tls_handshakes, provider.messages) == (1, 1)


async def test_until_says_what_it_saw_when_it_waited_in_vain(sink: Sink):
    """The error carries the counts."""
    with pytest.raises(TimeoutError, match="'messages': 0"):
        await sink.until(lambda: sink.messages == 1, timeout_s=0.01)


async def test_a_control_line_changes_the_temper_of_a_running_sink(sink: Sink):
    """Fields of the profile are set, `down` at once, and the answer is the counts."""
    answer = await apply(sink, b'{"set": {"swift": {"down": true, "rate_per_s": 5}}}\n')

    counts = msgspec.json.decode(answer)
    assert counts["swift"]["down"] is True
    assert sink.profiles["swift"].profile.rate_per_s == 5.0
    with pytest.raises(ConnectionRefusedError):
        await Talk.to(sink.profiles["swift"])


@pytest.mark.parametrize(
    "line", [b"", b"nonsense", b'{"set": {"nobody": {}}}', b'{"set": {"swift": {"down": "no"}}}', b'{"sets": {}}']
)
async def test_a_control_line_that_makes_no_sense_is_answered_with_an_error(sink: Sink, line: bytes):
    """Nothing is changed and the sink runs on."""
    answer = await apply(sink, line)

    assert b'"error"' in answer
    assert sink.profiles["swift"].profile.down is False


async def test_signed_messages_are_counted(sink: Sink):
    """Those with a DKIM-Signature in the header, at its top or below; not in the body."""
    swift = sink.profiles["swift"]
    signature = b"DKIM-Signature: v=1; b=x\r\n"

    await hand_in(swift, "a@x.test", content=signature + MESSAGE)
    await hand_in(swift, "a@x.test", content=b"Received: by x\r\n" + signature + MESSAGE)
    await hand_in(swift, "a@x.test", content=MESSAGE + signature)
    await hand_in(swift, "a@x.test", content=MESSAGE)

    assert (swift.messages, swift.signed) == (4, 2)


async def test_a_sample_of_the_contents_is_kept():
    """Every third one, the first among them, without the dots that the way put in."""
    async with Sink([Profile(name="x", sample_every=3)]) as sink:
        provider = sink.profiles["x"]
        for number in range(7):
            await hand_in(provider, "a@x.test", content=b"Subject: %d\r\n\r\n..dot\r\n" % number)

    assert provider.samples == [b"Subject: %d\r\n\r\n.dot\r\n" % number for number in (0, 3, 6)]
    assert all(delivery.content == b"" for delivery in provider.deliveries)


async def test_arrivals_and_samples_are_written_where_the_control_line_says(tmp_path: Path):
    """Ids and their times, of all providers together."""
    profiles = [Profile(name="x", sample_every=1), Profile(name="y")]
    async with Sink(profiles) as sink:
        await hand_in(sink.profiles["x"], "a@x.test")
        await hand_in(sink.profiles["y"], "a@y.test")
        change = {"arrivals": str(tmp_path / "a"), "samples": str(tmp_path / "s")}

        answer = await apply(sink, msgspec.json.encode(change))

        arrivals = msgspec.msgpack.decode((tmp_path / "a").read_bytes(), type=Arrivals)
        assert arrivals.ids == ["m1@x.test", "m1@x.test"]
        assert arrivals.times_s == [sink.profiles[name].deliveries[0].at_s for name in ("x", "y")]
        assert msgspec.msgpack.decode((tmp_path / "s").read_bytes()) == [MESSAGE]
        assert b'"messages":1' in answer


async def test_a_file_that_cannot_be_written_is_told(sink: Sink, tmp_path: Path):
    """The sink goes on."""
    answer = await apply(sink, msgspec.json.encode({"arrivals": str(tmp_path / "none" / "a")}))

    assert answer.startswith(b'{"error":')


async def test_a_far_host_greets_late_and_answers_late():
    """The greeting comes two round trips after the connection, a reply one after its command."""
    async with Sink([Profile(name="far", latency_s=0.05, greeting_latency_s=0.05)]) as sink:
        began_s = monotonic()
        talk = await Talk.to(sink.profiles["far"])
        await talk.line()
        greeted_s = monotonic()
        await talk.say(b"NOOP\r\n")
        answered_s = monotonic()
        await talk.close()

    assert greeted_s - began_s >= 0.098
    assert answered_s - greeted_s >= 0.048

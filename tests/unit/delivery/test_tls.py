"""TLS on the way out: real handshakes over real sockets, sessions taken up again, and what goes wrong."""

import asyncio
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme

from mta.delivery import tls
from mta.delivery.connection import Connection
from mta.delivery.tls import TlsContexts, TlsError, TlsLayer
from mta.model.outcome import Bounced, Deferred, Delivered, Reply
from mta.smtp.client import TlsMode
from mta.testing.connection_rig import (
    SMALL_CONTENT,
    TIMEOUTS,
    ConnectionRig,
    RecordingOwner,
    mail,
    on_both_loops,
    until,
)
from mta.testing.scripted_peer import (
    Close,
    Do,
    Expect,
    Read,
    Reset,
    Say,
    SayBytes,
    ScriptedPeer,
    Stall,
    StallDeaf,
    StartTls,
    Step,
    accept,
    goodbye,
    hello,
)

LARGE = (b"x" * 78 + b"\r\n") * 100_000
QUEUED = Delivered(Reply(250, "2.0.0", "queued"))
MX = "mx.peer.example"


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def trusted(authority: trustme.CA) -> Iterator[Path]:
    """A file with the authority's certificate."""
    with authority.cert_pem.tempfile() as path:
        yield Path(path)


def server(authority: trustme.CA, name: str = MX, version: str = "TLSv1_3") -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(name).configure_cert(context)
    context.minimum_version = context.maximum_version = ssl.TLSVersion[version]
    return context


@pytest.fixture
def rig(trusted: Path) -> ConnectionRig:
    rig = ConnectionRig()
    rig.tls = TlsContexts(trusted=trusted)
    return rig


def starttls(context: ssl.SSLContext) -> list[Step]:
    """Greeting, EHLO, STARTTLS and the handshake; EHLO again is the next command."""
    return [*hello("STARTTLS"), Expect("STARTTLS"), Say("220 2.0.0 go"), StartTls(context), *hello("PIPELINING")[1:]]


def taking_mail(context: ssl.SSLContext) -> ScriptedPeer:
    """A peer that takes one message over TLS on every connection."""
    return ScriptedPeer([*starttls(context), *accept(), *goodbye()])


async def deliver(rig: ConnectionRig, peer: ScriptedPeer, mode: TlsMode) -> tuple[RecordingOwner, Connection]:
    """One message over a connection of its own."""
    owner = RecordingOwner(mail())
    connection = rig.connect(peer, owner, tls=mode)
    await owner.heard("gone")
    return owner, connection


# ---- mail over TLS


@pytest.mark.parametrize("mode", ["opportunistic", "required", "verify"])
@pytest.mark.parametrize("version", ["TLSv1_2", "TLSv1_3"])
@on_both_loops
async def test_mail_goes_out_over_tls(rig: ConnectionRig, authority: trustme.CA, mode: TlsMode, version: str):
    """EHLO is said twice, and the connection knows version and cipher."""
    async with taking_mail(server(authority, version=version)) as peer:
        owner, connection = await deliver(rig, peer, mode)

    assert owner.told == ["ready", "done", "gone"]
    assert owner.outcomes == [[QUEUED]]
    assert peer.contents == [SMALL_CONTENT]
    assert [command.split()[0] for command in peer.commands[0][:3]] == ["EHLO", "STARTTLS", "EHLO"]
    assert connection.tls_version == version.replace("_", ".")
    assert "AES" in connection.tls_cipher or "CHACHA" in connection.tls_cipher


@on_both_loops
async def test_large_content_goes_out_over_tls(rig: ConnectionRig, authority: trustme.CA):
    """In pieces, as fast as the peer takes them."""
    owner = RecordingOwner(mail(content=LARGE))

    async with taking_mail(server(authority)) as peer:
        rig.connect(peer, owner, tls="required")
        await owner.heard("gone")

    assert owner.outcomes == [[QUEUED]]
    assert peer.contents == [LARGE]


@on_both_loops
async def test_a_refusal_in_the_middle_of_content_stops_it_over_tls(rig: ConnectionRig, authority: trustme.CA):
    """The peer is heard while content goes out."""
    owner = RecordingOwner(mail(content=LARGE))
    script = [*starttls(server(authority)), *accept()[:4], Read(1000), Say("552 5.3.4 too big"), StallDeaf()]

    async with ScriptedPeer(script) as peer:
        rig.connect(peer, owner, tls="required")
        await owner.heard("gone")

    assert owner.outcomes == [[Bounced(Reply(552, "5.3.4", "too big"), "content")]]


@on_both_loops
async def test_replies_may_come_a_byte_at_a_time_over_tls(rig: ConnectionRig, authority: trustme.CA):
    """Each in a record of its own."""
    owner = RecordingOwner(mail())
    script = [*starttls(server(authority)), *accept(), *goodbye()]

    async with ScriptedPeer([s._replace(split=True) if isinstance(s, Say) else s for s in script]) as peer:
        rig.connect(peer, owner, tls="required")
        await owner.heard("gone")

    assert owner.outcomes == [[QUEUED]]


# ---- sessions


@pytest.mark.parametrize("mode", ["opportunistic", "required", "verify"])
@pytest.mark.parametrize("version", ["TLSv1_2", "TLSv1_3"])
@on_both_loops
async def test_the_second_connection_resumes_the_session(
    rig: ConnectionRig, authority: trustme.CA, mode: TlsMode, version: str
):
    """The handshake of the first one is not done again, nor by the third."""
    async with taking_mail(server(authority, version=version)) as peer:
        resumed = [(await deliver(rig, peer, mode))[1].tls_resumed for _ in range(3)]

    assert resumed == [False, True, True]
    assert len(peer.contents) == 3


@pytest.mark.parametrize("version", ["TLSv1_2", "TLSv1_3"])
@on_both_loops
async def test_a_session_is_there_for_others_while_its_connection_lives(
    rig: ConnectionRig, authority: trustme.CA, version: str
):
    """A pool opens its second connection while the first one is in use."""
    owner = RecordingOwner(quits=False)
    async with ScriptedPeer([*starttls(server(authority, version=version)), *goodbye()]) as peer:
        first = rig.connect(peer, owner, tls="verify")
        await owner.heard("ready")

        second = RecordingOwner()
        resumed = rig.connect(peer, second, tls="verify")
        await second.heard("gone")
        first.quit()
        await owner.heard("gone")

    assert resumed.tls_resumed


@on_both_loops
async def test_modes_do_not_share_sessions(rig: ConnectionRig, authority: trustme.CA):
    """A session made without looking at the certificate does not open a connection that must."""
    async with taking_mail(server(authority)) as peer:
        modes: list[TlsMode] = ["opportunistic", "required", "verify", "verify"]
        resumed = [(await deliver(rig, peer, mode))[1].tls_resumed for mode in modes]

    assert resumed == [False, False, False, True]


@on_both_loops
async def test_a_server_that_forgot_the_session_shakes_hands_anew(rig: ConnectionRig, authority: trustme.CA):
    """A restarted peer does not know its tickets; mail goes out all the same."""
    first, second = (taking_mail(server(authority)) for _ in range(2))
    async with first:
        await deliver(rig, first, "verify")
    async with second:
        session = rig.tls.session(MX, first.port, "verify")
        assert session is not None
        rig.tls.keep(MX, second.port, "verify", session)

        owner, connection = await deliver(rig, second, "verify")

    assert owner.outcomes == [[QUEUED]]
    assert not connection.tls_resumed


def test_sessions_are_bounded(authority: trustme.CA, monkeypatch: pytest.MonkeyPatch):
    """The peer that was not met for longest is forgotten."""
    monkeypatch.setattr(tls, "SESSIONS_MAX", 3)
    contexts = TlsContexts()
    session = talk(TlsLayer(contexts, MX, 25, "required"), server(authority)).session
    assert session is not None

    for host in ("a", "b", "c"):
        contexts.keep(host, 25, "required", session)
    contexts.session("a", 25, "required")
    contexts.keep("d", 25, "required", session)

    known = [host for host in ("a", "b", "c", "d") if contexts.session(host, 25, "required")]
    assert known == ["a", "c", "d"]


def talk(layer: TlsLayer, context: ssl.SSLContext) -> ssl.SSLObject:
    """Shakes hands in memory; the server's end."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    end = context.wrap_bio(incoming, outgoing, server_side=True)
    for _ in range(4):
        incoming.write(layer.outgoing())
        try:
            end.do_handshake()
        except ssl.SSLWantReadError:
            pass
        layer.feed(outgoing.read())
    return end


# ---- whom to believe


@on_both_loops
async def test_verify_refuses_another_name(rig: ConnectionRig, authority: trustme.CA):
    """A good certificate for somebody else is no certificate; nothing is sent."""
    owner = RecordingOwner(mail())

    async with ScriptedPeer(starttls(server(authority, "other.example"))) as peer:
        rig.connect(peer, owner, tls="verify")
        await owner.heard("gone")
        peer.problems.clear()

    assert owner.told == ["failed", "gone"]
    assert owner.failure is not None
    stage, reply, from_peer = owner.failure
    assert (stage, reply.code, reply.enhanced, from_peer) == ("starttls", 451, "4.7.5", False)
    assert "certificate not accepted" in reply.text
    assert "MAIL" not in str(peer.commands)


@on_both_loops
async def test_verify_refuses_an_unknown_authority(rig: ConnectionRig):
    """Anybody can make a certificate for any name."""
    owner = RecordingOwner(mail())

    async with ScriptedPeer(starttls(server(trustme.CA()))) as peer:
        rig.connect(peer, owner, tls="verify")
        await owner.heard("gone")
        peer.problems.clear()

    assert owner.told == ["failed", "gone"]


@pytest.mark.parametrize("mode", ["opportunistic", "required"])
@on_both_loops
async def test_without_verify_any_certificate_will_do(rig: ConnectionRig, mode: TlsMode):
    """Another name, from an authority that nobody knows."""
    async with taking_mail(server(trustme.CA(), "other.example")) as peer:
        owner, _ = await deliver(rig, peer, mode)

    assert owner.outcomes == [[QUEUED]]


@pytest.mark.parametrize("host", ["", ".example", "x" * 300, "a..b"])
def test_a_host_that_cannot_be_named_has_no_tls(host: str):
    """It is an error with words, not a traceback."""
    with pytest.raises(TlsError):
        TlsLayer(TlsContexts(), host, 25, "verify")


def test_a_trailing_dot_is_no_part_of_the_name(authority: trustme.CA, trusted: Path):
    """MX names may come with one, certificates never do."""
    layer = TlsLayer(TlsContexts(trusted=trusted), "MX.peer.example.", 25, "verify")

    talk(layer, server(authority))

    assert layer.is_established


def test_verify_wants_a_modern_version():
    """Old versions are good enough only where nothing is promised."""
    contexts = TlsContexts()

    assert contexts.context("verify").minimum_version >= ssl.TLSVersion.TLSv1_2
    assert contexts.context("required").minimum_version >= ssl.TLSVersion.TLSv1_2
    assert contexts.context("opportunistic").minimum_version == ssl.TLSVersion.MINIMUM_SUPPORTED


def test_a_missing_file_of_authorities_is_an_error(tmp_path: Path):
    """It is met when the worker starts, not at the first handshake."""
    with pytest.raises(OSError):
        TlsContexts(trusted=tmp_path / "missing.pem")


# ---- what goes wrong


@on_both_loops
async def test_a_stalled_handshake_ends_at_its_deadline(rig: ConnectionRig):
    """Not before it, and a byte now and then does not move it."""
    owner = RecordingOwner()
    script = [*hello("STARTTLS"), Expect("STARTTLS"), Say("220 go"), Read(5), SayBytes(b"\x16\x03"), Stall()]
    async with ScriptedPeer(script) as peer:
        connection = rig.connect(peer, owner, tls="opportunistic")
        await until(lambda: connection.deadline_s == rig.clock.monotonic_s() + TIMEOUTS.handshake_s)

        rig.pass_time(TIMEOUTS.handshake_s)
        early = list(owner.told)
        rig.pass_time(1)
        await owner.heard("gone")
        peer.problems.clear()

    assert early == []
    assert owner.told == ["failed", "gone"]
    assert owner.failure is not None
    assert owner.failure[0] == "starttls"


@pytest.mark.parametrize("end", [SayBytes(b"250 what is this\r\n" * 20), Close(), Reset()])
@on_both_loops
async def test_a_handshake_that_is_none_fails(rig: ConnectionRig, end: Step):
    """Clear text, or the end, in its place: stage starttls, and never on in clear."""
    owner = RecordingOwner(mail())
    script = [*hello("STARTTLS"), Expect("STARTTLS"), Say("220 go"), Read(5), end, Stall()]

    async with ScriptedPeer(script) as peer:
        rig.connect(peer, owner, tls="opportunistic")
        await owner.heard("gone")
        peer.problems.clear()

    assert owner.told == ["failed", "gone"]
    assert owner.failure is not None
    assert owner.failure[0] == "starttls"
    assert peer.commands == [["EHLO me.example", "STARTTLS"]]


@on_both_loops
async def test_a_connection_lost_after_the_dot_is_uncertain_over_tls(rig: ConnectionRig, authority: trustme.CA):
    """close_notify in place of the reply is the end of the connection."""
    owner = RecordingOwner(mail())

    async with ScriptedPeer([*starttls(server(authority)), *accept()[:5], Close()]) as peer:
        rig.connect(peer, owner, tls="required")
        await owner.heard("gone")

    (outcome,) = owner.outcomes[0]
    assert isinstance(outcome, Deferred)
    assert outcome.uncertain


def test_close_notify_is_heard_behind_the_last_words(authority: trustme.CA):
    """What was said before it is not lost."""
    layer = TlsLayer(TlsContexts(), MX, 25, "required")
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    end = server(authority).wrap_bio(incoming, outgoing, server_side=True)
    for _ in range(3):
        incoming.write(layer.outgoing())
        try:
            end.do_handshake()
        except ssl.SSLWantReadError:
            pass
        layer.feed(outgoing.read())

    end.write(b"221 bye\r\n")
    with pytest.raises(ssl.SSLWantReadError):
        end.unwrap()
    plain = layer.feed(outgoing.read())

    assert plain == b"221 bye\r\n"
    assert layer.is_closed


def test_every_split_of_the_stream_is_understood(authority: trustme.CA):
    """Handshake and data, a byte at a time."""
    layer = TlsLayer(TlsContexts(), MX, 25, "required")
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    end = server(authority).wrap_bio(incoming, outgoing, server_side=True)
    plain = b""
    for _ in range(3):
        incoming.write(layer.outgoing())
        try:
            end.do_handshake()
            end.write(b"250 ok\r\n")
        except ssl.SSLWantReadError:
            pass
        sent = outgoing.read()
        plain += b"".join(layer.feed(sent[i : i + 1]) for i in range(len(sent)))

    assert plain == b"250 ok\r\n" * 2


def test_broken_records_are_an_error_with_words(authority: trustme.CA):
    """A byte that was changed on the way is found."""
    layer = TlsLayer(TlsContexts(), MX, 25, "required")
    talk(layer, server(authority))

    with pytest.raises(TlsError, match="TLS failed"):
        layer.feed(b"\x17\x03\x03\x00\x20" + b"x" * 32)
    layer.close()


@on_both_loops
async def test_a_peer_that_speaks_before_ehlo_is_left(rig: ConnectionRig, authority: trustme.CA):
    """Words that come with the end of the handshake cannot be the reply to an EHLO that was not sent yet."""
    owner = RecordingOwner(mail())
    context = server(authority, version="TLSv1_2")

    async def shake_hands_and_speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        end = context.wrap_bio(incoming, outgoing, server_side=True)
        while True:
            incoming.write(await reader.read(10_000))
            try:
                end.do_handshake()
                break
            except ssl.SSLWantReadError:
                writer.write(outgoing.read())
        end.write(b"250 early\r\n")
        writer.write(outgoing.read())  # the handshake's last words and these in one segment

    script = [*hello("STARTTLS"), Expect("STARTTLS"), Say("220 go"), Do(shake_hands_and_speak), Stall()]
    async with ScriptedPeer(script) as peer:
        rig.connect(peer, owner, tls="opportunistic")
        await owner.heard("gone")
        peer.problems.clear()

    assert owner.told == ["failed", "gone"]
    assert owner.failure is not None
    assert owner.failure[:2] == ("starttls", Reply(451, "4.5.0", "the peer spoke before EHLO"))

"""A connection over real loopback sockets: its owner hears everything once, whatever the peer does."""

import asyncio
import socket
from collections.abc import Iterator

import pytest

from mta.delivery.connection import Connection, SourceAddress, Target
from mta.model.outcome import Bounced, Deferred, Delivered, Outcome, Reply
from mta.testing.connection_rig import (
    SMALL_CONTENT,
    TIMEOUTS,
    ConnectionRig,
    RecordingOwner,
    mail,
    on_both_loops,
    until,
)
from mta.testing.memory_network import SOCKETS, MemoryNetwork, MemoryTransport
from mta.testing.scripted_peer import (
    Close,
    Content,
    Expect,
    Read,
    Reset,
    Say,
    SayBytes,
    ScriptedPeer,
    Stall,
    StallDeaf,
    Step,
    Until,
    accept,
    goodbye,
    hello,
)
from mta.testing.simulated_loop import SimulatedLoop, SimulatedTime

LARGE = (b"x" * 78 + b"\r\n") * 250_000  # 20 MB: more than the kernel takes for a peer that does not read
QUEUED = Delivered(Reply(250, "2.0.0", "queued"))


@pytest.fixture
def rig() -> ConnectionRig:
    return ConnectionRig()


# ---- mail goes out


@on_both_loops
async def test_a_message_goes_out(rig: ConnectionRig):
    """Ready, done, gone: in this order, and the peer has the content as it was."""
    owner = RecordingOwner(mail("b@x", "c@x"))

    async with ScriptedPeer([*hello("PIPELINING"), *accept(2), *goodbye()]) as peer:
        connection = rig.connect(peer, owner)
        await owner.heard("gone")

    assert owner.told == ["ready", "done", "gone"]
    assert owner.outcomes == [[QUEUED, QUEUED]]
    assert peer.contents == [SMALL_CONTENT]
    assert peer.commands[0][:2] == ["EHLO me.example", "MAIL FROM:<a@me.example>"]
    assert (connection.messages, connection.recipients, connection.local_address) == (1, 2, "127.0.0.1")
    assert len(rig.sweeper) == 0


@on_both_loops
async def test_many_messages_share_a_connection(rig: ConnectionRig):
    """The next one is handed over while the last one's end is told."""
    owner = RecordingOwner(*[mail(f"r{i}@x") for i in range(50)])

    async with ScriptedPeer([*hello("PIPELINING"), *accept() * 50, *goodbye()]) as peer:
        connection = rig.connect(peer, owner)
        await owner.heard("gone")

    assert owner.outcomes == [[QUEUED]] * 50
    assert len(peer.contents) == 50
    assert connection.messages == 50


@on_both_loops
async def test_replies_may_come_a_byte_at_a_time(rig: ConnectionRig):
    """The outcome is the same."""
    script = [step._replace(split=True) if isinstance(step, Say) else step for step in [*hello(), *one_by_one()]]
    owner = RecordingOwner(mail())

    async with ScriptedPeer([*script, *goodbye()]) as peer:
        rig.connect(peer, owner)
        await owner.heard("gone")

    assert owner.outcomes == [[QUEUED]]
    assert peer.contents == [SMALL_CONTENT]


def one_by_one() -> list[Step]:
    """A transaction without PIPELINING."""
    return [
        Expect("MAIL FROM:<a@me.example>"), Say("250 ok"), Expect("RCPT TO:<b@x>"), Say("250 ok"),
        Expect("DATA"), Say("354 go"), Content(), Say("250 2.0.0 queued"),
    ]  # fmt: skip


@on_both_loops
async def test_large_content_goes_out_whole(rig: ConnectionRig):
    """20 MB go in pieces, as fast as the peer takes them."""
    owner = RecordingOwner(mail(content=LARGE))

    async with ScriptedPeer([*hello("PIPELINING"), *accept(), *goodbye()]) as peer:
        rig.connect(peer, owner)
        await owner.heard("gone")

    assert owner.outcomes == [[QUEUED]]
    assert peer.contents == [LARGE]


@on_both_loops
async def test_a_message_the_peer_cannot_take_costs_it_nothing(rig: ConnectionRig):
    """It is bounced here, the one behind it goes out, and only that one counts."""
    owner = RecordingOwner(mail(content=SMALL_CONTENT * 100), mail())

    async with ScriptedPeer([*hello("PIPELINING", "SIZE 100"), *accept(), *goodbye()]) as peer:
        connection = rig.connect(peer, owner)
        await owner.heard("gone")

    assert [type(outcomes[0]) for outcomes in owner.outcomes] == [Bounced, Delivered]
    assert connection.messages == 1


@on_both_loops
async def test_an_idle_connection_knows_since_when(rig: ConnectionRig):
    """As coarse as a sweep; a connection with nothing to do has no deadline."""
    owner = RecordingOwner(quits=False)

    async with ScriptedPeer([*hello(), *goodbye()]) as peer:
        rig.pass_time(10)
        connection = rig.connect(peer, owner)
        await owner.heard("ready")
        rig.pass_time(1_000_000)
        told = list(owner.told)
        connection.quit()
        await owner.heard("gone")

    assert told == ["ready"]
    assert connection.idle_since_s == rig.clock.monotonic_s() - 1_000_000


# ---- where it goes out from


@on_both_loops
async def test_a_connection_leaves_from_its_sources_address(rig: ConnectionRig):
    """The peer sees the address of the source, and hears its name."""
    owner = RecordingOwner()
    source = SourceAddress("out-2", "127.0.0.2", "", "out-2.me.example")

    async with ScriptedPeer([*hello(), *goodbye()]) as peer:
        connection = rig.connect(peer, owner, source=source)
        await owner.heard("gone")

    assert peer.clients == ["127.0.0.2"]
    assert peer.commands[0][0] == "EHLO out-2.me.example"
    assert connection.local_address == "127.0.0.2"


class Listener:
    """Takes connections, says nothing, and knows where they come from."""

    latency_s = 0.01

    def __init__(self) -> None:
        self.clients: list[str] = []

    def refusal(self) -> str:
        return ""

    def connected(self, transport: MemoryTransport, client: SimulatedLoop) -> asyncio.Protocol:
        self.clients.append(transport.get_extra_info("peername")[0])
        return asyncio.Protocol()


@pytest.mark.parametrize(("target", "client"), [("192.0.2.25", "198.51.100.2"), ("2001:db8::25", "2001:db8::2")])
def test_the_targets_family_decides_where_it_leaves_from(
    rig: ConnectionRig, monkeypatch: pytest.MonkeyPatch, target: str, client: str
):
    """By a socket of that family, from the source's address of it; no machine need have both."""
    time, peer, owner = SimulatedTime(1), Listener(), RecordingOwner()
    network, loop = MemoryNetwork(time), SimulatedLoop(time, "worker")
    network.peers[target] = peer
    loop.attach(network)
    monkeypatch.setattr("mta.delivery.connection.socket", SOCKETS)
    source = SourceAddress("out-2", "198.51.100.2", "2001:db8::2", "out-2.me.example")
    connection = Connection(loop, Target("mx", target, 25), source, "none", owner, rig.sweeper, rig.tls, TIMEOUTS)

    connection.open()
    time.run(time.now_s + 1)

    assert owner.told == []
    assert peer.clients == [client]
    assert connection.local_address == client


@on_both_loops
async def test_an_address_that_is_not_ours_fails_here(rig: ConnectionRig):
    """The peer is not to blame for a source that this machine does not have."""
    owner = RecordingOwner()

    async with ScriptedPeer([]) as peer:
        rig.connect(peer, owner, source=SourceAddress("odd", "192.0.2.77", "", "me"))
        await owner.heard("gone")

    assert owner.told == ["failed", "gone"]
    assert owner.failure is not None
    stage, reply, from_peer = owner.failure
    assert (stage, reply.enhanced, from_peer) == ("local", "4.3.5", False)
    assert "source odd" in reply.text


# ---- no connection


@pytest.fixture
def closed_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        return unused.getsockname()[1]


@pytest.fixture
def silent_port() -> Iterator[int]:
    """A port whose queue is full: connecting to it neither fails nor succeeds."""
    with socket.socket() as full, socket.socket() as first, socket.socket() as second:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        for filler in (first, second):
            filler.setblocking(False)
            filler.connect_ex(full.getsockname())
        yield full.getsockname()[1]


@on_both_loops
async def test_a_refused_connection_fails(rig: ConnectionRig, closed_port: int):
    """Stage connect, our words, then gone."""
    owner = RecordingOwner()

    rig.connect(Target("mx", "127.0.0.1", closed_port), owner)
    await owner.heard("gone")

    assert owner.told == ["failed", "gone"]
    assert owner.failure is not None
    stage, reply, from_peer = owner.failure
    assert (stage, reply.code, reply.enhanced, from_peer) == ("connect", 451, "4.4.1", False)
    assert f"mx[127.0.0.1]:{closed_port}: Connection refused" in reply.text


@on_both_loops
async def test_a_connection_that_does_not_come_fails_at_its_deadline(rig: ConnectionRig, silent_port: int):
    """After 30 s."""
    owner = RecordingOwner()
    rig.connect(Target("mx", "127.0.0.1", silent_port), owner)

    rig.pass_time(30)
    told = list(owner.told)
    rig.pass_time(1)
    await owner.heard("gone")

    assert told == []
    assert owner.told == ["failed", "gone"]
    assert owner.failure is not None
    assert owner.failure[0] == "connect"


@on_both_loops
async def test_an_aborted_attempt_to_connect_is_only_gone(rig: ConnectionRig, silent_port: int):
    """The owner knows why; QUIT is the same as abort then."""
    owner = RecordingOwner()
    connection = rig.connect(Target("mx", "127.0.0.1", silent_port), owner)

    connection.quit()
    connection.abort()
    await owner.heard("gone")

    assert owner.told == ["gone"]


@on_both_loops
async def test_aborting_while_the_handshake_of_tcp_ends_is_only_gone(rig: ConnectionRig):
    """Whatever moment of connecting the abort meets, the end is told once."""
    async with ScriptedPeer([Stall()]) as peer:
        for turns in [3, 4, 5, 6, 7, 8, 9, 10] * 50:
            owner = RecordingOwner()
            connection = rig.connect(peer, owner)
            for _ in range(turns):
                await asyncio.sleep(0)
            connection.abort()
            await owner.heard("gone")

            assert owner.told == ["gone"]
    assert len(rig.sweeper) == 0


# ---- deadlines


@pytest.mark.parametrize(
    ("script", "timeout_s", "event", "words"),
    [
        ([Stall()], TIMEOUTS.greeting_s, "failed", "the greeting"),
        ([Say("220 hi"), Stall()], TIMEOUTS.ehlo_s, "failed", "the reply to EHLO"),
        (
            [Say("220 hi"), Expect("EHLO *"), Say("500 what"), Expect("HELO *"), Stall()],
            TIMEOUTS.ehlo_s,
            "failed",
            "the reply to HELO",
        ),
        ([*hello(), Stall()], TIMEOUTS.mail_s, "done", "the reply to MAIL"),
        ([*hello(), *one_by_one()[:2], Stall()], TIMEOUTS.rcpt_s, "done", "the reply to RCPT"),
        ([*hello(), *one_by_one()[:4], Stall()], TIMEOUTS.data_s, "done", "the reply to DATA"),
        ([*hello(), *one_by_one()[:7], Stall()], TIMEOUTS.content_end_s, "done", "the reply to the content"),
    ],
)
@on_both_loops
async def test_a_silent_peer_is_left_at_the_phases_deadline(
    rig: ConnectionRig, script: list[Step], timeout_s: float, event: str, words: str
):
    """Not before it, and with words for what was waited for."""
    owner = RecordingOwner(mail())
    async with ScriptedPeer(script) as peer:
        connection = rig.connect(peer, owner)
        await until(lambda: connection.deadline_s == rig.clock.monotonic_s() + timeout_s and at_end(peer, script))

        rig.pass_time(timeout_s)
        early = [told for told in owner.told if told != "ready"]
        rig.pass_time(1)
        await owner.heard("gone")
        peer.problems.clear()

    assert early == []
    assert owner.told[-2:] == [event, "gone"]
    reply = owner.failure[1] if owner.failure else owner.outcomes[0][0].reply
    assert words in reply.text


def at_end(peer: ScriptedPeer, script: list[Step]) -> bool:
    """Whether the peer's last connection has heard all that its script expects."""
    commands = sum(isinstance(step, Expect) for step in script)
    contents = sum(isinstance(step, Content) for step in script)
    return bool(peer.commands) and len(peer.commands[-1]) == commands and len(peer.contents) == contents


@on_both_loops
async def test_dripping_does_not_move_the_deadline(rig: ConnectionRig):
    """A byte of a reply is no progress; a whole reply is."""
    drip, owner = asyncio.Event(), RecordingOwner(mail())
    script = [*hello("PIPELINING"), Expect("MAIL *"), Until(drip), SayBytes(b"250-"), Stall()]
    async with ScriptedPeer(script) as peer:
        connection = rig.connect(peer, owner)
        await until(lambda: at_end(peer, script))
        deadline_s = connection.deadline_s

        rig.pass_time(TIMEOUTS.mail_s - 1)
        drip.set()
        for _ in range(10):
            await asyncio.sleep(0)
        moved = connection.deadline_s - deadline_s
        rig.pass_time(2)
        await owner.heard("gone")

    assert moved == 0
    assert owner.told == ["ready", "done", "gone"]


@on_both_loops
async def test_every_whole_reply_moves_the_deadline(rig: ConnectionRig):
    """Each recipient's verdict has its own time, also when the next command is another RCPT."""
    go_on, owner = asyncio.Event(), RecordingOwner(mail("b@x", "c@x"))
    script = [*hello(), Expect("MAIL *"), Say("250 ok"), Expect("RCPT *"), Until(go_on), Say("250 ok"),
              Expect("RCPT *"), Stall()]  # fmt: skip
    async with ScriptedPeer(script) as peer:
        connection = rig.connect(peer, owner)
        await until(lambda: len(peer.commands) == 1 and len(peer.commands[0]) == 3)
        rig.pass_time(100)

        go_on.set()
        await until(lambda: at_end(peer, script))

        assert connection.deadline_s == rig.clock.monotonic_s() + TIMEOUTS.rcpt_s
        connection.abort()


@on_both_loops
async def test_a_peer_that_does_not_read_is_left(rig: ConnectionRig):
    """Memory stays bounded and the message is certainly not there."""
    owner = RecordingOwner(mail(content=LARGE))
    async with ScriptedPeer([*hello("PIPELINING"), *accept()[:4], Read(1000), StallDeaf()]) as peer:
        connection = rig.connect(peer, owner)
        await until(lambda: connection.is_blocked)

        rig.pass_time(TIMEOUTS.content_block_s)
        early = list(owner.told)
        rig.pass_time(1)
        await owner.heard("gone")

    assert early == ["ready"]
    (outcome,) = owner.outcomes[0]
    assert isinstance(outcome, Deferred)
    assert (outcome.stage, outcome.uncertain) == ("content", False)
    assert "does not take" in outcome.reply.text


# ---- the peer breaks off


@on_both_loops
async def test_a_refusal_in_the_middle_of_content_stops_it(rig: ConnectionRig):
    """The rest of 20 MB is not sent."""
    owner = RecordingOwner(mail(content=LARGE))
    async with ScriptedPeer(
        [*hello("PIPELINING"), *accept()[:4], Read(1000), Say("552 5.3.4 too big"), Stall()]
    ) as peer:
        rig.connect(peer, owner)
        await owner.heard("gone")
        peer.problems.clear()  # the connection was reset in the middle

    assert owner.outcomes == [[Bounced(Reply(552, "5.3.4", "too big"), "content")]]
    assert owner.usable == [False]


@pytest.mark.parametrize("end", [Close(), Reset()])
@on_both_loops
async def test_a_connection_lost_after_the_dot_is_uncertain(rig: ConnectionRig, end: Step):
    """The peer had all of it and did not say what it did with it."""
    owner = RecordingOwner(mail())

    async with ScriptedPeer([*hello("PIPELINING"), *accept()[:5], end]) as peer:
        rig.connect(peer, owner)
        await owner.heard("gone")

    (outcome,) = owner.outcomes[0]
    assert isinstance(outcome, Deferred)
    assert (outcome.stage, outcome.uncertain, outcome.from_peer) == ("content", True, False)
    assert owner.told == ["ready", "done", "gone"]


WHOLE = [*hello(), *one_by_one(), Expect("QUIT"), Say("221 bye")]


@pytest.mark.parametrize("end", [Close(), Reset()])
@pytest.mark.parametrize("steps", range(len(WHOLE) + 1))
@on_both_loops
async def test_wherever_it_breaks_everything_is_told_once(rig: ConnectionRig, steps: int, end: Step):
    """Failed or done, exactly once; gone exactly once, and last."""
    owner = RecordingOwner(mail())

    async with ScriptedPeer([*WHOLE[:steps], end]) as peer:
        rig.connect(peer, owner)
        await owner.heard("gone")
        peer.problems.clear()

    assert owner.told in (["failed", "gone"], ["ready", "done", "gone"])
    assert all(len(outcomes) == 1 for outcomes in owner.outcomes)
    assert len(rig.sweeper) == 0


@on_both_loops
async def test_an_idle_connection_that_the_peer_closes_is_lost(rig: ConnectionRig):
    """The owner is told that it cannot be used, then that it is gone."""
    owner, close = RecordingOwner(quits=False), asyncio.Event()
    async with ScriptedPeer([*hello(), Until(close), Close()]) as peer:
        rig.connect(peer, owner)
        await owner.heard("ready")

        close.set()
        await owner.heard("gone")

    assert owner.told == ["ready", "lost", "gone"]


@on_both_loops
async def test_421_to_an_idle_connection_ends_it(rig: ConnectionRig):
    """QUIT is said, and the peer's close ends it."""
    owner, close = RecordingOwner(quits=False), asyncio.Event()
    async with ScriptedPeer([*hello(), Until(close), Say("421 4.4.2 idle"), *goodbye()]) as peer:
        rig.connect(peer, owner)
        await owner.heard("ready")

        close.set()
        await owner.heard("gone")

    assert owner.told == ["ready", "lost", "gone"]


@on_both_loops
async def test_a_greeting_that_refuses_fails(rig: ConnectionRig):
    """The peer's own words, then QUIT."""
    owner = RecordingOwner()

    async with ScriptedPeer([Say("554 5.7.1 go away"), *goodbye()]) as peer:
        rig.connect(peer, owner)
        await owner.heard("gone")

    assert owner.told == ["failed", "gone"]
    assert owner.failure == ("greeting", Reply(554, "5.7.1", "go away"), True)


# ---- we break off


@on_both_loops
async def test_quit_gives_the_peer_five_seconds(rig: ConnectionRig):
    """Until then the connection counts, whatever the peer still says."""
    owner = RecordingOwner()
    async with ScriptedPeer([*hello(), Expect("QUIT"), Say("221 bye\n221 bye\nbye"), Stall()]) as peer:
        connection = rig.connect(peer, owner)
        await until(lambda: at_end(peer, [Expect(""), Expect("")]))

        rig.pass_time(5)
        early = list(owner.told)
        rig.pass_time(1)
        await owner.heard("gone")
        connection.quit()
        connection.abort()

    assert early == ["ready"]
    assert owner.told == ["ready", "gone"]


@on_both_loops
async def test_an_aborted_idle_connection_is_only_gone(rig: ConnectionRig):
    """The owner knows that it was idle."""
    owner = RecordingOwner(quits=False)
    async with ScriptedPeer([*hello(), Stall()]) as peer:
        connection = rig.connect(peer, owner)
        await owner.heard("ready")

        connection.abort()
        await owner.heard("gone")

    assert owner.told == ["ready", "gone"]


@on_both_loops
async def test_an_aborted_transaction_is_deferred(rig: ConnectionRig):
    """Its outcome is told before `abort` returns, in our words."""
    owner, script = RecordingOwner(mail()), [*hello("PIPELINING"), *accept()[:3], Stall()]
    async with ScriptedPeer(script) as peer:
        connection = rig.connect(peer, owner)
        await until(lambda: at_end(peer, script))

        connection.abort()
        told = list(owner.told)
        await owner.heard("gone")

    assert told == ["ready", "done"]
    assert owner.told == ["ready", "done", "gone"]
    (outcome,) = owner.outcomes[0]
    assert isinstance(outcome, Deferred)
    assert not outcome.from_peer


@on_both_loops
async def test_an_abort_from_within_a_callback_is_fine(rig: ConnectionRig):
    """An owner that aborts while it is told of an end hears only that it is gone."""

    class Abrupt(RecordingOwner):
        def transaction_done(self, connection: Connection, outcomes: list[Outcome], usable: bool) -> None:
            super().transaction_done(connection, outcomes, usable)
            connection.abort()

    owner = Abrupt(mail(), quits=False)
    async with ScriptedPeer([*hello("PIPELINING"), *accept(), Stall()]) as peer:
        rig.connect(peer, owner)
        await owner.heard("gone")

    assert owner.told == ["ready", "done", "gone"]
    assert owner.outcomes == [[QUEUED]]

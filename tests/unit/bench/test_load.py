"""The load generator against the sink: every message has exactly one answer, and it is remembered."""

import asyncio

import pytest

from bench.load import Domain, Load, Maker, Plan, main, parse_domain, run
from bench.sink import Profile, Sink


async def test_every_message_is_accepted_and_arrives_once():
    """The ids that got 250 are those that arrived, over several sessions and both sizes."""
    async with Sink([Profile(name="x", keep="contents")]) as sink:
        provider = sink.profiles["x"]

        result = await run(
            Plan(host=provider.address, port=provider.port, messages=200, sessions=5, sizes=[600, 5_000], run_id="r")
        )

        assert sorted(result.accepted) == sorted(f"r-{number}" for number in range(200))
        assert provider.ids() == dict.fromkeys(result.accepted, 1)
        assert {delivery.size for delivery in provider.deliveries} == {600, 5_000}
        assert provider.connections_max == 5
        assert len(result.latencies_s) == 200
        assert result.report()["accepted"] == 200


async def test_refusals_are_remembered_with_their_replies():
    """A message for nobody, and one refused at the dot, are refused; the session goes on."""
    domains = [Domain("x.test", words={"unknown": 0.3, "spam": 0.3})]
    async with Sink([Profile(name="x")]) as sink:
        provider = sink.profiles["x"]

        result = await run(Plan(host=provider.address, port=provider.port, messages=100, sessions=3, domains=domains))

        assert len(result.accepted) + len(result.refused) == 100
        assert {reply[:3] for reply in result.refused.values()} == {"550"}
        assert sorted(result.accepted) == sorted(provider.ids())
        assert {reply[4:9] for reply in result.refused.values()} == {"5.1.1", "5.7.1"}


async def test_recipients_refused_beside_others_are_counted():
    """The message counts as accepted for those who are left."""
    async with Sink([Profile(name="x")]) as sink:
        provider = sink.profiles["x"]
        plan = Plan(
            host=provider.address,
            port=provider.port,
            messages=30,
            recipients_per_message=4,
            domains=[Domain("x.test", words={"full": 0.5})],
        )

        result = await run(plan)

        assert result.recipients_refused["452 4.2.2 Mailbox full"] > 0
        assert provider.recipients + result.recipients_refused.total() + 4 * len(result.refused) == 120


async def test_a_persistent_load_tries_again_until_it_is_taken():
    """4xx means later."""
    async with Sink([Profile(name="x")]) as sink:
        provider = sink.profiles["x"]
        domains = [Domain("x.test", words={"tempfail.1": 1.0})]
        plan = Plan(host=provider.address, port=provider.port, messages=10, domains=domains, persist=True)

        result = await run(plan)

        assert (len(result.accepted), result.tried_again) == (10, 10)


async def test_a_broken_connection_makes_uncertain_what_was_sent():
    """Content sent without an answer is uncertain; without a session left the run ends."""
    async with Sink([Profile(name="x")]) as sink:
        provider = sink.profiles["x"]
        domains = [Domain("x.test", words={"dropdot": 1.0})]

        result = await run(
            Plan(host=provider.address, port=provider.port, messages=10, sessions=2, domains=domains, run_id="r")
        )

        assert sorted(result.uncertain) == ["r-0", "r-1"]
        assert (result.accepted, result.lost_sessions) == ([], 2)


async def test_lost_sessions_come_back_while_they_may():
    """The provider goes down in the middle and comes back; nothing that was accepted is missing."""
    async with Sink([Profile(name="x")]) as sink:
        provider = sink.profiles["x"]
        plan = Plan(host=provider.address, port=provider.port, messages=2_000, sessions=4, reconnect_s=20.0)
        running = asyncio.ensure_future(run(plan))

        await sink.until(lambda: sink.messages >= 300)
        await provider.set_down(True)
        await provider.set_down(False)
        result = await running

        assert len(result.accepted) + len(result.uncertain) == 2_000
        assert set(result.accepted) <= set(provider.ids())
        assert provider.duplicates == 0
        assert result.lost_sessions >= 4


async def test_a_load_waits_for_a_server_that_is_not_there_yet():
    """Its first connections are refused, as where the server dies between two loads; later ones are not."""
    async with Sink([Profile(name="x", down=True)]) as sink:
        provider = sink.profiles["x"]
        were_refused = asyncio.Event()

        class Watched(Load):
            def _come_back(self) -> None:
                super()._come_back()
                were_refused.set()

        plan = Plan(host=provider.address, port=provider.port, messages=20, sessions=2, reconnect_s=20.0)
        running = asyncio.ensure_future(Watched(plan).run())

        await asyncio.wait_for(were_refused.wait(), 30)
        await provider.set_down(False)
        result = await running

        assert sorted(result.accepted) == sorted(provider.ids())
        assert len(result.accepted) == 20


async def test_an_open_load_keeps_to_its_rate():
    """Messages are due at fixed times, whatever the server does; latency counts from then."""
    async with Sink([Profile(name="x")]) as sink:
        provider = sink.profiles["x"]

        result = await run(Plan(host=provider.address, port=provider.port, messages=50, rate_per_s=250.0, sessions=10))

        assert len(result.accepted) == 50
        assert result.duration_s >= 49 / 250.0
        assert min(result.latencies_s) >= 0.0


async def test_nothing_listening_is_an_error():
    """A load without a server does not end quietly."""
    async with Sink([Profile(name="x", down=True)]) as sink:
        provider = sink.profiles["x"]

        with pytest.raises(OSError, match=str(provider.port)):
            await run(Plan(host=provider.address, port=provider.port, messages=1, sessions=1))


async def test_the_same_seed_draws_the_same_recipients():
    """Weights decide how many go where; another seed draws others."""
    domains = [Domain("heavy.test", weight=3.0, words={"unknown": 0.1}), Domain("light.test", weight=1.0)]

    drawn = []
    for seed in (1, 1, 2):
        maker = Maker(Plan(domains=domains, seed=seed, run_id="r"))
        drawn.append([maker.make(number, 0.0).envelope for number in range(400)])

    assert drawn[0] == drawn[1] != drawn[2]
    heavy = sum(b"@heavy.test" in envelope for envelope in drawn[0])
    assert 250 < heavy < 350
    assert any(b"<unknown+" in envelope for envelope in drawn[0])


@pytest.mark.parametrize("size", [*range(400, 480), 4_096])
def test_content_has_the_asked_size_and_clean_line_ends(size: int):
    """CR and LF occur only together, whatever the size cuts, and no line is a lone dot but the last."""
    message = Maker(Plan(sizes=[size], priority=9, headers=["X-Percent: 100%d"], run_id="r")).make(7, 0.0)

    content = message.content.removesuffix(b".\r\n")
    assert len(content) == size
    assert content.count(b"\r\n") == content.count(b"\r") == content.count(b"\n")
    assert b"\r\nX-Bench-Id: r-7\r\n" in content
    assert b"\r\nX-MTA-Priority: 9\r\n" in content
    assert b"\r\nX-Percent: 100%d\r\n" in content
    assert b"\r\n." not in content


async def test_progress_may_be_read_while_the_load_runs():
    """The result of a running load already holds what was answered."""
    async with Sink([Profile(name="x")]) as sink:
        provider = sink.profiles["x"]
        load = Load(Plan(host=provider.address, port=provider.port, messages=500, sessions=2))
        running = asyncio.ensure_future(load.run())

        await sink.until(lambda: sink.messages >= 100)
        seen = len(load.result.accepted)
        await running

        assert 0 < seen < 500
        assert len(load.result.accepted) == 500


def test_a_domain_of_the_command_line_may_have_a_weight():
    """`NAME` or `NAME=WEIGHT`."""
    assert parse_domain("a.test") == Domain("a.test", 1.0)
    assert parse_domain("a.test=2.5") == Domain("a.test", 2.5)


async def test_the_command_prints_its_counts_as_json(capsys: pytest.CaptureFixture[str]):
    """Exit 0 only where every message was accepted."""
    async with Sink([Profile(name="x")]) as sink:
        provider = sink.profiles["x"]
        to = ["--to", f"{provider.address}:{provider.port}", "--sessions", "2"]

        codes = [
            await asyncio.to_thread(main, [*to, "--messages", "5", "--recipient-domain", "x.test"]),
            await asyncio.to_thread(main, [*to, "--messages", "5", "--sender", "a@b.test", "--size", "10"]),
        ]

        assert codes == [0, 0]
        assert capsys.readouterr().out.count('"accepted": 5') == 2

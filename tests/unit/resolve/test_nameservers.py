"""Questions to nameservers that are slow, broken or lying; over real sockets to the toy DNS."""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import get_args

import dns.message
import dns.rrset
import pytest
import uvloop
from hypothesis import given
from hypothesis import strategies as st

from mta.resolve import nameservers
from mta.resolve.answers import Outcome, read
from mta.resolve.nameservers import (
    RECORDS_READ_MAX,
    Budget,
    Nameserver,
    Nameservers,
    parse_answer,
    parse_nameserver,
    system_nameservers,
)
from mta.testing.toy_dns import LIE, Behaviour, Records, ToyDns

ZONE: dict[str, Records] = {
    "shop.test": {"MX": ["10 mx1.shop.test", "20 mx2.shop.test"], "TTL": 77},
    "mx1.shop.test": {"A": ["127.0.0.2"]},
    "alias.test": {"CNAME": "shop.test", "TTL": 50},
    "loop-a.test": {"CNAME": "loop-b.test"},
    "loop-b.test": {"CNAME": "loop-a.test"},
    "dead-end.test": {"CNAME": "nobody.test"},
}
MAIL_HOSTS = ["10 mx1.shop.test", "20 mx2.shop.test"]
LONG_S = 30.0
"""No test waits for it: it is there so that a failure ends."""
SHORT_S = 0.05
"""For servers that stay silent: the one thing that cannot be shown without letting time pass."""


def budget() -> Budget:
    return Budget(LONG_S)


@pytest.fixture
async def server() -> AsyncIterator[ToyDns]:
    async with ToyDns(ZONE) as server:
        yield server


@pytest.fixture
async def second() -> AsyncIterator[ToyDns]:
    async with ToyDns(ZONE) as server:
        yield server


async def test_found(server: ToyDns) -> None:
    """Records come as text, with the least TTL."""
    answer = await Nameservers([server.address]).ask("shop.test", "MX", budget())

    assert answer.outcome == "found"
    assert sorted(answer.records) == MAIL_HOSTS
    assert answer.ttl_s == 77


async def test_empty_and_no_name(server: ToyDns) -> None:
    """A name without such records is not a name that does not exist; both say how long that holds."""
    asker = Nameservers([server.address])

    empty = await asker.ask("mx1.shop.test", "MX", budget())
    no_name = await asker.ask("nobody.test", "MX", budget())

    assert (empty.outcome, empty.ttl_s) == ("empty", 60)
    assert (no_name.outcome, no_name.ttl_s) == ("no-name", 60)


@pytest.mark.parametrize("behaviour", ["servfail", "refused", "refer"])
async def test_no_answer_is_no_no(server: ToyDns, behaviour: Behaviour) -> None:
    """SERVFAIL, REFUSED and a mere reference to other servers prove nothing; the same server is not asked again."""
    server.behave(behaviour)

    answer = await Nameservers([server.address]).ask("shop.test", "MX", budget())

    assert answer.outcome == "failed"
    assert answer.why.startswith("the nameserver ")
    assert server.queries.total() == 1


@pytest.mark.parametrize("behaviour", ["servfail", "refused", "refer"])
async def test_next_nameserver_is_asked(server: ToyDns, second: ToyDns, behaviour: Behaviour) -> None:
    """Where one nameserver cannot, the next one may; from then on it is asked first."""
    server.behave(behaviour)
    asker = Nameservers([server.address, second.address])

    first_answer = await asker.ask("shop.test", "MX", budget())
    await asker.ask("mx1.shop.test", "A", budget())

    assert first_answer.outcome == "found"
    assert server.queries.total() == 1
    assert second.queries.total() == 2


async def test_nobody_listens(server: ToyDns, second: ToyDns) -> None:
    """A port where nobody listens costs no waiting."""
    await server.stop()
    asker = Nameservers([server.address, second.address], try_timeouts_s=[LONG_S])

    answer = await asker.ask("shop.test", "MX", budget())
    alone = await Nameservers([server.address], try_timeouts_s=[LONG_S]).ask("shop.test", "MX", budget())

    assert answer.outcome == "found"
    assert alone.outcome == "failed"
    assert "refused" in alone.why


async def test_silent_nameserver_is_passed_over(server: ToyDns, second: ToyDns) -> None:
    """Silence costs one try, then the next nameserver is asked, and asked first from then on."""
    server.behave("timeout")
    asker = Nameservers([server.address, second.address], try_timeouts_s=[SHORT_S, LONG_S])

    answer = await asker.ask("shop.test", "MX", budget())
    await asker.ask("shop.test", "MX", budget())

    assert answer.outcome == "found"
    assert server.queries.total() == 1


async def test_silence_is_a_failure(server: ToyDns) -> None:
    """A nameserver that is silent in every round has not said that the domain does not exist."""
    server.behave("timeout")

    answer = await Nameservers([server.address], try_timeouts_s=[SHORT_S, SHORT_S]).ask("shop.test", "MX", budget())

    assert answer.outcome == "failed"
    assert answer.why == "no nameserver answers"
    assert server.queries.total() == 2


async def test_one_deadline_over_all(server: ToyDns) -> None:
    """The look-up's time ends all tries; what is used up is gone for its later questions."""
    server.behave("timeout")
    time = Budget(SHORT_S)
    asker = Nameservers([server.address], try_timeouts_s=[LONG_S])

    first = await asker.ask("shop.test", "MX", time)
    later = await asker.ask("shop.test", "A", time)

    assert first.why == later.why == "no answer within 0.05 seconds"
    assert time.left_s <= 0
    assert server.queries["shop.test", "A"] == 0


async def test_waiting_for_a_slot_costs_no_time(server: ToyDns) -> None:
    """Of many questions only so many are under way; those who wait their turn keep their time."""
    server.hold()
    asker = Nameservers([server.address], queries_in_flight_max=2)
    times = [budget() for _ in range(5)]
    asking = [asyncio.ensure_future(asker.ask(f"n{number}.test", "MX", time)) for number, time in enumerate(times)]
    await server.wait_for_queries(2)

    in_flight = asker.queries
    server.release()
    answers = await asyncio.gather(*asking)

    assert in_flight == 2
    assert [answer.outcome for answer in answers] == ["no-name"] * 5


async def test_no_is_confirmed_by_another_nameserver(server: ToyDns, second: ToyDns) -> None:
    """What counts only when it is said twice is asked of each of two nameservers once."""
    answer = await Nameservers([server.address, second.address]).ask("nobody.test", "MX", budget(), ("no-name",))

    assert answer.outcome == "no-name"
    assert (server.queries.total(), second.queries.total()) == (1, 1)


async def test_single_nameserver_confirms_itself(server: ToyDns) -> None:
    """With one nameserver it is asked twice."""
    answer = await Nameservers([server.address]).ask("nobody.test", "MX", budget(), ("no-name",))

    assert answer.outcome == "no-name"
    assert server.queries.total() == 2


@pytest.mark.parametrize(
    ("behaviour", "outcome"), [("answer", "found"), ("servfail", "failed"), ("empty", "empty"), ("nxdomain", "no-name")]
)
async def test_unconfirmed_no_does_not_count(
    server: ToyDns, second: ToyDns, behaviour: Behaviour, outcome: str
) -> None:
    """Where the second nameserver says something else, that counts, be it a failure."""
    server.behave("nxdomain")
    second.behave(behaviour)

    answer = await Nameservers([server.address, second.address]).ask("shop.test", "MX", budget(), ("no-name",))

    assert answer.outcome == outcome


async def test_dead_second_nameserver_does_not_stop_bounces(server: ToyDns, second: ToyDns) -> None:
    """Where the other nameserver cannot be reached the first one confirms itself."""
    await second.stop()

    answer = await Nameservers([server.address, second.address]).ask("nobody.test", "MX", budget(), ("no-name",))

    assert answer.outcome == "no-name"
    assert server.queries.total() == 2


@pytest.mark.parametrize("behaviour", ["lie-id", "lie-question", "lie-port", "truncate", "no-edns"])
async def test_true_answer_is_found(server: ToyDns, behaviour: Behaviour) -> None:
    """Answers with a wrong number, question or sender are passed over; truncated ones come over TCP."""
    server.behave(behaviour)

    answer = await Nameservers([server.address]).ask("shop.test", "MX", budget())

    assert sorted(answer.records) == MAIL_HOSTS
    assert not set(answer.records) & set(LIE["MX"])
    assert server.queries_tcp == (behaviour == "truncate")


async def test_garbage_is_silence(server: ToyDns) -> None:
    """Bytes that are no DNS message may be anybody's; the true answer is waited for."""
    server.behave("garbage")

    answer = await Nameservers([server.address], try_timeouts_s=[SHORT_S]).ask("shop.test", "MX", budget())

    assert answer.outcome == "failed"


async def test_tcp_that_is_cut_is_a_failure(server: ToyDns) -> None:
    """A truncated answer whose TCP connection is closed without an answer is no answer."""
    server.behave("cut-tcp")

    answer = await Nameservers([server.address]).ask("shop.test", "MX", budget())

    assert answer.outcome == "failed"
    assert server.queries_tcp == 1


@pytest.mark.parametrize("follows", [True, False])
async def test_aliases_are_followed(server: ToyDns, follows: bool) -> None:
    """An alias leads to the target's records, whether the nameserver or we follow it; its TTL counts too."""
    server.follows_aliases = follows

    answer = await Nameservers([server.address]).ask("alias.test", "MX", budget())

    assert answer.outcome == "found"
    assert (answer.name, answer.aliases, answer.ttl_s) == ("shop.test", 1, 50)


@pytest.mark.parametrize("follows", [True, False])
async def test_alias_loops_are_failures(server: ToyDns, follows: bool) -> None:
    """A loop of aliases ends after sixteen and is a mistake that may be repaired."""
    server.follows_aliases = follows

    answer = await Nameservers([server.address]).ask("loop-a.test", "MX", budget())

    assert answer.outcome == "failed"
    assert "16 aliases" in answer.why
    assert server.queries.total() <= 16


@pytest.mark.parametrize(("length", "outcome"), [(15, "found"), (16, "failed")])
@pytest.mark.parametrize("follows", [True, False])
async def test_alias_chains_are_capped(server: ToyDns, length: int, outcome: str, follows: bool) -> None:
    """Fifteen aliases are followed, sixteen are not, in one answer or in many."""
    server.follows_aliases = follows
    for number in range(length):
        server.records[f"c{number}.test"] = {"CNAME": f"c{number + 1}.test"}
    server.records[f"c{length}.test"] = {"MX": MAIL_HOSTS}

    answer = await Nameservers([server.address]).ask("c0.test", "MX", budget())

    assert answer.outcome == outcome


@pytest.mark.parametrize("follows", [True, False])
async def test_alias_of_nothing(server: ToyDns, follows: bool) -> None:
    """An alias whose target does not exist does not exist (RFC 2308 2.1)."""
    server.follows_aliases = follows

    answer = await Nameservers([server.address]).ask("dead-end.test", "MX", budget(), ("no-name",))

    assert answer.outcome == "no-name"


@pytest.mark.parametrize("ttl", [0, 2**31 - 1, 2**31, 2**32 - 1])
async def test_any_ttl_is_read(server: ToyDns, ttl: int) -> None:
    """Silly TTLs do not break an answer; the cache clamps them."""
    server.records["shop.test"] = {"MX": MAIL_HOSTS, "TTL": ttl}

    answer = await Nameservers([server.address]).ask("shop.test", "MX", budget())

    assert answer.outcome == "found"
    assert 0 <= answer.ttl_s <= 2**32


async def test_ipv6_nameserver(server: ToyDns, monkeypatch: pytest.MonkeyPatch) -> None:
    """A nameserver may have an IPv6 address: sockets of that family ask it, over UDP and over TCP. What they reach here
    is the toy DNS, for a machine may have no IPv6."""
    port = server.address.rpartition(":")[2]
    make_socket = nameservers._backend.make_socket
    asked: list[tuple[int, int, tuple[str, int]]] = []

    async def over_ipv4(family: int, kind: int, proto: int, source: None, destination: tuple[str, int]) -> object:
        asked.append((family, kind, destination))
        return await make_socket(socket.AF_INET, kind, proto, source, ("127.0.0.1", destination[1]))

    monkeypatch.setattr(nameservers._backend, "make_socket", over_ipv4)
    server.behave("truncate", "shop.test")

    answer = await Nameservers([f"[2001:db8::53]:{port}"]).ask("shop.test", "MX", budget())

    there = ("2001:db8::53", int(port))
    assert answer.outcome == "found"
    assert asked == [(socket.AF_INET6, socket.SOCK_DGRAM, there), (socket.AF_INET6, socket.SOCK_STREAM, there)]


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
def test_under_both_loops(run: Callable[[Coroutine[object, object, None]], None]) -> None:
    """UDP, TCP and refused ports work the same under uvloop, which the server runs on."""

    async def all_ways() -> None:
        async with ToyDns(ZONE) as server, ToyDns(ZONE) as gone:
            await gone.stop()
            server.behave("truncate", "alias.test")
            asker = Nameservers([gone.address, server.address])

            over_udp = await asker.ask("shop.test", "MX", budget())
            over_tcp = await asker.ask("alias.test", "MX", budget())

            assert over_udp.outcome == over_tcp.outcome == "found"
            assert server.queries_tcp == 1

    run(all_ways())


@pytest.mark.parametrize(
    ("text", "nameserver"),
    [
        ("127.0.0.1", Nameserver("127.0.0.1", 53)),
        ("127.0.0.1:5353", Nameserver("127.0.0.1", 5353)),
        ("[::1]:5353", Nameserver("::1", 5353)),
        ("[::1]", Nameserver("::1", 53)),
        ("2001:db8::53", Nameserver("2001:db8::53", 53)),
    ],
)
def test_nameservers_are_read(text: str, nameserver: Nameserver) -> None:
    """Addresses of both families, with and without a port; what is printed can be read again."""
    assert parse_nameserver(text) == nameserver
    assert parse_nameserver(str(nameserver)) == nameserver


@pytest.mark.parametrize(
    "text", ["", "dns.test", "127.0.0.1:", "127.0.0.1:0", "127.0.0.1:65536", "[::1]:x", "1.2.3", ":53"]
)
def test_what_is_no_nameserver(text: str) -> None:
    """Names and malformed addresses are refused with a text that shows a right one."""
    with pytest.raises(ValueError, match=r"like 127\.0\.0\.1:5353"):
        parse_nameserver(text)


def test_system_has_a_nameserver() -> None:
    """Without any in the configuration there is always one to ask, at the usual port."""
    found = system_nameservers()

    assert found
    assert {nameserver.port for nameserver in found} == {53}


@pytest.mark.parametrize("section", ["answer", "authority", "additional"])
def test_only_the_beginning_of_huge_answers_is_read(section: str) -> None:
    """Four thousand records in a section are cut to so many as are read in a moment; what comes behind is left out."""
    query = dns.message.make_query("many.test", "A")
    response = dns.message.make_response(query)
    records = [f"192.0.{number >> 8}.{number & 255}" for number in range(3_000)]
    getattr(response, section).append(dns.rrset.from_text_list("many.test.", 60, "IN", "A", records))
    response.additional.append(dns.rrset.from_text_list("behind.test.", 60, "IN", "A", ["192.0.2.1"]))

    message = parse_answer(response.to_wire(max_size=65_535), query)

    assert message is not None
    assert len(getattr(message, section)[0]) == RECORDS_READ_MAX
    assert message.section_count(section.upper()) == RECORDS_READ_MAX
    assert not any(rrset.name.to_text() == "behind.test." for rrset in message.additional)


@given(st.binary(max_size=200))
def test_any_bytes_are_survived(wire: bytes) -> None:
    """Bytes that happen to come from the nameserver's address are an answer or they are not; nothing breaks."""
    query = dns.message.make_query("shop.test", "MX")

    message = parse_answer(query.to_wire()[:2] + wire, query)

    assert message is None or query.is_response(message)


@given(st.integers(0, 10_000), st.integers(0, 255))
def test_any_damaged_answer_is_survived(position: int, byte: int) -> None:
    """An answer with one byte changed is passed over or read; reading it breaks nothing."""
    query = dns.message.make_query("shop.test", "MX", id=1)
    response = dns.message.make_response(query)
    response.answer.append(dns.rrset.from_text_list("shop.test.", 60, "IN", "MX", ["10 mx.shop.test."]))
    wire = bytearray(response.to_wire())
    wire[position % len(wire)] = byte

    message = parse_answer(bytes(wire), query)

    assert message is None or read(message, "MX").outcome in get_args(Outcome)

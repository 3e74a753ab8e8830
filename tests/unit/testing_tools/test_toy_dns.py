"""The toy DNS does what tests believe that it does: asked here with dnspython's plain client."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import dns.asyncquery
import dns.flags
import dns.message
import dns.query
import dns.rcode
import dns.rdatatype
import pytest

from mta.testing.toy_dns import Records, ToyDns

ZONE: dict[str, Records] = {
    "shop.test": {"MX": ["10 mx1.shop.test", "20 mx2.shop.test"], "TXT": '"v=spf1 -all"', "TTL": 77},
    "mx1.shop.test": {"A": ["127.0.0.2"], "AAAA": "::1"},
    "null.test": {"MX": "0 ."},
    "alias.test": {"CNAME": "shop.test"},
    "loop.test": {"CNAME": "loop.test"},
    "*.wild.test": {"A": ["127.0.0.3"]},
    "own.wild.test": {"MX": "5 mx1.shop.test"},
    "broken.test": {"behaviour": "servfail"},
}
FAR_S = 10.0


@pytest.fixture
async def server() -> AsyncIterator[ToyDns]:
    async with ToyDns(ZONE) as server:
        yield server


async def ask(
    server: ToyDns, name: str, kind: str, *, tcp: bool = False, ignore_errors: bool = False, anybody: bool = False
) -> dns.message.Message:
    host, _, port = server.address.rpartition(":")
    query = dns.message.make_query(name, kind)
    if tcp:
        return await dns.asyncquery.tcp(query, host, port=int(port), timeout=FAR_S)
    return await dns.asyncquery.udp(
        query, host, port=int(port), timeout=FAR_S, ignore_errors=ignore_errors, ignore_unexpected=anybody
    )


def texts(message: dns.message.Message) -> list[str]:
    return [record.to_text().lower() for rrset in message.answer for record in rrset]


@pytest.mark.parametrize("tcp", [False, True])
async def test_records_are_answered(server: ToyDns, tcp: bool) -> None:
    """Records come as the dictionary has them, over UDP and TCP at the same port, with their TTL."""
    message = await ask(server, "Shop.TEST", "MX", tcp=tcp)

    assert sorted(texts(message)) == ["10 mx1.shop.test.", "20 mx2.shop.test."]
    assert message.answer[0].ttl == 77
    assert message.flags & dns.flags.RA
    assert server.queries_tcp == tcp


@pytest.mark.parametrize(
    ("name", "kind", "data"),
    [
        ("mx1.shop.test", "AAAA", ["::1"]),
        ("shop.test", "TXT", ['"v=spf1 -all"']),
        ("null.test", "MX", ["0 ."]),
        ("any.wild.test", "A", ["127.0.0.3"]),
        ("far.below.wild.test", "A", ["127.0.0.3"]),
        ("own.wild.test", "MX", ["5 mx1.shop.test."]),
        ("alias.test", "MX", ["shop.test.", "10 mx1.shop.test.", "20 mx2.shop.test."]),
    ],
)
async def test_every_type_wildcards_and_aliases(server: ToyDns, name: str, kind: str, data: list[str]) -> None:
    """One record may be given without a list; wildcards stand for names without their own entry."""
    message = await ask(server, name, kind)

    assert sorted(texts(message), key=data.index) == data


@pytest.mark.parametrize(
    ("name", "kind", "rcode"),
    [
        ("nobody.test", "MX", dns.rcode.NXDOMAIN),
        ("wild.test", "A", dns.rcode.NOERROR),
        ("test", "A", dns.rcode.NOERROR),
        ("own.wild.test", "A", dns.rcode.NOERROR),
        ("mx1.shop.test", "MX", dns.rcode.NOERROR),
        ("broken.test", "MX", dns.rcode.SERVFAIL),
    ],
)
async def test_what_does_not_exist(server: ToyDns, name: str, kind: str, rcode: int) -> None:
    """Unknown names do not exist; names above known ones do, without records; denials carry an SOA."""
    message = await ask(server, name, kind)

    assert message.rcode() == rcode
    assert message.answer == []
    has_soa = [rrset.rdtype for rrset in message.authority] == [dns.rdatatype.SOA]
    assert has_soa == (rcode != dns.rcode.SERVFAIL)


async def test_alias_loops_end(server: ToyDns) -> None:
    """A loop of aliases gives a long answer, not an endless one."""
    message = await ask(server, "loop.test", "A")

    assert [rrset.rdtype for rrset in message.answer] == [dns.rdatatype.CNAME] * len(message.answer)


async def test_functions_answer_below_a_suffix(server: ToyDns) -> None:
    """A function makes up any number of domains, and decides which of them exist."""
    server.answer_below("bench.test", lambda name: {"MX": f"10 mx.{name}"} if name.startswith("d") else None)

    known = await ask(server, "d123.bench.test", "MX")
    unknown = await ask(server, "x.bench.test", "MX")

    assert texts(known) == ["10 mx.d123.bench.test."]
    assert unknown.rcode() == dns.rcode.NXDOMAIN


async def test_records_change_while_it_runs(server: ToyDns) -> None:
    """The dictionary is looked at with every question."""
    server.records["new.test"] = {"A": "127.0.0.9"}
    server.behave("refused", "shop.test")

    new = await ask(server, "new.test", "A")
    old = await ask(server, "shop.test", "MX")

    assert texts(new) == ["127.0.0.9"]
    assert old.rcode() == dns.rcode.REFUSED
    assert server.queries == {("new.test", "A"): 1, ("shop.test", "MX"): 1}


async def test_truncated_answers(server: ToyDns) -> None:
    """What is truncated over UDP is whole over TCP, by wish or because it is too long."""
    server.behave("truncate", "shop.test")
    server.records["many.test"] = {"A": [f"127.0.1.{number}" for number in range(200)]}

    cut = await ask(server, "shop.test", "MX")
    long = await ask(server, "many.test", "A")
    whole = await ask(server, "many.test", "A", tcp=True)

    assert cut.flags & dns.flags.TC
    assert cut.answer == []
    assert long.flags & dns.flags.TC
    assert len(texts(whole)) == 200


@pytest.mark.parametrize("behaviour", ["lie-id", "lie-question"])
async def test_lies_come_first(server: ToyDns, behaviour: str) -> None:
    """A careless client takes the forged answer, a careful one the true one behind it."""
    server.behave(behaviour, "mx1.shop.test")  # pyright: ignore[reportArgumentType] - parametrized

    with pytest.raises(dns.query.BadResponse):
        await ask(server, "mx1.shop.test", "A")
    message = await ask(server, "mx1.shop.test", "A", ignore_errors=True)

    assert texts(message) == ["127.0.0.2"]


async def test_lies_from_another_port(server: ToyDns) -> None:
    """The forged answer has everything right but its sender."""
    server.behave("lie-port")

    with pytest.raises(dns.query.UnexpectedSource):
        await ask(server, "mx1.shop.test", "A")
    message = await ask(server, "mx1.shop.test", "A", anybody=True)

    assert texts(message) == ["127.0.0.2"]


@pytest.mark.parametrize(("behaviour", "rcode"), [("nxdomain", dns.rcode.NXDOMAIN), ("empty", dns.rcode.NOERROR)])
async def test_denials_of_what_exists(server: ToyDns, behaviour: str, rcode: int) -> None:
    """A behaviour for all names denies even what there is."""
    server.behave(behaviour)  # pyright: ignore[reportArgumentType] - parametrized

    message = await ask(server, "shop.test", "MX")

    assert message.rcode() == rcode
    assert message.answer == []


async def test_same_port_again() -> None:
    """A server that was stopped can be started at the port that it had."""
    async with ToyDns() as first:
        port = int(first.address.rpartition(":")[2])

    async with ToyDns(port=port) as second:
        assert second.address == first.address


async def test_as_a_process(tmp_path: Path) -> None:
    """`python -m mta.testing.toy_dns` serves a dictionary from a JSON file and says where."""
    zone = tmp_path / "zone.json"
    zone.write_text(json.dumps({"shop.test": {"MX": ["10 mx.shop.test"]}, "bad.test": {"behaviour": "refused"}}))
    command = [sys.executable, "-m", "mta.testing.toy_dns", "--listen", "127.0.0.1:0", "--zone", str(zone)]
    process = await asyncio.create_subprocess_exec(*command, stderr=asyncio.subprocess.PIPE)
    assert process.stderr is not None
    said = (await process.stderr.readline()).decode()
    server = ToyDns()
    server.address = said.split()[3].rstrip(",")

    found = await ask(server, "shop.test", "MX")
    refused = await ask(server, "bad.test", "MX")
    process.terminate()
    await process.wait()

    assert "2 names" in said
    assert texts(found) == ["10 mx.shop.test."]
    assert refused.rcode() == dns.rcode.REFUSED

"""Quick answers: the same as the slow way's, for plain questions only."""

import asyncio

import dns.flags
import dns.message
import dns.opcode
import dns.rdatatype
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mta.testing import quick_answers
from mta.testing.toy_dns import ToyDns

ZONE = {
    "shop.test": {"MX": ["10 mx.shop.test.", "20 mx2.shop.test."]},
    "mx.shop.test": {"A": ["127.0.0.2", "127.0.0.3"], "AAAA": "::1", "TTL": 60},
    "alias.test": {"CNAME": "shop.test."},
    "moody.test": {"MX": "10 mx.shop.test.", "behaviour": "servfail"},
    "*.wild.test": {"A": "127.0.0.9"},
    "many.test": {"A": [f"127.0.1.{number}" for number in range(60)]},
    "text.test": {"TXT": '"hello"'},
    "null.test": {"MX": "0 ."},
}


def ask(name: str, kind: str, **changes: object) -> bytes:
    return dns.message.make_query(name, kind, **changes).to_wire()  # pyright: ignore[reportArgumentType]


async def slowly(server: ToyDns, wire: bytes) -> dns.message.Message:
    answers: list[bytes] = []
    await server.respond(wire, lambda answer, _: answers.append(answer), False)
    return dns.message.from_wire(answers[0])


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("shop.test", "MX"),
        ("SHOP.Test", "MX"),
        ("mx.shop.test", "A"),
        ("mx.shop.test", "AAAA"),
        ("a.b.wild.test", "A"),
        ("null.test", "MX"),
    ],
)
@pytest.mark.parametrize("edns", [True, False])
async def test_a_quick_answer_is_that_of_the_slow_way(name: str, kind: str, edns: bool):
    """Number, question, flags and records; a client sees no difference."""
    server = ToyDns(ZONE)
    wire = ask(name, kind, use_edns=edns)

    quick = server.respond_quickly(wire)

    assert quick is not None
    answer, slow = dns.message.from_wire(quick), await slowly(server, wire)
    assert (answer.id, answer.question, answer.answer) == (slow.id, slow.question, slow.answer)
    assert (answer.flags, answer.rcode(), answer.edns) == (slow.flags, slow.rcode(), slow.edns)
    assert [rrset.ttl for rrset in answer.answer] == [rrset.ttl for rrset in slow.answer]
    assert server.queries.total() == 2


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("alias.test", "MX"),
        ("moody.test", "MX"),
        ("nothing.test", "MX"),
        ("shop.test", "A"),
        ("text.test", "TXT"),
        (".", "MX"),
        ("many.test", "A"),
    ],
)
def test_what_is_not_plain_is_left_to_the_slow_way(name: str, kind: str):
    """Aliases, moods, names and types that are not there, answers too long for a plain packet; nothing is counted."""
    server = ToyDns(ZONE)

    assert server.respond_quickly(ask(name, kind, use_edns=False)) is None
    assert not server.queries


def test_a_long_answer_is_quick_where_the_client_takes_it():
    """EDNS says how much."""
    assert ToyDns(ZONE).respond_quickly(ask("many.test", "A", use_edns=True, payload=4_096)) is not None


def test_a_server_in_a_mood_is_never_quick():
    """Whatever it was told to do is done to every question."""
    held, moody, late = ToyDns(ZONE), ToyDns(ZONE), ToyDns(ZONE)
    moody.behave("timeout")
    late.delay_s = 0.1
    held._held = asyncio.Event()

    assert [server.respond_quickly(ask("shop.test", "MX")) for server in (held, moody, late)] == [None] * 3


def test_odd_queries_are_not_plain():
    """An answer, another opcode, two questions, trailing bytes, another class: all are looked at slowly."""
    plain = ask("shop.test", "MX", use_edns=False)
    is_answer = bytearray(plain)
    is_answer[2] |= 0x80
    two = bytearray(plain)
    two[5] = 2
    chaos = plain[:-1] + b"\x03"
    notify = dns.message.make_query("shop.test", "MX", use_edns=False)
    notify.set_opcode(dns.opcode.NOTIFY)

    odd = [bytes(is_answer), bytes(two), chaos, plain + b"x", plain[:-1], notify.to_wire(), b"", plain[:12]]

    assert quick_answers.read(plain) is not None
    assert [quick_answers.read(wire) for wire in odd] == [None] * len(odd)


@given(st.binary(max_size=80), st.integers(0, 60), st.binary(max_size=4))
def test_no_bytes_are_too_strange(noise: bytes, at: int, patch: bytes):
    """Whatever comes is read or left to the slow way, and what is read is what dnspython reads."""
    plain = ask("a.shop.test", "MX")
    damaged = plain[:at] + patch + plain[at + len(patch) :]

    quick_answers.read(noise)
    question = quick_answers.read(damaged)

    if question is not None:
        read = dns.message.from_wire(damaged, ignore_trailing=True)
        assert (
            read.question[0].name.to_text(omit_final_dot=True).lower().replace("\\", "")
            in (
                question.name,
                question.name.replace("\\", ""),
            )
            or not question.name.isprintable()
        )
        assert dns.rdatatype.to_text(read.question[0].rdtype) == question.kind


@pytest.mark.parametrize("data", [["not-an-address"], ["10"], ["x y"], ["10 a..b."], ["70000 a."]])
def test_data_that_cannot_be_written_is_left_to_the_slow_way(data: list[str]):
    """It says what is wrong with a zone better."""
    kind = "A" if data == ["not-an-address"] else "MX"
    question = quick_answers.read(ask("shop.test", kind))

    assert question is not None
    assert quick_answers.write(question, data, 300) is None

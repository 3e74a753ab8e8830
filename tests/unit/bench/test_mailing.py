"""A mailing: the same recipients for the same seed, bodies like written text, and each its own."""

import re
from collections import Counter
from email import message_from_bytes

from bench.mailing import Domain, Maker, Plan, random_text


def body_of(content: bytes) -> bytes:
    return content.partition(b"\r\n\r\n")[2]


def test_unique_bodies_differ_and_keep_their_size():
    """No two are alike, and each message is as long as the plan says."""
    maker = Maker(Plan(unique=True, sizes=[2_000, 4_096], run_id="u"))

    messages = [maker.make(number, 0.0) for number in range(300)]

    assert len({body_of(message.content) for message in messages}) == 300
    assert {len(message.content) - 5 for message in messages} <= {1_998, 1_999, 2_000, 4_094, 4_095, 4_096}


def test_bodies_are_the_same_where_nobody_asked_for_others():
    """Then only the header tells two messages apart."""
    maker = Maker(Plan(run_id="s"))

    assert body_of(maker.make(1, 0.0).content) == body_of(maker.make(2, 0.0).content)


def test_a_unique_body_repeats_in_another_run():
    """Seed and id decide, so that two runs are given the same mail."""
    plan = Plan(unique=True, run_id="r", seed=5)

    assert body_of(Maker(plan).make(7, 0.0).content) == body_of(Maker(plan).make(7, 0.0).content)


def test_random_text_is_written_as_people_write():
    """Lines of one length, single blanks, none at an end, nothing that a sender must change."""
    text = random_text(50_000, seed=3)

    lines = text.split(b"\r\n")

    assert len(text) >= 50_000
    assert len({len(line) for line in lines[:-1]}) == 1
    assert lines[-1] == b""
    assert not re.search(rb"  | \r\n|^[.]|\r\n[.]|[^ -~\r\n]", text)


def test_a_message_is_well_formed():
    """Header, blank line, body; CRLF only; further header lines are there."""
    maker = Maker(Plan(unique=True, headers=["Reply-To: <a@b.test>", "X-One: 1"], run_id="w"))

    message = maker.make(3, 0.0)
    content = message.content.removesuffix(b"\r\n.\r\n")
    parsed = message_from_bytes(content)

    assert (parsed["Reply-To"], parsed["X-One"], parsed["X-Bench-Id"]) == ("<a@b.test>", "1", "w-3")
    assert b"\n" not in content.replace(b"\r\n", b"")
    assert b"\r" not in content.replace(b"\r\n", b"")
    assert message.number == 3


def test_weights_are_kept_among_thousands_of_domains():
    """A domain with half of the weight gets half of the mail."""
    small = [Domain(f"d{number}.test", 1 / 5_000) for number in range(5_000)]
    maker = Maker(Plan(domains=[Domain("big.test", 1.0), *small], messages=4_000))

    names = Counter(
        maker.make(number, 0.0).envelope.rpartition(b"@")[2].partition(b">")[0] == b"big.test"
        for number in range(4_000)
    )

    assert 1_800 < names[True] < 2_200

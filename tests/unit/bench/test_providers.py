"""Providers as sinks: their own words, well formed, and understood by a client."""

import asyncio
import re
import smtplib

import pytest

from bench.providers import PROVIDERS, ready
from bench.sink import Sink
from bench.temper import Profile

REPLIES = ("connections_over", "messages_over", "rate_over", "deferred_reply", "unknown_reply", "greylisted_reply")
LINE_BYTES_MAX = 512  # RFC 5321 4.5.3.1.5
LINE = re.compile(r"([45][0-9]{2})([- ])[ -~]+")


@pytest.mark.parametrize("name", PROVIDERS)
@pytest.mark.parametrize("field", REPLIES)
def test_every_reply_is_well_formed(name: str, field: str):
    """One code on all its lines, a dash on all but the last, nothing too long, nothing that is not ASCII."""
    lines = getattr(PROVIDERS[name], field).split("\r\n")

    found = [LINE.fullmatch(line) for line in lines]

    assert all(found), lines
    assert {match[1] for match in found if match} == {lines[0][:3]}
    assert [match[2] for match in found if match] == ["-"] * (len(lines) - 1) + [" "]
    assert all(len(line) + 2 <= LINE_BYTES_MAX for line in lines)


@pytest.mark.parametrize("name", PROVIDERS)
def test_what_is_refused_for_good_is_a_5xx_and_the_rest_a_4xx(name: str):
    """An unknown user never comes back; everything else does."""
    profile = PROVIDERS[name]

    temporary = {getattr(profile, field)[0] for field in REPLIES if field != "unknown_reply"}

    assert temporary == {"4"}
    assert profile.unknown_reply[0] == "5"


def test_a_ready_profile_is_ones_own():
    """A change of it, or of its lists, does not reach the next one."""
    one = ready("google", latency_s=0.05)
    one.connections_max = 1
    one.extensions.append("ODD")

    other = ready("google")

    assert (one.latency_s, one.name) == (0.05, "google")
    assert (other.connections_max, other.latency_s, other.extensions) == (5, 0.0, [])
    assert isinstance(other, Profile)


def test_a_field_that_is_none_is_refused():
    """A typing error is not a habit."""
    with pytest.raises((TypeError, ValueError)):
        ready("google", latencyy_s=0.05)


async def test_replies_of_several_lines_reach_the_client_whole():
    """Google's unknown user, over four lines, as one reply; the next command is in step."""

    def talk(host: str, port: int) -> tuple[tuple[int, bytes], tuple[int, bytes]]:
        with smtplib.SMTP(host, port) as client:
            client.ehlo()
            client.mail("a@b.test")
            return client.rcpt("unknown@google.test"), client.rcpt("known@google.test")

    async with Sink([ready("google")]) as sink:
        google = sink.profiles["google"]
        unknown, known = await asyncio.to_thread(talk, google.address, google.port)

    assert unknown[0] == 550
    assert unknown[1].count(b"\n") == 3
    assert unknown[1].endswith(b"p=NoSuchUser - gsmtp")
    assert known[0] == 250

"""Scenarios: worlds in which every domain has a mail host, and mail in the shares that they promise."""

import ipaddress
from collections import Counter

import msgspec
import pytest

from bench import scenarios
from bench.mailing import Maker
from bench.scenarios import NAMES, Options, Setup, mix


def setup(name: str, **options: object) -> Setup:
    return scenarios.load(name).setup(msgspec.convert(options, Options))


@pytest.mark.parametrize("name", NAMES)
def test_every_domain_that_gets_mail_has_a_host_that_listens(name: str):
    """Domain to MX, MX to address, address to a provider of the sink; and the route says the same."""
    made = setup(name, messages=500)
    listening = [ipaddress.ip_network(profile.address) for profile in made.profiles]

    for domain in made.plan.domains:
        mx = made.world.zone[domain.name]["MX"]
        assert isinstance(mx, list)
        host = str(mx[0]).split()[1].removesuffix(".")
        address = made.world.zone[host]["A"]
        assert address == [made.world.routes[domain.name]]
        assert any(ipaddress.ip_address(made.world.routes[domain.name]) in network for network in listening)


@pytest.mark.parametrize("name", NAMES)
def test_each_destination_is_told_by_domains_or_hosts_of_the_world(name: str):
    """Or it is the one for all the others, of which there is one at most."""
    made = setup(name, messages=500)
    names = set(made.world.zone)

    for destination in made.destinations:
        assert set(destination.domains) <= names
        for pattern in destination.mx:
            assert any(each.endswith(pattern.removeprefix("*")) for each in names)
    assert sum(1 for each in made.destinations if not each.domains and not each.mx) <= 1
    assert len({each.name for each in made.destinations}) == len(made.destinations)


@pytest.mark.parametrize("name", NAMES)
def test_what_may_be_chosen_is_heard(name: str):
    """Messages, sessions, rate and size; everything else stays."""
    made = setup(name, messages=123, sessions=7, rate_per_s=55.0, size=10_000)

    assert (made.plan.messages, made.plan.sessions, made.plan.rate_per_s) == (123, 7, 55.0)
    assert made.plan.sizes == [10_000]


@pytest.mark.parametrize("name", NAMES)
def test_the_warm_up_waits_for_nothing(name: str):
    """It is as fast as the server accepts, and short."""
    made = setup(name, rate_per_s=1_000.0)

    assert made.warm.rate_per_s == 0.0
    assert 0 < made.warm.messages <= made.plan.messages
    assert all(profile.keep == "ids" and profile.sample_every for profile in made.profiles)


@pytest.mark.parametrize("name", NAMES)
def test_every_message_can_be_signed_by_the_key_of_the_sender(name: str):
    """From is at the domain that has the key; every body is its own; about ten fields in the header."""
    made = setup(name, messages=10)

    content = Maker(made.plan).make(1, 0.0).content
    head = content.partition(b"\r\n\r\n")[0]

    assert f"@{scenarios.SENDER_DOMAIN}>".encode() in head
    assert made.plan.unique
    assert 9 <= head.count(b"\r\n") <= 14


def test_an_unknown_scenario_is_an_error():
    """Whoever asks for it hears so."""
    with pytest.raises(KeyError):
        scenarios.load("nothing")


def test_the_mix_has_twenty_thousand_domains():
    """Those of the big ones, those that they host, and the tail."""
    assert len(setup("mix").world.routes) == 20_000


def test_the_mix_gives_the_big_ones_their_share():
    """60 % of the mail, hosted domains included; the tail gets the rest in pieces of about two."""
    made = setup("mix", messages=20_000)
    maker = Maker(made.plan)

    domains = Counter(
        maker.make(number, 0.0).envelope.rpartition(b"@")[2].partition(b">")[0].decode() for number in range(20_000)
    )
    tail = Counter({name: count for name, count in domains.items() if name.startswith("tail")})
    google = sum(count for name, count in domains.items() if name.startswith("google"))

    assert 7_700 < tail.total() < 8_300
    assert 2.0 <= tail.total() / len(tail) < 2.5
    assert 5_000 < google < 5_800


def test_a_small_mix_has_as_few_messages_for_a_host_of_the_tail():
    """Fewer hosts get mail, not each of them less."""
    made = setup("mix", messages=1_000)

    assert sum(1 for domain in made.plan.domains if domain.name.startswith("tail")) == 200


def test_hosted_domains_share_a_site_or_have_their_own():
    """Google's have the same MX, Microsoft's each its own, all at the provider's address."""
    zone = setup("mix").world.zone

    assert zone["google1.test"] == zone["google2.test"]
    assert zone["microsoft1.test"] != zone["microsoft2.test"]
    assert setup("mix").world.routes["microsoft1.test"] == setup("mix").world.routes["microsoft2.test"]


def test_shares_are_a_whole():
    """The big ones and the tail together."""
    assert sum(big.percent + big.hosted_percent for big in mix.BIG) + mix.TAIL_PERCENT == 100.0
    assert len(mix.BIG) == 10


def test_everybody_of_the_mix_is_far_away_and_defers():
    """80 ms, the greeting late by two round trips, 5 % deferred."""
    for profile in setup("mix", messages=100).profiles:
        assert (profile.latency_s, profile.greeting_latency_s, profile.deferred_percent) == (0.08, 0.08, 5.0)


def test_latency_asks_for_a_thousand_a_second():
    """Unless another rate is asked for; then it lasts as long."""
    usual, faster = setup("latency").plan, setup("latency", rate_per_s=2_000.0).plan

    assert (usual.rate_per_s, faster.rate_per_s) == (1_000.0, 2_000.0)
    assert usual.messages / usual.rate_per_s == faster.messages / faster.rate_per_s


def test_a_destination_may_have_one_owner():
    """As most have: then one worker carries it, and all helpers sign for it."""
    owners = [setup("relay", **options).destinations[0].owners for options in ({}, {"owners": 1}, {"workers": 1})]

    assert owners == [2, 1, 1]

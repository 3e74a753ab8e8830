"""The cast fits together: sink, policies and DNS mean the same providers."""

from collections import Counter
from pathlib import Path

import pytest

from bench.demo_cast import PROVIDERS, SHOP, SHOP_DOMAIN, Mailing, policies, profiles, provider_of, zone
from bench.mailing import Maker
from mta_policies import layers


def addresses(domain: str) -> object:
    records = zone()
    [exchanger] = records[domain]["MX"]  # pyright: ignore[reportGeneralTypeIssues] - a list, made there
    return records[exchanger.removeprefix("10 ").rstrip(".")]["A"]


def test_every_domain_has_a_mail_exchanger_that_listens():
    """The addresses are those that the sink gives its providers, in order; the shop's comes last."""
    order = [profile.name for profile in profiles(20_000)]

    assert {domain: addresses(domain) for domain in provider_of()} == {
        domain: [f"127.0.0.{2 + order.index(name)}"] for domain, name in provider_of().items()
    }
    assert order[-1] == SHOP == provider_of()[SHOP_DOMAIN]


def test_the_policies_are_found_by_mx(tmp_path: Path):
    """Each provider's file matches the host that its domains lead to, and all of them are valid."""
    for name, text in policies().items():
        (tmp_path / f"{name}.toml").write_text(text)

    loaded = layers.load(tmp_path, [])

    for provider in PROVIDERS:
        policy = loaded.by_mx([f"mx.{provider.name}-mail.test"])
        assert policy is not None
        assert policy.name == provider.name


@pytest.mark.parametrize("provider", PROVIDERS, ids=lambda each: each.name)
def test_what_a_policy_allows_the_provider_takes(provider):
    """Else the demo would show refusals that no limit of the server could avoid."""
    profile = provider.profile
    assert not profile.connections_max or provider.connections <= profile.connections_max
    if profile.messages_per_connection:
        assert f"messages_per_connection = {profile.messages_per_connection}\n" in provider.limits
    if profile.rate_per_s:
        assert 'rate = "100/s"' in provider.limits
        assert profile.rate_per_s > 100


def test_the_shares_are_all_of_the_mail():
    """A hundred per cent."""
    assert sum(each.share for each in PROVIDERS) == pytest.approx(1.0)


def test_what_will_be_sent_is_known_before():
    """The counts are those of the messages that the load will make, whatever their number."""
    mailing = Mailing(2_000, port=25)

    maker, whose = Maker(mailing.plan), provider_of()
    recipients = [
        maker.make(number, 0.0).envelope.split(b"RCPT TO:<")[1].split(b">")[0].decode() for number in range(2_000)
    ]
    assert Counter(whose[each.partition("@")[2]] for each in recipients) == mailing.messages
    assert mailing.notifications == sum(each.startswith("unknown") for each in recipients) > 0
    assert mailing.undeliverable["moody"] == mailing.notifications


def test_the_time_it_needs_grows_with_the_strict_ones_mail():
    """A hundred messages a second are never exceeded, and the sleepy one sleeps in any case."""
    assert Mailing(100, 25).least_s == 5.0
    assert Mailing(20_000, 25).least_s > 13.0


def test_some_of_every_provider_are_looked_at():
    """Few of many, and all where there are few."""
    few = {profile.name: profile.sample_every for profile in profiles(20)}
    many = {profile.name: profile.sample_every for profile in profiles(20_000)}

    assert set(few.values()) == {1}
    assert min(many[each.name] for each in PROVIDERS) > 50

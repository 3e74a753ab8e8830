"""About whose mail an answer is, as one text."""

import pytest

from mta.model.outcome import COUNTED_STAGES
from mta.model.outcome import STAGES as STAGES_OF_OUTCOMES
from mta_policies.answers import MESSAGE_STAGES, STAGES, Subject, netblock, scope_key
from mta_policies.rulebook import SCOPES

FULL = Subject(
    source="out-1",
    source_address="192.0.2.77",
    site="mx.google.example",
    provider="google",
    tenant="shop",
    campaign="spring",
    recipient="someone@gmail.example",
    dkim_domain="shop.example",
    spf_domain="bounce.shop.example",
)


@pytest.mark.parametrize(
    ("scope", "key"),
    [
        ("recipient", "recipient someone@gmail.example > google"),
        ("tenant", "tenant shop > google"),
        ("campaign", "campaign shop/spring > google"),
        ("dkim-domain", "dkim-domain shop.example > google"),
        ("spf-domain", "spf-domain bounce.shop.example > google"),
        ("source", "source out-1 > google"),
        ("netblock", "netblock 192.0.2.0/24 > google"),
        ("site", "site mx.google.example > google"),
        ("provider", "provider google"),
        ("path", "path out-1 shop.example mx.google.example > google"),
    ],
)
def test_a_scope_key_names_the_scope_its_value_and_the_provider(scope: str, key: str) -> None:
    """So that the same tenant towards two providers is two keys."""
    assert scope_key(scope, FULL) == key


@pytest.mark.parametrize("scope", sorted(set(SCOPES) - {"source", "site", "provider"}))
def test_what_a_subject_does_not_have_is_no_key(scope: str) -> None:
    """A connection that failed has no recipient; nothing is counted for nobody."""
    assert scope_key(scope, Subject(source="out-1", site="mx.example", provider="google")) == ""


def test_the_systems_own_address_is_a_source_too() -> None:
    """Where no source is configured its name is empty."""
    assert scope_key("source", Subject(provider="google")) == "source system > google"


def test_two_tenants_campaigns_of_one_name_are_two() -> None:
    """A newsletter that is slowed is not everybody's newsletter."""
    other = FULL._replace(tenant="bank")

    assert scope_key("campaign", FULL) != scope_key("campaign", other)


@pytest.mark.parametrize(
    ("address", "block"),
    [
        ("192.0.2.255", "192.0.2.0/24"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("::ffff:192.0.2.1", "192.0.2.0/24"),
        ("", ""),
    ],
)
def test_a_netblock_is_what_providers_hold_responsible_together(address: str, block: str) -> None:
    """256 IPv4 addresses, or one network of IPv6 hosts."""
    assert netblock(address) == block


def test_stages_are_those_of_outcomes() -> None:
    """The two lists stand in two floors that may not import each other."""
    assert STAGES == STAGES_OF_OUTCOMES
    assert MESSAGE_STAGES == COUNTED_STAGES

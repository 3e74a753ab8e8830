"""Mail hosts as values: their order, and the name of a set of them."""

from collections import Counter
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mta.resolve import sites
from mta.resolve.sites import SITE_NAME_CHARS_MAX, MailHosts, MxHost, order, site_name


def hosts_of(*pairs: tuple[int, str]) -> MailHosts:
    return MailHosts("a.test", tuple(sorted(MxHost(*pair) for pair in pairs)), False, 0.0)


def test_names_are_the_sorted_set() -> None:
    """A site is made of names; preferences and repetitions do not count."""
    hosts = hosts_of((20, "a.test"), (10, "b.test"), (30, "a.test"))

    assert hosts.names == ("a.test", "b.test")


def test_order_keeps_preference() -> None:
    """A host with a higher number is never tried before one with a lower number."""
    hosts = hosts_of((10, "a"), (10, "b"), (20, "c"), (30, "d"), (30, "e"))

    for seed in range(50):
        names = order(hosts, Random(seed))

        assert set(names[:2]) == {"a", "b"}
        assert names[2] == "c"
        assert set(names[3:]) == {"d", "e"}


def test_order_shuffles_equal_hosts() -> None:
    """Equal hosts each come first about equally often (RFC 5321 5.1)."""
    hosts = hosts_of((10, "a"), (10, "b"), (10, "c"))
    random = Random(1)

    first = Counter(order(hosts, random)[0] for _ in range(3_000))

    assert all(850 < count < 1_150 for count in first.values())
    assert len(first) == 3


@pytest.mark.parametrize(
    ("names", "name"),
    [
        (["mx.shop.test"], "mx.shop.test"),
        (["[192.0.2.1]"], "[192.0.2.1]"),
        (
            ["gmail-smtp-in.l.google.com", "alt1.gmail-smtp-in.l.google.com", "alt2.gmail-smtp-in.l.google.com"],
            "(|alt1.|alt2.)gmail-smtp-in.l.google.com",
        ),
        (["mx1.shop.test", "mx2.shop.test"], "(mx1.|mx2.)shop.test"),
        (["a.example", "b.test"], "(a.example|b.test)"),
        (["xmail.test", "mail.test"], "(mail.|xmail.)test"),
    ],
)
def test_site_name_is_factored_by_labels(names: list[str], name: str) -> None:
    """The labels that all hosts end with are written once."""
    assert site_name(names) == name
    assert site_name(reversed(names)) == name


def test_site_without_hosts_has_no_name() -> None:
    """No host, no site."""
    with pytest.raises(ValueError, match="at least one"):
        site_name([])


def test_long_site_name_is_cut() -> None:
    """A hundred hosts give a name of bounded length that still tells sets apart."""
    names = [f"mx{number}.a-rather-long-host-name.shop.test" for number in range(100)]

    whole, without_last = site_name(names), site_name(names[:-1])

    assert len(whole) <= SITE_NAME_CHARS_MAX
    assert whole != without_last
    assert whole.endswith(")a-rather-long-host-name.shop.test")


labels = st.sampled_from(["a", "b", "ab", "mx1", "mx2", "x" * 40])
host_sets = st.frozensets(st.lists(labels, min_size=1, max_size=4).map(".".join), min_size=1, max_size=7)


@given(host_sets, host_sets)
def test_different_sets_have_different_names(one: frozenset[str], other: frozenset[str]) -> None:
    """Two sites have one name only if they are the same site."""
    assert (site_name(one) == site_name(other)) == (one == other)


@given(host_sets, st.randoms())
def test_order_of_names_does_not_matter(names: frozenset[str], random: Random) -> None:
    """A site's name depends on the set alone, and is never long."""
    shuffled = sorted(names)
    random.shuffle(shuffled)

    assert site_name(shuffled + shuffled[:1]) == site_name(names)
    assert len(site_name(names)) <= SITE_NAME_CHARS_MAX


def test_the_hosts_can_be_read_back_from_the_name():
    """Unless it was cut; a route has none."""
    names = ("alt1.mx.example", "mx.example", "mx.other.test")

    assert sites.hosts_of(site_name(names)) == tuple(sorted(names))
    assert sites.hosts_of("mx.example") == ("mx.example",)
    assert sites.hosts_of(site_name(f"mx{number}.a-rather-long-name.example" for number in range(90))) == ()
    assert sites.hosts_of("127.0.0.1:25") == sites.hosts_of("") == ()

"""Names as they may be asked for."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mta.resolve.names import NAME_CHARS_MAX, clean_name, is_loopback_name, literal_address


@pytest.mark.parametrize(
    ("name", "clean"),
    [
        ("shop.test", "shop.test"),
        ("Shop.TEST.", "shop.test"),
        ("ai", "ai"),
        ("xn--bcher-kva.example", "xn--bcher-kva.example"),
        ("my_host.test", "my_host.test"),
        ("4.example", "4.example"),
    ],
)
def test_host_names_are_lower_case_without_a_dot(name: str, clean: str) -> None:
    """A name has one spelling, in the cache and in a site."""
    assert clean_name(name) == clean


@pytest.mark.parametrize(
    "name",
    [
        *("", ".", "a..b", ".a", "a.test..", "a b", "a\nb", "a\0b", "a\\.b", "a@b", "*.test", "bücher.example"),
        *("192.0.2.1", "1234", "x" * 64 + ".test", ".".join(["x" * 63] * 4)),
    ],
)
def test_odd_names_are_refused(name: str) -> None:
    """Blanks, control bytes, empty and overlong labels, wildcards and bare addresses are no names."""
    assert clean_name(name) == ""


@given(st.text(max_size=300))
def test_clean_names_are_always_safe(name: str) -> None:
    """Whatever comes in: what comes out is nothing, or short and of letters that mean nothing to anybody."""
    clean = clean_name(name)

    assert len(clean) <= NAME_CHARS_MAX
    assert set(clean) <= set("abcdefghijklmnopqrstuvwxyz0123456789-_.")
    assert clean_name(clean) == clean


@pytest.mark.parametrize(
    ("name", "address"),
    [
        ("[192.0.2.1]", "192.0.2.1"),
        ("[IPv6:2001:DB8::1]", "2001:db8::1"),
        ("[ipv6:::1]", "::1"),
        ("192.0.2.1", "192.0.2.1"),
        ("::1", "::1"),
    ],
)
def test_literals_are_read(name: str, address: str) -> None:
    """Address literals of both families (RFC 5321 4.1.3), and addresses as an admin writes them."""
    assert str(literal_address(name)) == address


@pytest.mark.parametrize("name", ["shop.test", "[]", "[300.0.0.1]", "[IPv6:xyz]", "[X400:abc]", "[192.0.2.1", "1", ""])
def test_what_is_no_literal(name: str) -> None:
    """Names, broken literals and literals of other kinds are no addresses."""
    assert literal_address(name) is None


@pytest.mark.parametrize(("name", "yes"), [("localhost", True), ("a.localhost", True), ("localhost.test", False)])
def test_localhost(name: str, yes: bool) -> None:
    """The name localhost and all below it mean this machine (RFC 6761 6.3)."""
    assert is_loopback_name(name) is yes

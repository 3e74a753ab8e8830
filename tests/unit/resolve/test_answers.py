"""Messages that contradict themselves or say less than they seem to."""

import dns.message
import dns.opcode
import dns.rcode
import dns.rrset
import pytest

from mta.resolve.answers import Kind, read

SOA = ("SOA", "ns.shop.test. admin.shop.test. 1 2 3 4 120")
NS = ("NS", "ns.shop.test.")


def message_of(
    *answer: tuple[str, ...], kind: Kind = "MX", rcode: int = 0, authority: tuple[str, str] | None = None
) -> dns.message.Message:
    query = dns.message.make_query("shop.test", kind)
    response = dns.message.make_response(query)
    response.set_rcode(dns.rcode.Rcode(rcode))
    for name, of, *texts in answer:
        response.answer.append(dns.rrset.from_text(name, 300, "IN", of, *texts))
    if authority is not None:
        response.authority.append(dns.rrset.from_text("shop.test.", 900, "IN", *authority))
    return dns.message.from_wire(response.to_wire())


def test_records_of_other_names_do_not_count() -> None:
    """Records that were not asked for are not taken along, whatever they say."""
    message = message_of(("other.test.", "MX", "0 evil.test."), ("shop.test.", "A", "192.0.2.1"), authority=SOA)

    answer = read(message, "MX")

    assert answer.outcome == "empty"
    assert answer.records == ()


def test_no_name_with_an_answer_is_a_failure() -> None:
    """A message that says "no such name" and gives its records proves neither."""
    message = message_of(("shop.test.", "MX", "10 mx.test."), rcode=dns.rcode.NXDOMAIN)

    answer = read(message, "MX")

    assert answer.outcome == "failed"
    assert "contradicts itself" in answer.why


@pytest.mark.parametrize("rcode", [dns.rcode.SERVFAIL, dns.rcode.REFUSED, dns.rcode.NOTIMP, dns.rcode.FORMERR])
def test_every_other_code_is_a_failure(rcode: int) -> None:
    """Only NOERROR and NXDOMAIN say something about the name, even where records come with the others."""
    message = message_of(("shop.test.", "MX", "10 mx.test."), rcode=rcode)

    answer = read(message, "MX")

    assert answer.outcome == "failed"
    assert dns.rcode.to_text(dns.rcode.Rcode(rcode)) in answer.why


@pytest.mark.parametrize(("authority", "ttl_s"), [(SOA, 120), (None, 300)])
def test_negative_ttl_is_the_soas(authority: tuple[str, str] | None, ttl_s: float) -> None:
    """How long "there is none" holds is the SOA's minimum where that is less than its TTL (RFC 2308 5)."""
    answer = read(message_of(authority=authority), "MX")

    assert answer.outcome == "empty"
    assert answer.ttl_s == ttl_s


def test_reference_is_no_answer() -> None:
    """A message that only names other servers knows nothing of the name."""
    answer = read(message_of(authority=NS), "MX")

    assert answer.outcome == "failed"


def test_null_mx_is_an_empty_name() -> None:
    """The root as a mail host is read as a preference without a name."""
    answer = read(message_of(("shop.test.", "MX", "0 .")), "MX")

    assert answer.records == ("0 ",)


def test_names_with_odd_bytes_stay_escaped() -> None:
    """Bytes that are no letters reach nobody unescaped."""
    answer = read(message_of(("shop.test.", "MX", "10 a\\000\\010b\\032c.test.")), "MX")

    assert answer.records[0].isprintable()
    assert "\\" in answer.records[0]


def test_message_of_another_kind_is_a_failure() -> None:
    """Only the answer to a query answers a query; a notice of a change does not."""
    notice = message_of()
    notice.flags |= dns.opcode.to_flags(dns.opcode.NOTIFY)
    message = dns.message.from_wire(notice.to_wire())

    answer = read(message, "MX")

    assert answer.outcome == "failed"

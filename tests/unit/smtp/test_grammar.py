"""Grammar: what MAIL and RCPT may say."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mta.model.envelope import Recipient
from mta.smtp import grammar, replies
from mta.smtp.grammar import CommandError, Mail, hello_name, parse_mail, parse_rcpt, quick_mail, quick_rcpt

HOST = "mail.example.com"
LONG_LABEL = "a" * 63
LONG_DOMAIN = ".".join([LONG_LABEL, LONG_LABEL, LONG_LABEL, "b" * 43])  # 235: with a local part of 18, 254


def rcpt(path: str, *, smtputf8: bool = False, japan: bool = False) -> Recipient:
    return parse_rcpt(f"TO:{path}".encode(), hostname=HOST, smtputf8=smtputf8, japan=japan)


def refusal_of_rcpt(path: str, **more: bool) -> bytes:
    with pytest.raises(CommandError) as refused:
        rcpt(path, **more)
    return refused.value.reply


def refusal_of_mail(args: str, *, japan: bool = False) -> bytes:
    with pytest.raises(CommandError) as refused:
        parse_mail(args.encode(), japan=japan)
    return refused.value.reply


@pytest.mark.parametrize(
    ("path", "address", "domain"),
    [
        ("<a@b.example>", "a@b.example", "b.example"),
        (" <a@b.example>", "a@b.example", "b.example"),
        ("<A.B+c@B.Example>", "A.B+c@B.Example", "b.example"),
        ("<!#$%&'*+-/=?^_`{|}~@b>", "!#$%&'*+-/=?^_`{|}~@b", "b"),
        ("<a%b@c.example>", "a%b@c.example", "c.example"),
        ("<c!b!a@c.example>", "c!b!a@c.example", "c.example"),
        ('<"a"@b.example>', "a@b.example", "b.example"),
        ('<"a.b"@b.example>', "a.b@b.example", "b.example"),
        ('<"a b"@b.example>', '"a b"@b.example', "b.example"),
        ('<"a\\b"@b.example>', "ab@b.example", "b.example"),
        ('<"a\\"b"@b.example>', '"a\\"b"@b.example', "b.example"),
        ('<"a\\\\b"@b.example>', '"a\\\\b"@b.example', "b.example"),
        ('<"a@b"@c.example>', '"a@b"@c.example', "c.example"),
        ('<">"@c.example>', '">"@c.example', "c.example"),
        ('<"a..b"@c.example>', '"a..b"@c.example', "c.example"),
        ('<""@c.example>', '""@c.example', "c.example"),
        ("<a@[192.0.2.1]>", "a@[192.0.2.1]", "[192.0.2.1]"),
        ("<a@[IPv6:2001:DB8::1]>", "a@[IPv6:2001:DB8::1]", "[IPv6:2001:db8::1]"),
        ("<a@[ipv6:::1]>", "a@[ipv6:::1]", "[IPv6:::1]"),
        ("<@x.example,@y.example:a@b.example>", "a@b.example", "b.example"),
        ("<postmaster>", "postmaster@mail.example.com", "mail.example.com"),
        ("<PostMaster>", "PostMaster@mail.example.com", "mail.example.com"),
        ("<a@xn--bcher-kva.example>", "a@xn--bcher-kva.example", "xn--bcher-kva.example"),
        (f"<{'a' * 18}@{LONG_DOMAIN}>", f"{'a' * 18}@{LONG_DOMAIN}", LONG_DOMAIN),
        (f"<{'a' * 64}@b>", f"{'a' * 64}@b", "b"),
    ],
)
def test_a_good_recipient(path, address, domain):
    """RFC 5321 4.1.2: the address as it goes on, and the domain to route by."""
    assert rcpt(path) == Recipient(address, domain)


@pytest.mark.parametrize(
    "path",
    [
        "<>",
        "<a>",
        "<@b>",
        "<a@>",
        "<a@b.example",
        "<a@@b>",
        "<a@b@c>",
        "<a b@c>",
        "<.a@b>",
        "<a.@b>",
        "<a..b@c>",
        "<a@b.example.>",
        "<a@.b>",
        "<a@b..c>",
        "<a@-b.example>",
        "<a@b-.example>",
        "<a@b_c.example>",
        "<a@b c>",
        "<a@(b)c>",
        '<"a@b>',
        '<"a"b@c>',
        '<"a"."b"@c>',
        "<a@[192.0.2.256]>",
        "<a@[192.0.2]>",
        "<a@[192.0.2.01]>",
        "<a@[IPv6:fe80::1%eth0]>",
        "<a@[2001:db8::1]>",
        "<a@[x-tag:abc]>",
        "<a@[192.0.2.1>",
        "<a@192.0.2.1]>",
        "<@x.example:>",
        "<@x..example:a@b>",
        "<x.example:a@b>",
        "<@x.example:postmaster>",
        f"<a@{'b' * 64}>",
        f"<{'a' * 65}@b>",
        f"<{'a' * 19}@{LONG_DOMAIN}>",
        f"<a@{'.'.join(['bcd'] * 64)}>",
        "<a@b>c",
        "<a,b@c>",
        "<a:b@c>",
        "<a;b@c>",
        "<<a@b>>",
    ],
)
def test_a_bad_recipient(path):
    """The address is wrong, and the reply says that it is the recipient's."""
    assert refusal_of_rcpt(path) == replies.BAD_RECIPIENT


@pytest.mark.parametrize("path", ["", " ", "a@b.example", "a@b.example>", "postmaster"])
def test_what_has_no_angle_bracket_is_bad_syntax(path):
    """It is the command that went wrong, not an address."""
    assert refusal_of_rcpt(path) == replies.BAD_SYNTAX


@pytest.mark.parametrize("args", [b"FROM:<a@b>", b"TO <a@b>", b"<a@b>", b"", b"T"])
def test_rcpt_needs_its_keyword(args):
    """RCPT is followed by TO and a colon."""
    with pytest.raises(CommandError) as refused:
        parse_rcpt(args, hostname=HOST)

    assert refused.value.reply == replies.BAD_SYNTAX


def test_keywords_may_be_in_any_case():
    """RFC 5321 2.4."""
    assert parse_rcpt(b"to:<a@b.example>", hostname=HOST).address == "a@b.example"
    assert parse_mail(b"From:<a@b.example> size=7 body=8bitmime smtputf8") == Mail("a@b.example", 7, True, True)


def test_the_null_sender():
    """`<>` is for MAIL only (RFC 5321 4.5.5)."""
    assert parse_mail(b"FROM:<>") == Mail("")
    assert parse_mail(b"FROM:<> SIZE=10") == Mail("", 10)


def test_postmaster_without_a_domain_is_for_rcpt_only():
    """RFC 5321 4.1.1.3."""
    assert refusal_of_mail("FROM:<postmaster>") == replies.BAD_SENDER
    assert refusal_of_rcpt("<webmaster>") == replies.BAD_RECIPIENT


def test_a_bad_sender_has_a_code_of_its_own():
    """501 5.1.7 where RCPT says 5.1.3."""
    assert refusal_of_mail("FROM:<a..b@c>") == replies.BAD_SENDER
    assert refusal_of_mail("FROM:a@b") == replies.BAD_SYNTAX


@pytest.mark.parametrize(
    ("words", "reply"),
    [
        ("SIZE", replies.BAD_PARAMETER),
        ("SIZE=", replies.BAD_PARAMETER),
        ("SIZE=-1", replies.BAD_PARAMETER),
        ("SIZE=1e3", replies.BAD_PARAMETER),
        ("SIZE=" + "1" * 21, replies.BAD_PARAMETER),
        ("SIZE=1 SIZE=1", replies.PARAMETER_TWICE),
        ("SIZE=1 size=2", replies.PARAMETER_TWICE),
        ("BODY", replies.BAD_PARAMETER),
        ("BODY=BINARYMIME", replies.BAD_PARAMETER),
        ("SMTPUTF8=1", replies.BAD_PARAMETER),
        ("SMTPUTF8 SMTPUTF8", replies.PARAMETER_TWICE),
        ("=1", replies.BAD_PARAMETER),
        ("A=b=c", replies.BAD_PARAMETER),
        ("-A=1", replies.BAD_PARAMETER),
        ("XYZ=1", replies.UNKNOWN_PARAMETER),
        ("RET=FULL", replies.UNKNOWN_PARAMETER),
        ("AUTH=<>", replies.UNKNOWN_PARAMETER),
    ],
)
def test_parameters_that_are_refused(words, reply):
    """501 for those that are wrong, 555 for those that we do not know (RFC 5321 4.1.1.11)."""
    assert refusal_of_mail(f"FROM:<a@b> {words}") == reply


def test_rcpt_takes_no_parameters():
    """NOTIFY and ORCPT are not offered."""
    assert refusal_of_rcpt("<a@b> NOTIFY=NEVER") == replies.UNKNOWN_PARAMETER
    assert refusal_of_rcpt("<a@b> =") == replies.BAD_PARAMETER


def test_body_7bit_is_known():
    """RFC 6152 2."""
    assert parse_mail(b"FROM:<a@b>  BODY=7BIT") == Mail("a@b")


@pytest.mark.parametrize(
    ("path", "address", "domain"),
    [
        ("<用戶@例え.jp>", "用戶@例え.jp", "xn--r8jz45g.jp"),
        ("<a@BÜCHER.example>", "a@BÜCHER.example", "xn--bcher-kva.example"),
        ("<a@bu\u0308cher.example>", "a@bu\u0308cher.example", "xn--bcher-kva.example"),
        ('<"ö b"@c.example>', '"ö b"@c.example', "c.example"),
        ('<"ö"@c.example>', "ö@c.example", "c.example"),
    ],
)
def test_an_address_beyond_ascii(path, address, domain):
    """RFC 6531 3.3: it goes on as it came and is routed by A-labels."""
    assert rcpt(path, smtputf8=True) == Recipient(address, domain)


@pytest.mark.parametrize("path", ["<用戶@b.example>", "<a@例え.jp>", "<@例え.jp:a@b>"])
def test_an_address_beyond_ascii_needs_smtputf8(path):
    """553 5.6.7 without it."""
    assert refusal_of_rcpt(path) == replies.NEEDS_SMTPUTF8
    assert refusal_of_mail(f"FROM:{path}") == replies.NEEDS_SMTPUTF8


@pytest.mark.parametrize(
    "path",
    [
        "<a@例え。jp>",  # a full stop that is none
        "<a@\u200bb.example>",
        "<a@例え_.jp>",
        "<a@-ü.example>",
        f"<a@{'ü' * 64}.example>",
        f"<a@{'ü' * 60}例え.example>",
        f"<{'ü' * 33}@b.example>",
        f"<a@{'.'.join('ü' * 40)}>",  # short as it stands, over 255 bytes as A-labels
        "<\x85@b.example>",
    ],
)
def test_a_bad_address_beyond_ascii(path):
    """No invisible letters, no foreign dots; the limits count bytes."""
    assert refusal_of_rcpt(path, smtputf8=True) == replies.BAD_RECIPIENT


@pytest.mark.parametrize(
    ("path", "address"),
    [
        ("<a..b@docomo.ne.jp>", '"a..b"@docomo.ne.jp'),
        ("<a.@ezweb.ne.jp>", '"a."@ezweb.ne.jp'),
        ("<.a@ezweb.ne.jp>", '".a"@ezweb.ne.jp'),
        ("<a.b@docomo.ne.jp>", "a.b@docomo.ne.jp"),
        ('<"a..b"@docomo.ne.jp>', '"a..b"@docomo.ne.jp'),
    ],
)
def test_japanese_addresses_go_on_quoted(path, address):
    """In use since before 2009; quoted they are lawful."""
    assert rcpt(path, japan=True).address == address
    assert parse_mail(f"FROM:{path}".encode(), japan=True).sender == address


@pytest.mark.parametrize("path", ["<a b@docomo.ne.jp>", "<@docomo.ne.jp>", f"<{'a.' * 32}@docomo.ne.jp>"])
def test_japanese_addresses_are_not_any_address(path):
    """Dots anywhere, nothing else; the quotes count in the 64 bytes."""
    assert refusal_of_rcpt(path, japan=True) == replies.BAD_RECIPIENT


@given(st.text(alphabet='abAB09.@<>"\\ -_[]:,%!=ü例\u3002', max_size=30), st.booleans(), st.booleans())
def test_whatever_stands_in_the_brackets_there_is_an_address_or_a_refusal(text, smtputf8, japan):
    """No other exception; and what was accepted is accepted again in the form that goes on, unchanged."""
    try:
        accepted = rcpt(f"<{text}>", smtputf8=smtputf8, japan=japan)
    except CommandError as refused:
        assert refused.reply.startswith((b"501 5.", b"553 5.6.7", b"555 5.5.4"))  # noqa: PT017 - both ways are right
        return

    again = rcpt(f"<{accepted.address}>", smtputf8=smtputf8)

    assert again == accepted
    assert accepted.domain.isascii()


LOCALS = st.text(alphabet="abZ9.-+_", min_size=0, max_size=8) | st.just("l" * 64) | st.just("l" * 65)
DOMAINS = st.text(alphabet="abZ9.-_", max_size=10) | st.sampled_from([LONG_DOMAIN, "b" * 64, "b" * 63, "x.example"])
WORDS = st.sampled_from(["", " SIZE=1", " SIZE=" + "9" * 20, " SIZE=" + "9" * 21, " size=5 body=8BITMIME", " SMTPUTF8"])


@given(LOCALS, DOMAINS, WORDS, st.sampled_from(["MAIL FROM:", "mail FROM:", "MAIL FROM: "]))
@example("a", "b", " BODY=8BITMIME", "MAIL FROM:")
@example("a" * 19, LONG_DOMAIN, "", "MAIL FROM:")
def test_the_quick_way_through_mail_says_what_the_grammar_says(local, domain, words, command):
    """Where it speaks at all; and it speaks for no line that the grammar refuses."""
    line = f"{command}<{local}@{domain}>{words}\r\n".encode()

    quick = quick_mail(b"NOOP\r\n" + line, 6)

    if quick is not None:
        assert quick == (parse_mail(line[5:-2]), 6 + len(line))


@given(LOCALS, DOMAINS, st.sampled_from(["RCPT TO:", "rcpt TO:", "RCPT TO: "]), st.sampled_from(["", " X=1"]))
@example("a" * 18, LONG_DOMAIN, "RCPT TO:", "")
@example("a" * 19, LONG_DOMAIN, "RCPT TO:", "")
def test_the_quick_way_through_rcpt_says_what_the_grammar_says(local, domain, command, words):
    """Where it speaks at all; and it speaks for no line that the grammar refuses."""
    line = f"{command}<{local}@{domain}>{words}\r\n".encode()

    quick = quick_rcpt(b"NOOP\r\n" + line, 6)

    if quick is not None:
        assert quick == (parse_rcpt(line[5:-2], hostname=HOST), 6 + len(line))


def test_the_quick_way_is_taken():
    """It knows the usual forms, in both the cases that clients write."""
    assert quick_mail(b"MAIL FROM:<a.b@c.example> SIZE=10 BODY=8BITMIME\r\n", 0) == (
        Mail("a.b@c.example", 10, True),
        49,
    )
    assert quick_mail(b"mail from:<a@c>\r\n", 0) == (Mail("a@c"), 17)
    assert quick_rcpt(b"rcpt TO:<a@C.example>\r\n", 0) == (Recipient("a@C.example", "c.example"), 23)


def test_the_quick_way_needs_the_whole_line():
    """What is cut, or ends with a bare LF, is left to the rest."""
    assert quick_rcpt(b"RCPT TO:<a@b>\r", 0) is None
    assert quick_rcpt(b"RCPT TO:<a@b>\n", 0) is None
    assert quick_mail(b"MAIL FROM:<a@b>\r\r\n", 0) is None


def test_the_cache_of_domains_is_bounded():
    """A million domains seen are not a million domains kept."""
    assert grammar._ascii_domain.cache_info().maxsize == grammar.DOMAIN_CACHE_ENTRIES_MAX


@pytest.mark.parametrize("name", [b"a.example", b"PC_1", b"localhost", b"[192.0.2.1]", b"[IPv6:2001:db8::1]"])
def test_names_to_say_hello_with(name):
    """Names are not proved, only kept safe to repeat (RFC 5321 4.1.4)."""
    assert hello_name(name) == name.decode()


@pytest.mark.parametrize("name", [b"", b"a b", b"a(b)", b"<a>", b"a;b", b"[1.2.3.4", b"a\\b", b"b" * 256, "ü".encode()])
def test_names_that_no_trace_line_could_bear(name):
    """501, and the session goes on."""
    with pytest.raises(CommandError) as refused:
        hello_name(name)

    assert refused.value.reply == replies.BAD_HELLO


@pytest.mark.parametrize(
    ("command", "clean"),
    [(b"NOOP", True), ("NOOP ü".encode(), True), (b"A\tB", False), (b"\xff", False), ("\x9f".encode(), False)],
)
def test_control_characters_and_broken_utf8_are_not_clean(command, clean):
    """They are refused before any verb is looked for."""
    assert grammar.is_clean(command) is clean


@pytest.mark.parametrize(
    ("args", "given"),
    [
        (b"TO:<a@b> X", "a@b"),
        (b"TO: a@b", "a@b"),
        (b"zzz", ""),
        (b"TO:<\xff>", "\\xff"),
        (b"TO:" + b"x" * 999, "x" * 320),
    ],
)
def test_an_address_is_told_as_it_was_given(args, given):
    """Without its brackets, printable, and cut to a bearable length."""
    assert grammar.address_as_given(args) == given

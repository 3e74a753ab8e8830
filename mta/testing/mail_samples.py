"""Messages as applications write them: several hundred different ones from a seed, for whoever reads or signs mail.

    for content in mail_samples(300, seed=1):
        ...                                   # CRLF line ends, header, empty line, body; From @shop.test

What varies is what breaks signatures: folding, blanks, tabs, empty lines at the end, missing bodies, 8-bit text,
Japanese in ISO-2022-JP, multiparts, long lines, odd spellings of names, fields that come more than once.
"""

import base64
from collections.abc import Callable, Iterator
from random import Random
from typing import Final

LONG_LINE_CHARS = 990  # just below RFC 5322 2.1.1

_TEXT: Final = (
    "order invoice price today shop sale delivery question answer basket colour size new autumn letter thanks "
    "https://shop.test/a?b=c&d=%20 50% =20 . .. ... -- 1,234.56 <b> </b> &nbsp; été grüße 今日"
)
_WORDS: Final = _TEXT.split()
_NAMES: Final = ("Shop", '"Shop, the"', "=?utf-8?Q?Caf=C3=A9?=", "=?ISO-2022-JP?B?GyRCRTlKXhsoQg==?=", "Łódź", "")
_JAPANESE: Final = (
    "本日はご注文ありがとうございます。",
    "商品は明日発送いたします。",
    "お問い合わせはこちらへ。",
)


def mail_samples(count: int, seed: int = 1) -> list[bytes]:
    """That many messages, the same ones for the same seed."""
    random = Random(seed)
    return [_message(random, number) for number in range(count)]


def _message(random: Random, number: int) -> bytes:
    """The kinds of body come in turn, so that a few dozen messages have all of them."""
    fields, body = _BODIES[number % len(_BODIES)](random)
    header = [*_address_fields(random), *_thread_fields(random, number), *_list_fields(random), *fields]
    if random.random() < 0.3:
        random.shuffle(header)
    lines = [_field(random, name, value) for name, value in header]
    if body is None:
        return b"".join(lines) + (b"\r\n" if random.random() < 0.5 else b"")
    return b"".join(lines) + b"\r\n" + body


def _address_fields(random: Random) -> Iterator[tuple[str, str]]:
    for each in range(random.choice((0, 1, 3))):
        yield (
            "Received",
            f"from host{each}.shop.test (unknown [192.0.2.{each}])\r\n\tby mail.shop.test; Sun, 22 Nov 2026",
        )
    yield "From", f"{random.choice(_NAMES)} <news@{random.choice(('', 'mail.', 'a.b.'))}shop.test>".strip()
    many = ",\r\n ".join(f"reader{each}@example.test" for each in range(random.choice((1, 1, 2, 30))))
    yield "To", random.choice((many, "undisclosed-recipients:;", "Reader <reader@example.test>"))
    if random.random() < 0.2:
        yield "Cc", "one@example.test,\r\n\ttwo@example.test"
    if random.random() < 0.3:
        yield "Reply-To", "<answers@shop.test>"
    if random.random() < 0.1:
        yield "Sender", "list@shop.test"


def _thread_fields(random: Random, number: int) -> Iterator[tuple[str, str]]:
    subjects = (
        "Your order",
        "",
        "   three blanks    between \t words   ",
        "=?utf-8?B?44GT44KT44Gr44Gh44Gv?=\r\n =?utf-8?B?5LiW55WM?=",
        "Grüße aus Łódź, 今日は",
        "a colon: and another: one",
        "folded\r\n\t \t twice\r\n     over",
        "x" * LONG_LINE_CHARS,
        "an empty fold\r\n \r\n behind it",
    )
    yield "Subject", random.choice(subjects)
    yield "Date", "Sun, 22 Nov 2026 02:57:26 +0000 (UTC)"
    yield "Message-ID", f"<{number}.{random.getrandbits(64):x}@shop.test>"
    if random.random() < 0.2:
        yield "In-Reply-To", "<first@example.test>"
        yield "References", "\r\n ".join(f"<{each}@example.test>" for each in range(random.randint(1, 12)))
    if random.random() < 0.1:
        yield "Comments", "one"
        yield "Comments", "two"
    yield "X-Campaign", random.choice(("spring", "", "  "))


def _list_fields(random: Random) -> Iterator[tuple[str, str]]:
    if random.random() < 0.5:
        return
    token = base64.urlsafe_b64encode(random.randbytes(random.choice((12, 200)))).decode()
    yield "List-Id", "Letters of the shop <letters.shop.test>"
    yield "List-Unsubscribe", f"<mailto:leave@shop.test?subject={token}>,\r\n <https://shop.test/u/{token}>"
    yield "List-Unsubscribe-Post", "List-Unsubscribe=One-Click"
    yield "Feedback-ID", "spring:shop:news:mta"
    if random.random() < 0.3:
        yield "List-Help", "<https://shop.test/help>"
        yield "Precedence", "bulk"
        yield "Auto-Submitted", "auto-generated"


def _field(random: Random, name: str, value: str) -> bytes:
    """With the spellings that are seen: odd case, no blank behind the colon or many, a fold right there."""
    chance = random.random()
    if chance < 0.05:
        name = name.upper()
    elif chance < 0.1:
        name = name.lower()
    colon = random.choices((": ", ":", ":\t", ":   ", ":\r\n "), (20, 2, 1, 1, 1))[0]
    if not value.strip():
        colon = colon.replace("\r\n", "")
    blank = random.choices(("", " ", "\t \t"), (20, 1, 1))[0]
    return f"{name}{colon}{value}{blank}\r\n".encode()


_Body = tuple[list[tuple[str, str]], bytes | None]


def _plain(random: Random) -> _Body:
    return _text_fields("utf-8", "8bit"), _lines(random, random.randint(1, 60))


def _spaced(random: Random) -> _Body:
    """Blanks and tabs everywhere, also where nobody sees them."""
    lines = _lines(random, random.randint(1, 30)).split(b"\r\n")
    blanks = (b"", b" ", b"  ", b"\t", b" \t ", b" " * 70)
    body = b"\r\n".join(random.choice(blanks) + line + random.choice(blanks) for line in lines)
    return _text_fields("utf-8", "8bit"), body + b"\r\n"


def _html(random: Random) -> _Body:
    """Indented as template engines leave it."""
    rows = (
        f'{" " * random.choice((0, 2, 4, 8, 12))}<td class="c{each}">{random.choice(_WORDS)}</td>'
        for each in range(random.randint(5, 120))
    )
    body = "<!doctype html>\r\n<table>\r\n" + "\r\n".join(rows) + "\r\n\r\n\r\n</table>\r\n"
    return [("MIME-Version", "1.0"), ("Content-Type", 'text/html; charset="utf-8"')], body.encode()


def _trailing(random: Random) -> _Body:
    """Empty lines at the end, some with blanks on them."""
    ends = (b"\r\n", b" \r\n", b"\t\t\r\n", b"\r\n\r\n\r\n")
    return [], _lines(random, 3) + b"".join(random.choices(ends, k=random.randint(1, 40)))


def _nothing(random: Random) -> _Body:
    """No text: no body at all, an empty one, one of blanks or of empty lines."""
    return [], random.choice((None, b"", b"\r\n", b"\r\n" * 9, b"  \r\n", b" \t\r\n \r\n"))


def _unended(random: Random) -> _Body:
    """The last line has no line end."""
    return [], _lines(random, 4).rstrip(b"\r\n") + random.choice((b"", b"\r\n\r\n.", b"\r\nx"))


def _japanese(random: Random) -> _Body:
    text = "\r\n".join(random.choices(_JAPANESE, k=random.randint(1, 20))) + "\r\n"
    return _text_fields("ISO-2022-JP", "7bit"), text.encode("iso2022_jp")


def _eight_bit(random: Random) -> _Body:
    """Every byte but those that end lines, in no charset that anybody knows."""
    body = random.randbytes(random.randint(1, 3000)).translate(None, b"\r\n\0")
    return _text_fields("x-unknown", "8bit"), b"\r\n".join(body[at : at + 200] for at in range(0, 3000, 200)) + b"\r\n"


def _long_lines(random: Random) -> _Body:
    blanks = (b" ", b"  ", b"")
    line = random.choice(blanks).join([b"long"] * 300)[:LONG_LINE_CHARS]
    return [], b"\r\n".join([line] * random.randint(1, 5)) + b"\r\n"


def _dots(random: Random) -> _Body:
    lines = random.choices((b".", b"..", b".x", b"", b". .", b"-- ", b"From me"), k=random.randint(1, 30))
    return [], b"\r\n".join(lines) + b"\r\n"


def _multipart(random: Random) -> _Body:
    boundary = f"=_{random.getrandbits(80):x}"
    file = base64.encodebytes(random.randbytes(random.randint(10, 20_000))).replace(b"\n", b"\r\n")
    parts = (
        b"Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\n" + _lines(random, 5),
        b"Content-Type: application/pdf;\r\n\tname=a.pdf\r\nContent-Transfer-Encoding: base64\r\n\r\n" + file,
    )
    mark = b"--" + boundary.encode()
    body = b"This is MIME.\r\n" + b"".join(mark + b"\r\n" + part + b"\r\n" for part in parts) + mark + b"--\r\n"
    kind = f'multipart/mixed;\r\n\tboundary="{boundary}"'
    return [("MIME-Version", "1.0 (made by hand)"), ("Content-Type", kind)], body


def _text_fields(charset: str, encoding: str) -> list[tuple[str, str]]:
    kind = f"text/plain;\r\n charset={charset}"
    return [("MIME-Version", "1.0"), ("Content-Type", kind), ("Content-Transfer-Encoding", encoding)]


def _lines(random: Random, count: int) -> bytes:
    lines = (" ".join(random.choices(_WORDS, k=random.randint(0, 12))) for _ in range(count))
    return "".join(f"{line}\r\n" for line in lines).encode()


_BODIES: Final[tuple[Callable[[Random], _Body], ...]] = (
    _plain,
    _spaced,
    _html,
    _trailing,
    _nothing,
    _unended,
    _japanese,
    _eight_bit,
    _long_lines,
    _dots,
    _multipart,
)

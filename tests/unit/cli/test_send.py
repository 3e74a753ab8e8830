"""`mta send`: one message to a server, and what the user is told; against aiosmtpd, which is not ours."""

import email
import io
import socket
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from email import policy
from email.message import EmailMessage
from pathlib import Path

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, Envelope, Session
from hypothesis import given
from hypothesis import strategies as st

from mta.cli import main
from mta.cli.send import SendError, build, is_message, parse_server

ENDS = ["--from", "a@shop.test", "--to", "b@x.test"]


@dataclass
class Desk:
    """Takes mail; refuses recipients that begin with `no`, senders that begin with `bad`, and what says REFUSE."""

    taken: list[Envelope] = field(default_factory=list)

    async def handle_MAIL(  # noqa: N802 - aiosmtpd's names
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        if address.startswith("bad"):
            return "553 5.1.8 not from you"
        envelope.mail_from = address
        envelope.mail_options += options
        return "250 2.1.0 fine"

    async def handle_RCPT(  # noqa: N802
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        if address.startswith("no"):
            return "550 5.1.1 nobody here"
        envelope.rcpt_tos.append(address)
        return "250 2.1.5 fine"

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802
        assert isinstance(envelope.content, bytes)
        if b"REFUSE" in envelope.content:
            return "554 5.6.0 not this"
        self.taken.append(envelope)
        return "250 2.0.0 queued as 01jxyz"


class Server(Controller):
    """aiosmtpd at a port of the system's choice."""

    def factory(self) -> SMTP:
        return SMTP(self.handler, enable_SMTPUTF8=True, hostname="desk.test")


@pytest.fixture
def desk() -> Iterator[tuple[Desk, str]]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    desk = Desk()
    controller = Server(desk, hostname="127.0.0.1", port=port)
    controller.start()
    yield desk, f"127.0.0.1:{port}"
    controller.stop()


def type_in(monkeypatch: pytest.MonkeyPatch, data: bytes) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))


def content_of(envelope: Envelope) -> bytes:
    assert isinstance(envelope.content, bytes)
    return envelope.content


def parsed(content: bytes) -> EmailMessage:
    return email.message_from_bytes(content, policy=policy.default)  # pyright: ignore[reportReturnType]


# -- over sockets --


def test_text_becomes_a_message(
    desk: tuple[Desk, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A text from standard input gets the header fields that a message has; the reply with the id is printed."""
    type_in(monkeypatch, "Grüße\n.\nEnde\n".encode())

    status = main(["send", *ENDS, "--to", "c@y.test", "--subject", "Hallo", "--server", desk[1]])

    assert status == 0
    assert capsys.readouterr().out == "250 2.0.0 queued as 01jxyz\n"
    (envelope,) = desk[0].taken
    assert envelope.mail_from == "a@shop.test"
    assert envelope.rcpt_tos == ["b@x.test", "c@y.test"]
    message = parsed(content_of(envelope))
    assert message["Subject"] == "Hallo"
    assert message["To"] == "b@x.test, c@y.test"
    assert message["Message-ID"].endswith("@shop.test>")
    assert message.get_content().split() == ["Grüße", ".", "Ende"]


def test_whole_message_is_sent_as_it_is(desk: tuple[Desk, str], tmp_path: Path) -> None:
    """A file with header fields gets nothing but CRLF line ends, and the fields of --header on top."""
    file = tmp_path / "message.eml"
    file.write_bytes(b"From: x@y.test\nSubject: eins\n zwei\n\n.dot\nbytes \xe9\n")

    status = main(["send", *ENDS, "--server", desk[1], "--header", "X-MTA-Priority: 9", str(file)])

    assert status == 0
    (envelope,) = desk[0].taken
    assert content_of(envelope) == (
        b"X-MTA-Priority: 9\r\nFrom: x@y.test\r\nSubject: eins\r\n zwei\r\n\r\n.dot\r\nbytes \xe9\r\n"
    )
    assert "BODY=8BITMIME" in envelope.mail_options


def test_null_sender(desk: tuple[Desk, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """The sender may be empty, as in bounces."""
    type_in(monkeypatch, b"text")

    status = main(["send", "--from", "", "--to", "b@x.test", "--server", desk[1]])

    assert status == 0
    assert desk[0].taken[0].mail_from == "<>"


def test_addresses_in_utf8(desk: tuple[Desk, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """An address that is not ASCII is sent with SMTPUTF8."""
    type_in(monkeypatch, b"text")

    status = main(["send", "--from", "a@shop.test", "--to", "jürgen@x.test", "--server", desk[1]])

    assert status == 0
    assert desk[0].taken[0].rcpt_tos == ["jürgen@x.test"]
    assert "SMTPUTF8" in desk[0].taken[0].mail_options


def test_some_recipients_refused(
    desk: tuple[Desk, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Who was refused is told on standard error; the others get the message, and the status is 1."""
    type_in(monkeypatch, b"text")

    status = main(["send", *ENDS, "--to", "nobody@x.test", "--server", desk[1]])

    said = capsys.readouterr()
    assert status == 1
    assert said.out == "250 2.0.0 queued as 01jxyz\n"
    assert said.err == "mta send: nobody@x.test: 550 5.1.1 nobody here\n"
    assert desk[0].taken[0].rcpt_tos == ["b@x.test"]


@pytest.mark.parametrize(
    ("sender", "recipient", "text", "said"),
    [
        ("a@shop.test", "nobody@x.test", b"text", "nobody@x.test: 550 5.1.1 nobody here"),
        ("bad@shop.test", "b@x.test", b"text", "says 553 5.1.8 not from you"),
        ("a@shop.test", "b@x.test", b"REFUSE", "says 554 5.6.0 not this"),
    ],
)
def test_everything_refused(
    desk: tuple[Desk, str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    sender: str,
    recipient: str,
    text: bytes,
    said: str,
) -> None:
    """A refusal at any stage gives status 1 and the server's words, and nothing on standard output."""
    type_in(monkeypatch, text)

    status = main(["send", "--from", sender, "--to", recipient, "--server", desk[1]])

    output = capsys.readouterr()
    assert status == 1
    assert output.out == ""
    assert said in output.err
    assert desk[0].taken == []


def test_no_server(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Where nobody listens the status is 69; the address is named once, and the reason."""
    type_in(monkeypatch, b"text")
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]

        status = main(["send", *ENDS, "--server", f"127.0.0.1:{port}"])

    assert status == 69
    assert capsys.readouterr().err == f"mta send: no server answers at 127.0.0.1:{port}: Connection refused\n"


def test_server_of_the_configuration(desk: tuple[Desk, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without --server the configuration's first listener is asked; one that listens everywhere, at loopback."""
    type_in(monkeypatch, b"text")
    file = tmp_path / "mta.toml"
    port = desk[1].rpartition(":")[2]
    file.write_text(f'[[listener]]\naddress = "0.0.0.0:{port}"\n[[listener]]\naddress = "127.0.0.1:1"\n')

    status = main(["send", *ENDS, "--config", str(file)])

    assert status == 0
    assert len(desk[0].taken) == 1


def test_wrong_configuration(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Mistakes in the configuration are listed with file and line."""
    file = tmp_path / "mta.toml"
    file.write_text('[[listener]]\naddres = "127.0.0.1:25"\n')

    status = main(["send", *ENDS, "--config", str(file)])

    assert status == 1
    assert f"{file}:2" in capsys.readouterr().err


# -- before any socket --


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["--server", "nonsense", "-"], 2, "is not a server"),
        (["--server", "127.0.0.1:0", "-"], 2, "is not a server"),
        (["--server", "127.0.0.1:1", "/no/such/file"], 1, "/no/such/file: No such file"),
        (["--server", "127.0.0.1:1", "--header", "nonsense", "-"], 2, "is not a header field"),
        (["--server", "127.0.0.1:1", "--header", "A: b\nC: d", "-"], 2, "is not a header field"),
    ],
)
def test_mistakes_are_told(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    status: int,
    said: str,
) -> None:
    """What cannot be done is told in one line, before anybody is asked."""
    type_in(monkeypatch, b"text")

    ended = main(["send", *ENDS, *arguments])

    error = capsys.readouterr().err
    assert ended == status
    assert error.startswith("mta send: ")
    assert said in error


@pytest.mark.parametrize(
    ("text", "server"),
    [
        ("127.0.0.1:2525", ("127.0.0.1", 2525)),
        ("[::1]:587", ("::1", 587)),
        ("mail.example:25", ("mail.example", 25)),
    ],
)
def test_servers_are_read(text: str, server: tuple[str, int]) -> None:
    """Addresses of both families and names, always with a port."""
    assert parse_server(text) == server


@pytest.mark.parametrize(
    ("data", "yes"),
    [
        (b"From: a\n\ntext", True),
        (b"From: a\n", True),
        (b"From: a\n more\nX-Y:b\n\ntext", True),
        (b"", False),
        (b"Hello,\n\nyou", False),
        (b"Note: this\nis a text\n\nof mine", False),
        (b" From: a\n\n", False),
        (b"\nFrom: a\n", False),
    ],
)
def test_what_is_a_message(data: bytes, yes: bool) -> None:
    """A message begins with header fields and a blank line; a text with a colon in its first line is none."""
    assert is_message(data.split(b"\n")) is yes


def test_subject_is_for_texts() -> None:
    """A message that has header fields keeps its own subject."""
    with pytest.raises(SendError, match="--subject is for a text") as caught:
        build(b"From: a@b.test\n\ntext", "a@b.test", ["c@d.test"], "another")

    assert caught.value.status == 2


def test_text_that_is_not_utf8() -> None:
    """Bytes whose coding nobody knows are not made into a message."""
    with pytest.raises(SendError, match="not UTF-8"):
        build(b"caf\xe9", "a@b.test", ["c@d.test"], None)


def test_subject_cannot_add_header_fields() -> None:
    """A line end in the subject is refused, not sent."""
    with pytest.raises(SendError):
        build(b"text", "a@b.test", ["c@d.test"], "x\nBcc: d@e.test")


@given(st.text(st.characters(codec="utf-8", exclude_characters="\r"), max_size=300))
def test_built_messages_have_clean_line_ends(text: str) -> None:
    """Whatever is typed: every line of what is sent ends with CRLF, and it begins with header fields."""
    content = build(text.encode(), "a@shop.test", ["b@x.test"], None)

    assert content.endswith(b"\r\n")
    assert content.count(b"\n") == content.count(b"\r\n")
    assert is_message([line.rstrip(b"\r") for line in content.split(b"\n")])

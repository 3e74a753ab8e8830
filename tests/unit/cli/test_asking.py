"""How a command reaches a running server."""

import argparse
import re
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest

from mta.admin.address import read_address
from mta.cli import asking
from mta.cli.asking import Asking, NoServerError, RefusedError
from mta.config import ConfigError
from mta.model.selection import Selection


class Page(msgspec.Struct):
    """What the server below says."""

    word: str


@contextmanager
def answering(
    raw: bytes, family: int = socket.AF_INET, where: object = ("127.0.0.1", 0)
) -> Iterator[tuple[str, list[bytes]]]:
    """A server that says the same to everybody; -> its address, and what it heard."""
    heard: list[bytes] = []
    with socket.socket(family, socket.SOCK_STREAM) as listening:
        listening.bind(where)  # type: ignore[arg-type]
        listening.listen()

        def serve() -> None:
            caller, _ = listening.accept()
            with caller:
                heard.append(_request(caller))
                caller.sendall(raw)

        thread = threading.Thread(target=serve)
        thread.start()
        name = listening.getsockname()
        yield (f"unix:{name}" if family == socket.AF_UNIX else f"{name[0]}:{name[1]}"), heard
        thread.join()


def _request(caller: socket.socket) -> bytes:
    """All of it: the body may come by itself."""
    data = b""
    while True:
        data += caller.recv(65536)
        head, blank, body = data.partition(b"\r\n\r\n")
        length = re.search(rb"Content-Length: (\d+)", head)
        if blank and len(body) >= int(length[1] if length else 0):
            return data


def said(status: str, body: bytes) -> bytes:
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode() + body


def arguments(*words: str) -> argparse.Namespace:
    return argparse.ArgumentParser(parents=[asking.options()]).parse_args(words)


def test_a_page_is_asked_for_and_read() -> None:
    """With its query and the token."""
    with answering(said("200 OK", b'{"word": "yes"}')) as (address, heard):
        page = Asking(read_address(address), "s3cret").get("/queue", Page, {"domain": "a b&c", "limit": 3})

    assert page == Page("yes")
    lines = heard[0].decode().split("\r\n")
    assert lines[0] == "GET /queue?domain=a+b%26c&limit=3 HTTP/1.1"
    assert "Authorization: Bearer s3cret" in lines


def test_what_changes_something_is_sent_as_json() -> None:
    """POST with a body, DELETE with none; no token where there is none."""
    with answering(said("200 OK", b'{"word": "yes"}')) as (address, posted):
        Asking(read_address(address)).post("/queue/hold", Page, {"domain": "a.test"})
    with answering(said("200 OK", b'{"word": "yes"}')) as (address, deleted):
        Asking(read_address(address)).delete("/suspensions/x", Page)

    assert b"Content-Type: application/json" in posted[0]
    assert posted[0].endswith(b'{"domain":"a.test"}')
    assert b"Content-Type: application/json" in deleted[0]
    assert b"Authorization" not in posted[0]


def test_a_unix_socket_is_reached(tmp_path: Path) -> None:
    """As a TCP address is."""
    with answering(said("200 OK", b'{"word": "yes"}'), socket.AF_UNIX, str(tmp_path / "a.sock")) as (address, _):
        assert Asking(read_address(address)).get("/queue", Page) == Page("yes")


def test_an_error_has_the_servers_words() -> None:
    """And its status."""
    with (
        answering(said("400 Bad Request", b'{"error": "there is no criterion"}')) as (address, _),
        pytest.raises(RefusedError, match="there is no criterion") as refused,
    ):
        Asking(read_address(address)).get("/queue", Page)

    assert refused.value.status == 400


@pytest.mark.parametrize(
    "raw", [said("200 OK", b"<html>"), said("200 OK", b"{}"), said("404 Not Found", b"<html>"), said("500 Oops", b"")]
)
def test_another_program_at_that_address_is_recognized(raw: bytes) -> None:
    """What is no page of ours is said to be none."""
    with answering(raw) as (address, _), pytest.raises(RefusedError, match="is it mta's admin address"):
        Asking(read_address(address)).get("/queue", Page)


@pytest.mark.parametrize("raw", [b"", said("200 OK", b"12345")[:-2]])
def test_a_connection_that_breaks_off_is_no_answer(raw: bytes) -> None:
    """Nobody knows what the server did."""
    with answering(raw) as (address, _), pytest.raises(NoServerError, match="broke off"):
        Asking(read_address(address)).get("/queue", Page)


@pytest.mark.parametrize("raw", [b"SSH-2.0-x\r\n", b"220 mail.test ESMTP\r\n", b"\x1b[2J" * 99 + b"\n"])
def test_what_speaks_no_http_is_another_program(raw: bytes) -> None:
    """A wrong port is told as such, with a little of what was said there."""
    with answering(raw) as (address, _), pytest.raises(NoServerError) as wrong:
        Asking(read_address(address)).get("/queue", Page)

    text = str(wrong.value)
    assert text.startswith(f"at {address} another program answers: ")
    assert text.endswith("; is it mta's admin address?")
    assert "\n" not in text
    assert len(text) < 200


@pytest.mark.parametrize("address", ["unix:/nowhere/at/all.sock", "127.0.0.1:1"])
def test_no_server(address: str) -> None:
    """One sentence that names the address and why."""
    with pytest.raises(NoServerError, match=f"no server answers at {address}: (connection refused|no such file)"):
        Asking(read_address(address)).get("/queue", Page)


def test_the_configuration_says_where(tmp_path: Path) -> None:
    """Address and token of `[admin]`."""
    config = tmp_path / "mta.toml"
    config.write_text('[admin]\naddress = "unix:run/a.sock"\ntoken = "abc"\n')

    server = asking.asking(arguments("--config", str(config)))

    assert str(server.address) == f"unix:{tmp_path}/run/a.sock"
    assert vars(server)["_token"] == "abc"


def test_a_configuration_that_is_wrong_keeps_nobody_from_asking(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """On a day on which somebody broke it the server still runs: the way around it is told."""
    config = tmp_path / "mta.toml"
    config.write_text("[admni]\n")

    with pytest.raises(ConfigError):
        asking.asking(arguments("--config", str(config)))

    assert "--admin ADDRESS asks one" in capsys.readouterr().err


def test_options_say_where_instead(tmp_path: Path) -> None:
    """No configuration is read then; the token comes from a file, without its line end."""
    (tmp_path / "token").write_text("abc\n")

    server = asking.asking(arguments("--admin", "[::1]:8025", "--token-file", str(tmp_path / "token")))

    assert (str(server.address), vars(server)["_token"]) == ("[::1]:8025", "abc")


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "there is no token in it"),
        (b" \n", "there is no token in it"),
        (b"geheim\nzwei\n", "no token: one line of text is expected"),
        (b"geheim\x1b[2J", "no token: one line of text is expected"),
        (b"geheim\xff\xfe", "no token: it is no text"),
    ],
)
def test_a_token_file_that_is_wrong_is_named(tmp_path: Path, content: bytes, sentence: str) -> None:
    """With what is wrong, and without anything that stands in it."""
    file = tmp_path / "admin.token"
    file.write_bytes(content)

    with pytest.raises(ValueError, match=sentence) as wrong:
        asking.asking(arguments("--admin", "127.0.0.1:1", "--token-file", str(file)))

    assert str(wrong.value).startswith(f"{file}: ")
    assert "geheim" not in str(wrong.value)


def test_a_token_of_two_lines_in_the_configuration(tmp_path: Path) -> None:
    """Is not shown either: the sentence names the file."""
    config = tmp_path / "mta.toml"
    config.write_text('[admin]\ntoken = "geheim\\nzwei"\n')

    with pytest.raises(ValueError, match="no token") as wrong:
        asking.asking(arguments("--config", str(config)))

    assert str(config) in str(wrong.value)
    assert "geheim" not in str(wrong.value)


def test_what_a_server_says_moves_no_cursor(capsys: pytest.CaptureFixture[str]) -> None:
    """Not even in an error or in what it says to be missing."""
    asking.failed("mta queue", RefusedError(400, "no \x1b[2J\nno"))
    asking.warn("mta queue", ["worker 1 \x1b]0;x\x07"])

    err = capsys.readouterr().err
    assert err.isascii()
    assert err.count("\n") == 2
    assert "\x1b" not in err
    assert "\x07" not in err


def test_failures_have_their_status(capsys: pytest.CaptureFixture[str]) -> None:
    """69 where nobody answers, 1 for everything else; one line each."""
    statuses = [
        asking.failed("mta queue", error)
        for error in (
            NoServerError("no server answers at x"),
            RefusedError(400, "no"),
            ValueError("not an address"),
            FileNotFoundError(2, "No such file or directory", "/t/token"),
        )
    ]

    assert statuses == [69, 1, 1, 1]
    assert capsys.readouterr().err.splitlines() == [
        "mta queue: no server answers at x",
        "mta queue: no",
        "mta queue: not an address",
        "mta queue: /t/token: No such file or directory",
    ]


def test_selections_become_queries() -> None:
    """Only what is given."""
    assert asking.query_of(Selection(domain="a.test", older_than_s=60.0)) == {"domain": "a.test", "older_than_s": 60.0}
    assert asking.query_of(Selection(all=True)) == {"all": "true"}


def test_somebody_types(monkeypatch: pytest.MonkeyPatch) -> None:
    """The user's name, and a stand-in for a user who has none."""
    monkeypatch.setattr("getpass.getuser", lambda: "k" * 300)
    assert asking.who() == "k" * 100

    def nobody() -> str:
        raise KeyError("uid not found")

    monkeypatch.setattr("getpass.getuser", nobody)
    assert asking.who() == "admin"


def test_a_policy_that_is_wrong_keeps_nobody_from_asking(tmp_path: Path) -> None:
    """Only mta.toml is read: the server still runs with what held before."""
    (tmp_path / "policies").mkdir()
    (tmp_path / "policies" / "isp.toml").write_text("[limtis]\n")
    (tmp_path / "mta.toml").write_text('[admin]\naddress = "unix:a.sock"\n[policies]\ndirectory = "policies"\n')

    server = asking.asking(arguments("--config", str(tmp_path / "mta.toml")))

    assert str(server.address) == f"unix:{tmp_path}/a.sock"

"""The picture of a rehearsal: one file that loads and runs nothing, whatever stands in the log."""

import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from mta.cli import main

START_S = 1_763_769_600.0
EVIL = "<script>alert(1)</script>"
EVIL_QUOTES = "\"><img src=x onerror='alert(1)'>&lt;\u202eevil"

TAGS = {"html", "head", "meta", "title", "style", "body", "main", "section", "footer", "h1", "h2", "h3", "p", "div"}
TAGS |= {"span", "b", "i", "small", "a", "ul", "li", "figure", "figcaption", "svg", "path", "line"}
TAGS |= {"table", "thead", "tbody", "tr", "th", "td"}
ATTRIBUTES = {"lang", "charset", "name", "content", "http-equiv", "class", "id", "href", "style", "title", "role", "d"}
ATTRIBUTES |= {"viewbox", "preserveaspectratio", "aria-label", "vector-effect", "x1", "x2", "y1", "y2"}


class Reader(HTMLParser):
    """As a browser would take it apart."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: list[tuple[str, str]] = []
        self.text = ""
        self.open: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def hostile() -> list[dict[str, Any]]:
    """Names of every kind from whoever writes into the log, one refused mail among them."""
    found: list[dict[str, Any]] = []
    for number in range(60):
        at_s = START_S + number
        domain = f"{EVIL}.test" if number % 2 else "acme.test"
        recipient = f"{EVIL_QUOTES}{number}@{domain}"
        message = {"id": f"m{number}", "sender": f"a@{EVIL}", "tenant": EVIL_QUOTES, "campaign": EVIL, "dkim": EVIL}
        way = {"domain": domain, "site": EVIL_QUOTES, "policy": EVIL, "source": EVIL, "source_address": EVIL}
        reply = {"stage": "rcpt", "code": 421, "enhanced": "4.7.28", "text": f"unusual rate {EVIL}", "rule": EVIL}
        fate = {"recipient": recipient, "attempt": 1, **message, **way}
        found.append({"event": "received", "time": at_s, "recipients": [recipient], **message})
        found.append({"event": "deferred", "time": at_s + 1.0, **fate, **reply})
        found.append({"event": "delivered", "time": at_s + 300.0, **fate, "code": 250, "stage": "content"})
    return found


@pytest.fixture
def page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> str:
    """Of a log that wants to be more than text."""
    monkeypatch.chdir(tmp_path)
    rule = '[[rule]]\nname = "acme-probe"\nwhen = { code = "421" }\n'
    rule += 'then = [{ action = "suspend", for = "5m", scope = "tenant" }]\n'
    for name in ("policies", "other"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "acme.toml").write_text(f'match = {{ domains = ["acme.test"] }}\n{rule}')
    (tmp_path / "mta.toml").write_text("")
    (tmp_path / "events.jsonl").write_text("".join(json.dumps(line) + "\n" for line in hostile()))
    arguments = ["policy", "replay", "--events", "events.jsonl", "--policies", "other", "--html", "page.html"]
    assert main(arguments) == 0
    capsys.readouterr()
    return (tmp_path / "page.html").read_text("utf-8")


def test_a_hostile_log_stays_text(page: str):
    """Only our own tags and attributes are there, well nested, and what was written is read as it was."""
    read = Reader(page)

    assert read.open == []
    assert read.tags <= TAGS
    assert {name for name, _ in read.attributes} <= ATTRIBUTES
    assert EVIL in read.text + "".join(value for _, value in read.attributes)
    assert "\u202e" not in page


def test_nothing_is_loaded_and_nothing_runs(page: str):
    """Every link is into the page, no style names an address, and the browser is told so."""
    read = Reader(page)

    assert all(value.startswith("#") for name, value in read.attributes if name in ("href", "src"))
    assert "url(" not in page
    assert "@import" not in page
    assert ("content", "default-src 'none'; style-src 'unsafe-inline'") in read.attributes


def test_it_shows_every_run_and_what_rules_did(page: str):
    """Lines and a legend for each, the firings in bars, the table with its difference."""
    read = Reader(page)
    lines = {value for name, value in read.attributes if name == "class"}

    assert {"handed-in", "recorded", "now", "new", "bars now", "bars new", "track"} <= lines
    assert "acme-probe (suspend)" in read.text
    assert "deferrals earned" in read.text
    assert "difference" in read.text
    assert "other/acme.toml:2" in read.text

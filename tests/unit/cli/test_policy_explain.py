"""`mta policy explain` beside a running server: what is in force for an address now, and what its next message would
wait for. What it says from the configuration alone is in test_policy.py."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from mta.cli import main, policy_explain
from mta.config import Config
from mta.reporting.questions import Rules
from mta.reporting.waiting import Explain, Explained, Outlook, Reason, Wait
from mta.resolve.sites import MailHosts, MxHost
from mta.testing.admin_rig import FakeAsker, face_in_thread

Printed = pytest.CaptureFixture[str]
WRITTEN = "policies/google.toml:3"
RATE = Wait("the rate of 6/min", Reason("rate", "limits.rate", "6/min", WRITTEN, next_s=4_000_000_000.0))
FIRING = Wait("f1 (rule fast ...)", Reason("rule", "rule fast", "nothing goes", WRITTEN, firing="f1"))


class FakeResolver:
    """One host for every domain."""

    async def mail_hosts(self, domain: str) -> MailHosts:
        return MailHosts(domain, (MxHost(10, f"mx.{domain}"),), False, 1.0)

    async def close(self) -> None:
        """Nothing is open."""


@pytest.fixture(autouse=True)
def resolver(monkeypatch: pytest.MonkeyPatch) -> None:
    def make(_: Config) -> FakeResolver:
        return FakeResolver()

    monkeypatch.setattr(policy_explain, "make_resolver", make)


@pytest.fixture
def asker() -> FakeAsker:
    asker = FakeAsker(workers=1)
    asker.answers[Rules] = [None]
    return asker


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mta.toml").write_text(
        f'[admin]\naddress = "unix:{tmp_path}/admin.sock"\n[[source]]\nname = "out-1"\n[[source]]\nname = "out-2"\n'
        '[[pool]]\nname = "default"\nsources = { out-1 = 1, out-2 = 1 }\n[[tenant]]\nname = "shop"\n'
    )
    return tmp_path


@pytest.fixture
def server(asker: FakeAsker, folder: Path) -> Iterator[None]:
    with face_in_thread(asker, folder):
        yield


@pytest.mark.usefixtures("server")
def test_what_the_next_message_would_wait_for(asker: FakeAsker, capsys: Printed) -> None:
    """From each source: the limit, its file and line, until when, and what ends it; or that it goes at once."""
    one = Outlook("out-1", 0, "google", "mx.x.test", [FIRING, RATE], 1_200)
    asker.answers[Explain] = [Explained([one, Outlook("out-2", 0, "google", "mx.x.test")])]

    status = main(["policy", "explain", "a@x.test", "--tenant", "shop", "--campaign", "spring"])

    out = capsys.readouterr().out
    assert status == 0
    assert asker.of(Explain) == [Explain("a@x.test", "x.test", ["out-1", "out-2"], "shop", "spring")]
    assert out.partition("no rule is in force for it\n\n")[2].replace("2096-10-02", "DATE").splitlines()[:4] == [
        "the next message",
        "  from out-1 waits for f1 (rule fast ...), behind 1,200 messages (worker 0)",
        f"    The rule fast of the policy google set that off, written in {WRITTEN}.",
        "    `mta rule show f1` tells all about it, `mta rule cancel f1` ends it.",
    ]
    assert f"    That is limits.rate = 6/min of the policy google, written in {WRITTEN}.\n    Until 2096-" in out
    assert out.endswith("  from out-2 goes at once (worker 0)\n")


@pytest.mark.usefixtures("server")
def test_it_may_be_json(asker: FakeAsker, capsys: Printed) -> None:
    """Beside what the configuration says."""
    asker.answers[Explain] = [Explained([Outlook("out-1", 0, "google", waits=[RATE])])]

    assert main(["policy", "explain", "a@x.test", "--source", "out-1", "--json"]) == 0

    answer = json.loads(capsys.readouterr().out)
    assert answer["policy"] == "default"
    assert answer["now"]["outlooks"][0]["waits"][0]["reason"]["origin"] == WRITTEN


@pytest.mark.usefixtures("folder")
def test_without_a_server_the_rest_is_told(capsys: Printed) -> None:
    """With the same exit status, and why that is missing."""
    assert main(["policy", "explain", "a@x.test"]) == 0
    text = capsys.readouterr().out
    assert main(["policy", "explain", "a@x.test", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)

    missing = "what is in force at this moment, and what the next message would wait for, is not known: "
    assert missing + "no server answers at unix:" in text
    assert "for source out-1, out-2" in text
    assert answer["now_unknown"].startswith("no server answers at unix:")
    assert "now" not in answer


@pytest.mark.usefixtures("server")
def test_a_worker_that_is_down_is_told(asker: FakeAsker, capsys: Printed) -> None:
    """What it has is missing, and nobody mistakes that for nothing."""
    asker.workers = 2
    asker.answers[Explain] = [Explained([]), None]
    asker.down = {1}

    assert main(["policy", "explain", "a@x.test"]) == 0

    out = capsys.readouterr().out
    assert "  worker 1 does not answer: what it knows is missing here" in out
    assert "  no worker that answers has such mail" in out

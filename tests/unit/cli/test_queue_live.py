"""`mta queue` against a face over workers that are made up."""

import argparse
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from mta.cli import queue_admin, words
from mta.model.identity import IdMaker
from mta.model.selection import Selection
from mta.reporting.questions import Act, Acted, Failed, Verb
from mta.reporting.waiting import List, Listed, RecipientRow, Show, Shown, SiteRow, Summarized, Summary
from mta.testing.admin_rig import FakeAsker, face_in_thread

NOW_S = 1_750_000_000.0
ID = IdMaker(1).make(NOW_S)
Run = Callable[..., int]


def parsed(*arguments: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="mta")
    queue_admin.add(parser.add_subparsers())
    return parser.parse_args(["queue", *arguments])


@pytest.fixture
def asker() -> FakeAsker:
    return FakeAsker()


@pytest.fixture
def events(tmp_path: Path) -> Path:
    return tmp_path / "events.jsonl"


@pytest.fixture
def run(asker: FakeAsker, tmp_path: Path, events: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Run]:
    """Runs `mta queue ...` against the face; -> its exit status."""
    monkeypatch.setattr(words, "now_s", lambda: NOW_S)
    monkeypatch.setattr("getpass.getuser", lambda: "kim")
    with face_in_thread(asker, tmp_path, events_path=events) as address:

        def go(*arguments: str) -> int:
            args = parsed(*arguments, "--admin", address)
            return args.run(args)

        yield go


def row(message_id: str = ID, recipient: str = "a@x.test", **more: Any) -> RecipientRow:
    values = {"state": "scheduled", "policy": "default", "accepted_s": NOW_S - 7300, **more}
    return RecipientRow(message_id, recipient, "news@shop.test", recipient.rpartition("@")[2], **values)


# -- summary --


def test_a_summary_is_a_table(run: Run, asker: FakeAsker, capsys: pytest.CaptureFixture[str]) -> None:
    """A line a site, the largest first, and the sum; columns in which nothing stands are left out."""
    busy = SiteRow("google", "mx.google.test", 3, 1200, 300, oldest_s=NOW_S - 7300, next_s=NOW_S + 245, connections=5)
    busy.waits_for = "the rate of 20/s"
    unknown = SiteRow("default", "", 2, 4, oldest_s=NOW_S - 30)
    asker.answers[Summary] = [Summarized([unknown], 4), Summarized([busy], 1500)]

    status = run("summary", "--tenant", "shop")

    lines = capsys.readouterr().out.splitlines()
    assert status == 0
    assert " ".join(lines[0].split()) == "site policy ready scheduled oldest next try open why it waits"
    assert " ".join(lines[1].split()) == "mx.google.test google 1,200 300 2 h in 4 min 5 the rate of 20/s"
    assert lines[2].startswith("(2 domains, mail hosts not known yet)  default      4")
    assert lines[-1] == "1,504 recipients of 1,504 messages wait: 1,204 ready, 300 scheduled"
    assert asker.of(Summary) == [Summary(Selection(tenant="shop"))]


def test_a_summary_shows_the_largest(run: Run, asker: FakeAsker, capsys: pytest.CaptureFixture[str]) -> None:
    """The rest is counted, and `--limit 0` shows it; JSON has everything."""
    rows = [SiteRow("p", f"s{number}.test", 1, number) for number in range(1, 6)]
    asker.answers[Summary] = [Summarized(rows, 15), Summarized([])]

    run("summary", "--limit", "2")
    two = capsys.readouterr().out
    run("summary", "--limit", "0")
    every = capsys.readouterr().out
    run("summary", "--limit", "2", "--json")
    data = json.loads(capsys.readouterr().out)

    assert "s4.test" in two
    assert "s3.test" not in two
    assert "and 3 more sites with 6 recipients: --limit 0" in two
    assert "15 recipients of 15 messages" in two
    assert "s1.test" in every
    assert [each["site"] for each in data["rows"]] == ["s5.test", "s4.test", "s3.test", "s2.test", "s1.test"]


def test_an_empty_queue(run: Run, asker: FakeAsker, capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing is a good answer."""
    asker.answers[Summary] = [Summarized([]), Summarized([])]
    asker.answers[List] = [Listed([]), Listed([])]

    statuses = [run("summary"), run("list"), run("list", "--json")]

    out = capsys.readouterr().out
    assert statuses == [0, 0, 0]
    assert out.startswith("nothing waits\nnothing waits that matches\n")


def test_what_is_missing_is_told(run: Run, asker: FakeAsker, capsys: pytest.CaptureFixture[str]) -> None:
    """A worker that does not answer: the rest is shown, with status 1."""
    asker.answers[Summary] = [Summarized([SiteRow("p", "s.test", 1, 1)], 1), Failed("it starts")]

    status = run("summary")

    said = capsys.readouterr()
    assert status == 1
    assert "s.test" in said.out
    assert said.err == "mta queue: worker 1: it starts: what it has is missing here\n"


def test_nobody_takes_half_an_answer_for_an_empty_queue(
    run: Run, asker: FakeAsker, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing at one worker says nothing about the other's."""
    asker.answers[Summary] = [Summarized([]), Failed("it starts")]
    asker.answers[List] = [Listed([]), Failed("it starts")]

    statuses = [run("summary"), run("list")]

    out = capsys.readouterr().out
    assert statuses == [1, 1]
    assert out == "nothing waits, as far as is known\nnothing waits that matches, as far as is known\n"


# -- list --


def test_a_list_is_a_table(run: Run, asker: FakeAsker, capsys: pytest.CaptureFixture[str]) -> None:
    """A line a recipient, with its state and why it waits; nothing a stranger wrote moves the cursor."""
    evil = row("2", "b@x.test", last_reply="451 \x1b[2Jlater", attempts=3, next_s=NOW_S + 61)
    asker.answers[List] = [Listed([row("1", waits_for="its turn: 4,012 before it", state="ready")]), Listed([evil])]

    status = run("list", "--domain", "x.test")

    lines = capsys.readouterr().out.splitlines()
    assert status == 0
    assert " ".join(lines[0].split()) == "id recipient sender state tried age next try why it waits"
    assert " ".join(lines[1].split()) == "1 a@x.test news@shop.test ready 2 h its turn: 4,012 before it"
    assert " ".join(lines[2].split()) == "2 b@x.test news@shop.test scheduled 3 2 h in 1 min 451 \\x1b[2Jlater"
    assert len(lines) == 3


def pages(asker: FakeAsker, count: int) -> None:
    """Makes the first worker a queue of so many messages that answers as a worker does."""
    queue = [row(f"{number:05}") for number in range(count)]
    answer = asker._answer

    def paged(question: Any, number: int) -> bytes | None:
        if isinstance(question, List):
            left = [each for each in queue if each.id > question.after] if number == 0 else []
            asker.answers[List] = [Listed(left[: question.limit], len(left) > question.limit)] * 2
        return answer(question, number)

    asker._answer = paged  # type: ignore[method-assign]


@pytest.mark.parametrize(
    ("options", "shown", "asked"),
    [
        ([], 100, [100]),
        (["--limit", "7"], 7, [7]),
        (["--limit", "2300"], 2300, [1000, 1000, 300]),
        (["--limit", "0"], 2500, [1000, 1000, 1000]),
        (["--limit", "0", "--after", "02400"], 99, [1000]),
    ],
)
def test_a_list_pages_by_itself(
    run: Run,
    asker: FakeAsker,
    capsys: pytest.CaptureFixture[str],
    options: list[str],
    shown: int,
    asked: list[int],
) -> None:
    """A thousand at a time, as far as was wished for."""
    pages(asker, 2500)

    run("list", "--json", *options)

    data = json.loads(capsys.readouterr().out)
    ids = [each["id"] for each in data["rows"]]
    assert (len(ids), len(set(ids))) == (shown, shown)
    assert ids == sorted(ids)
    assert data["more"] is (shown in (100, 7, 2300))
    assert [question.limit for question in asker.of(List)] == asked


def test_a_list_says_how_it_goes_on(run: Run, asker: FakeAsker, capsys: pytest.CaptureFixture[str]) -> None:
    """With the id to continue behind."""
    pages(asker, 10)

    run("list", "--limit", "3")

    assert capsys.readouterr().out.splitlines()[-1] == "there is more: --after 00002, or --limit 0 for all"


# -- show --


def test_show_tells_all_about_a_message(
    run: Run, asker: FakeAsker, events: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What waits, why, until when; and what has happened so far."""
    waiting = row(
        site="mx.x.test",
        source="out-1",
        tenant="shop",
        size=4312,
        attempts=2,
        next_s=NOW_S + 600,
        expires_s=NOW_S + 86400 * 3,
        last_reply="451 4.7.1 Greylisted",
        last_host="mx1.x.test",
        last_s=NOW_S - 61,
    )
    asker.answers[Show] = [Shown([waiting], "<m@shop.test>", "shop.test", "127.0.0.1"), Shown([])]
    told = [
        {"event": "received", "time": NOW_S - 7300, "id": ID, "recipients": ["a@x.test", "b@y.test"]},
        {"event": "delivered", "time": NOW_S - 7299, "id": ID, "recipient": "b@y.test", "host": "mx.y.test"}
        | {"code": 250, "enhanced": "2.0.0", "text": "OK \x1b[2J"},
        {"event": "bounced", "time": NOW_S - 7298, "id": ID, "recipient": "c@y.test", "code": 550, "dsn": "d1"},
    ]
    events.write_text("".join(json.dumps(each, separators=(",", ":")) + "\n" for each in told))

    status = run("show", ID)

    out = capsys.readouterr().out
    assert status == 0
    for line in (
        f"id           {ID}",
        "from         news@shop.test",
        "Message-ID   <m@shop.test>",
        "size         4.3 KB",
        "tenant       shop",
        "1 recipient waiting",
        "  a@x.test: scheduled, next try in 10 min",
        "    source    out-1",
        "    tried     2 times",
        "    last      451 4.7.1 Greylisted (mx1.x.test), 1 min ago",
        "what happened so far",
    ):
        assert line in out.splitlines()
    assert "given up" in out
    history = out.partition("what happened so far\n")[2].splitlines()
    assert [line.split()[3] for line in history[1:4]] == ["received", "delivered", "bounced"]
    assert "2 recipients" in history[1]
    assert history[2].endswith("b@y.test      mx.y.test  250 2.0.0 OK \\x1b[2J")
    assert history[3].endswith("550 (the sender was told: d1)")


def test_show_of_a_message_that_is_done(
    run: Run, asker: FakeAsker, events: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Sender and times come from the event log."""
    asker.answers[Show] = [Shown([]), Shown([])]
    told = {"event": "received", "time": NOW_S - 60, "id": ID, "sender": "", "recipients": ["a@x.test"], "size": 7}
    events.write_text(json.dumps(told, separators=(",", ":")) + "\n")

    status = run("show", ID)

    out = capsys.readouterr().out
    assert status == 0
    assert "from      <>" in out
    assert "size      7 bytes" in out
    assert "nothing of it waits any more" in out


def test_show_as_json(run: Run, asker: FakeAsker, capsys: pytest.CaptureFixture[str]) -> None:
    """As the face gives it."""
    asker.answers[Show] = [Shown([row()]), Shown([])]

    run("show", ID, "--json")

    data = json.loads(capsys.readouterr().out)
    assert (data["id"], data["rows"][0]["recipient"], data["history"]) == (ID, "a@x.test", [])


@pytest.mark.parametrize("message_id", [ID, "../queue", "a b?c=d", ""])
def test_show_of_what_is_unknown(
    run: Run, asker: FakeAsker, capsys: pytest.CaptureFixture[str], message_id: str
) -> None:
    """Status 1 and one sentence, whatever was typed."""
    asker.answers[Show] = [Shown([]), Shown([])]

    status = run("show", message_id)

    said = capsys.readouterr()
    assert status == 1
    assert said.out == ""
    assert len(said.err.splitlines()) == 1


# -- retry, hold, release, cancel --


@pytest.mark.parametrize(
    ("verb", "said"),
    [
        ("hold", "held 1,204 recipients of 1,180 messages at 2 workers"),
        ("release", "released 1,204 recipients of 1,180 messages at 2 workers"),
        ("cancel", "cancelled 1,204 recipients of 1,180 messages at 2 workers"),
        ("retry", "told 1,204 recipients of 1,180 messages at 2 workers to try at once"),
    ],
)
def test_actions_say_what_they_did(
    run: Run, asker: FakeAsker, capsys: pytest.CaptureFixture[str], verb: Verb, said: str
) -> None:
    """What was touched, and what was left alone and why; the workers hear the selection and who asked."""
    left = {"being sent": 1, "held already": 5}
    asker.answers[Act] = [Acted(1200, 1177, 1, left), Acted(4, 3, 2, {"being sent": 2})]

    status = run(verb, "--sender", "*@shop.test", "--older-than", "2h")

    assert status == 0
    assert capsys.readouterr().out == f"{said}\nleft alone: 3 being sent, 5 held already\n"
    assert asker.of(Act) == [Act(verb, Selection(sender="*@shop.test", older_than_s=7200.0), "kim")]


@pytest.mark.parametrize("verb", ["retry", "hold", "release", "cancel"])
@pytest.mark.parametrize("options", [[], ["--json"]])
def test_actions_without_select_are_wrong_usage(
    run: Run, asker: FakeAsker, capsys: pytest.CaptureFixture[str], verb: str, options: list[str]
) -> None:
    """Status 2; nobody hears of it."""
    with pytest.raises(SystemExit) as end:
        run(verb, *options)

    assert end.value.code == 2
    assert f"say which mail to {verb}: --domain" in capsys.readouterr().err
    assert asker.asked == []


@pytest.mark.parametrize("action", ["cancel", "hold", "summary", "list"])
def test_an_empty_criterion_is_wrong_usage(
    run: Run, asker: FakeAsker, capsys: pytest.CaptureFixture[str], action: str
) -> None:
    """A variable that is empty by mistake must not turn "the shop's mail to this domain" into all of the shop's."""
    with pytest.raises(SystemExit) as end:
        run(action, "--tenant", "shop", "--domain", "")

    assert end.value.code == 2
    assert "argument --domain: it is empty" in capsys.readouterr().err
    assert asker.asked == []


def test_everything_must_be_said(run: Run, asker: FakeAsker) -> None:
    """`--all` is everything, and beside another criterion nothing more than that."""
    asker.answers[Act] = [Acted(1, 1), Acted(0, 0)]

    run("hold", "--all")
    run("hold", "--all", "--domain", "x.test")

    assert [act.selection for act in asker.of(Act)] == [Selection(all=True), Selection(domain="x.test")]


def test_nothing_matched(run: Run, asker: FakeAsker, capsys: pytest.CaptureFixture[str]) -> None:
    """The answer is no: status 1."""
    asker.answers[Act] = [Acted(0, 0), Acted(0, 0)]
    status = run("cancel", "--id", ID)
    assert (status, capsys.readouterr().out) == (1, "nothing matched\n")

    asker.answers[Act] = [Acted(0, 0), Acted(0, 0, 1, {"being sent": 1})]
    status = run("cancel", "--id", ID)
    assert (status, capsys.readouterr().out) == (1, "nothing was touched\nleft alone: 1 being sent\n")


def test_a_long_action_is_asked_for_bit_by_bit(
    run: Run, asker: FakeAsker, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each worker goes on where it was, and one that is done is left in peace; the sum is told."""
    steps = {
        (0, 0): Acted(10, 10, 0, {"held already": 1}, 500, 900, 50, 100),
        (1, 0): Acted(7, 7, 0, {}, 0, 300, 20, 20),
        (0, 500): Acted(4, 3, 0, {"held already": 2}, 0, 900, 100, 100),
    }

    def answer(question: Any, worker: int) -> bytes:
        return msgspec.json.encode(steps[worker, question.after])

    monkeypatch.setattr(asker, "_answer", answer)

    status = run("hold", "--all")

    assert status == 0
    assert capsys.readouterr().out == "held 21 recipients of 20 messages at 2 workers\nleft alone: 3 held already\n"
    asked = [(question, worker) for question, worker in asker.asked if isinstance(question, Act)]
    assert [(question.after, question.until, worker) for question, worker in asked] == [
        (0, 0, None),
        (500, 900, 0),
    ]


def test_an_action_that_did_not_reach_all_is_no_success(
    run: Run, asker: FakeAsker, capsys: pytest.CaptureFixture[str]
) -> None:
    """What was done is told, and who did not answer."""
    asker.answers[Act] = [Acted(3, 3), b"null"]
    asker.down = {1}

    status = run("hold", "--all")

    said = capsys.readouterr()
    assert status == 1
    assert said.out == "held 3 recipients of 3 messages\n"
    assert said.err == "mta queue: worker 1 does not answer: what it has was not touched, or nobody knows\n"


def test_actions_as_json(run: Run, asker: FakeAsker, capsys: pytest.CaptureFixture[str]) -> None:
    """The numbers."""
    asker.answers[Act] = [Acted(3, 2, 1), Acted(0, 0)]

    run("hold", "--all", "--json")

    told = json.loads(capsys.readouterr().out)
    assert [told[name] for name in ("touched", "messages", "sending", "workers", "problems")] == [3, 2, 1, 2, []]


@pytest.mark.parametrize(
    "options",
    [["list", "--limit", "-1"], ["list", "--limit", "x"], ["hold", "--older-than", "soon"], ["show"], ["explode"]],
)
def test_wrong_usage(run: Run, options: list[str]) -> None:
    """Status 2, before anybody is asked."""
    with pytest.raises(SystemExit) as end:
        run(*options)

    assert end.value.code == 2


@pytest.mark.parametrize(
    "words",
    [["summary"], ["list"], ["list", "--json"], ["show", ID], ["hold", "--all"], ["cancel", "--id", ID, "--json"]],
)
def test_no_server(tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str]) -> None:
    """Status 69 and one sentence, nothing else."""
    args = parsed(*words, "--admin", f"unix:{tmp_path / 'none.sock'}")

    status = args.run(args)

    said = capsys.readouterr()
    assert status == 69
    assert said.err == f"mta queue: no server answers at unix:{tmp_path / 'none.sock'}: no such file or directory\n"
    assert said.out == ""


def test_a_mistaken_address(capsys: pytest.CaptureFixture[str]) -> None:
    """Status 1, and what would be right."""
    args = parsed("summary", "--admin", "localhost:8025")

    status = args.run(args)

    assert status == 1
    assert 'write "127.0.0.1:8025"' in capsys.readouterr().err


def test_the_token_is_shown_to_the_server(asker: FakeAsker, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """From a file; without it, or with a wrong one, what to do about it is told."""
    asker.answers[Summary] = [Summarized([]), Summarized([])]
    (tmp_path / "token").write_text("geheimnis-日本\n")
    with face_in_thread(asker, tmp_path, token="geheimnis-日本") as address:
        known = parsed("summary", "--admin", address, "--token-file", str(tmp_path / "token"))
        none = parsed("summary", "--admin", address)
        (tmp_path / "old").write_text("another\n")
        wrong = parsed("summary", "--admin", address, "--token-file", str(tmp_path / "old"))

        statuses = [args.run(args) for args in (known, none, wrong)]

    missing, refused = capsys.readouterr().err.splitlines()
    assert statuses == [0, 1, 1]
    assert missing.endswith("wants a token: --token-file FILE, or --config with its configuration")
    assert "does not take this token" in refused
    assert "another" not in refused


def test_on_a_terminal_tables_fit(
    run: Run, asker: FakeAsker, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Long replies are cut there, and whole in a pipe."""
    asker.answers[List] = [Listed([row(last_reply="451 " + "wait " * 60)]), Listed([])]

    run("list")
    piped = capsys.readouterr().out
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setattr("shutil.get_terminal_size", lambda *_: os.terminal_size((120, 24)))
    run("list")
    shown = capsys.readouterr().out

    assert max(map(len, piped.splitlines())) > 300
    assert max(map(len, shown.splitlines())) <= 120
    assert ID in shown


def test_on_eighty_columns_nothing_wraps(
    run: Run, asker: FakeAsker, events: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither tables nor what is told of one message; what matters is still there, from its beginning."""
    down = (
        "mx.x.test, which does not take mail (connect: 451 4.4.1 cannot connect: Connection refused); next try in 9 s"
    )
    waiting = row(recipient="somebody@x.test", state="ready", site="mx.x.test", waits_for=down)
    site = SiteRow("default", "mx.x.test", 1, 503, scheduled=3, oldest_s=NOW_S - 9, next_s=NOW_S + 3000, waits_for=down)
    told = {"event": "bounced", "time": NOW_S, "id": ID, "recipient": "c@y.test", "host": "mx.y.test", "code": 550}
    events.write_text(json.dumps(told | {"text": "No such user here " * 9}, separators=(",", ":")) + "\n")
    asker.answers[List] = [Listed([waiting, row(attempts=3, next_s=NOW_S + 9)], more=True), Listed([])]
    asker.answers[Summary] = [Summarized([site], 503), Summarized([])]
    asker.answers[Show] = [Shown([waiting]), Shown([])]
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setattr("shutil.get_terminal_size", lambda *_: os.terminal_size((80, 24)))

    pages = []
    for words_typed in (["summary"], ["list", "--limit", "2"], ["show", ID]):
        run(*words_typed)
        pages.append(capsys.readouterr().out)
    summary, listing, shown = pages

    assert [line for page in pages for line in page.splitlines() if len(line) > 80] == []
    assert "  does not take" in summary
    assert "  does not t" in listing
    assert ID in listing
    assert "sender" not in listing
    assert "next try" in listing
    assert down in " ".join(shown.split())
    assert "\n      550 No such user here" in shown

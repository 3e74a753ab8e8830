"""The demo's own judgement: it says where door, event log and providers do not agree."""

import fcntl
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from bench.demo import DOMAINS, POLICIES, PROFILES, DemoError, bar, fresh, table, verify, where_next, zone
from bench.fates import Fates
from bench.load import Load, Plan
from bench.rig import ROOT, SinkCounts
from mta_policies import layers


def counts_of(**more: int) -> SinkCounts:
    fields = {"connections_max": 3, "connections_over": 0, "mails_over": 0, "messages": 5, "recipients": 5}
    return SinkCounts(address="127.0.0.2", port=25, duplicates=0, replies={}, **{**fields, **more})


@pytest.fixture
async def told() -> tuple[Load, Fates]:
    """Fifteen messages accepted, five delivered by each provider."""
    load = Load(Plan(messages=15))
    load.result.accepted = [str(number) for number in range(15)]
    fates = Fates(Path("none"), {"swift.test": "swift", "strict.test": "strict", "moody.test": "moody"})
    for tally in fates.tallies.values():
        tally.accepted = 5
        tally.counts = Counter(delivered=5)
        tally.latencies_s = [0.1] * 5
    return load, fates


async def test_all_is_well_where_the_numbers_agree(told: tuple[Load, Fates]):
    """Nothing is raised."""
    verify(*told, {name: counts_of() for name in ("swift", "strict", "moody")})


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"messages": 4}, "strict took 4 messages, told were 5"),
        ({"messages": 6}, "strict took 6 messages, told were 5"),
        ({"connections_max": 4}, "strict saw 4 connections, allowed were 3"),
        ({"mails_over": 1}, "strict refused 1 messages for coming too fast"),
    ],
)
async def test_what_a_provider_counted_differently_fails(told: tuple[Load, Fates], wrong: dict[str, int], message: str):
    """Too few, too many, too fast: each is named."""
    with pytest.raises(DemoError, match=message):
        verify(*told, {"swift": counts_of(), "strict": counts_of(**wrong), "moody": counts_of()})


async def test_everything_wrong_is_said_at_once(told: tuple[Load, Fates]):
    """A message refused at the door and one given up are two lines."""
    load, fates = told
    load.result.accepted.pop()
    fates.tallies["moody"].counts["expired"] = 1

    with pytest.raises(DemoError, match=r"(?s)not all of 15 .*moody: 1 messages were given up"):
        verify(load, fates, {name: counts_of() for name in ("swift", "strict", "moody")})


async def test_the_table_has_a_line_for_every_provider(told: tuple[Load, Fates]):
    """What was told, and what was counted beside what is allowed."""
    lines = table(told[1], {name: counts_of() for name in ("swift", "strict", "moody")}).splitlines()

    assert [line.split()[0] for line in lines[2:]] == ["swift", "strict", "moody"]
    assert re.search(r"strict +5 +5 +0 \(0\) +0 +0/s +100 ms +100 ms +3 of 3$", lines[3])


def test_every_domain_has_a_mail_exchanger_that_listens():
    """The addresses are those that the sink gives its providers, in order."""
    records = zone()

    for number, profile in enumerate(PROFILES, start=2):
        for domain in DOMAINS[profile.name]:
            [exchanger] = records[domain.name]["MX"]  # pyright: ignore[reportGeneralTypeIssues] - a list, made above
            host = exchanger.removeprefix("10 ").rstrip(".")
            assert records[host] == {"A": [f"127.0.0.{number}"]}


def test_the_policies_are_found_by_mx(tmp_path: Path):
    """Each provider's file matches the host that its domains lead to, and all of them are valid."""
    for name, text in POLICIES.items():
        (tmp_path / f"{name}.toml").write_text(text)

    policies = layers.load(tmp_path, [])

    for provider in DOMAINS:
        policy = policies.by_mx([f"mx.{provider}-mail.test"])
        assert policy is not None
        assert policy.name == provider


@pytest.mark.parametrize(("count", "of", "filled"), [(0, 10, 0), (5, 10, 16), (10, 10, 32), (0, 0, 0)])
def test_a_bar_fills_with_the_count(count: int, of: int, filled: int):
    """From empty to full, and empty where there is nothing yet."""
    assert bar(count, of).count("#") == filled


def test_a_folder_of_an_earlier_demo_is_emptied(tmp_path: Path):
    """What the last one left goes away, folders included."""
    (tmp_path / "demo" / "queue").mkdir(parents=True)
    (tmp_path / "demo" / "sink.json").touch()

    with fresh(tmp_path / "demo"):
        left = list((tmp_path / "demo").iterdir())

    assert left == []


def test_a_folder_of_somebody_else_is_left_alone(tmp_path: Path):
    """A folder that no demo made is not emptied."""
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters" / "dear.txt").touch()

    with pytest.raises(DemoError, match="no demo made"), fresh(tmp_path / "letters"):
        pass

    assert (tmp_path / "letters" / "dear.txt").exists()


def test_two_demos_do_not_share_a_folder(tmp_path: Path):
    """The second one says so."""
    with (tmp_path / "demo.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)

        with pytest.raises(DemoError, match="another demo"), fresh(tmp_path / "demo"):
            pass


@pytest.mark.parametrize("place", [lambda tmp: ROOT / "var" / "demo", lambda tmp: tmp])
def test_the_last_word_names_the_folder(place: Callable[[Path], Path], tmp_path: Path):
    """Relative to the checkout where it is in it."""
    folder = place(tmp_path)

    text = where_next(folder)

    assert ("var/demo/events.jsonl" if folder != tmp_path else f"{tmp_path}/events.jsonl") in text

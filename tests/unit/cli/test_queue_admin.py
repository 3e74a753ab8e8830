"""`mta queue verify` and `mta queue dump` on real files."""

import argparse
import asyncio
import json
from pathlib import Path

import pytest

from mta.cli import queue_admin, queue_files
from mta.model.envelope import Envelope, Recipient, encode
from mta.model.outcome import Reply
from mta.reporting.events import Fate, Way, encode_note, encode_notes
from mta_queue import inspection, record, segment
from mta_queue.disk import OsDisk
from mta_queue.quarantine import Quarantine
from mta_queue.record import CopiedState, FileHeader
from mta_queue.store import Origin, Store


def run(*arguments: str | Path) -> int:
    parser = argparse.ArgumentParser()
    queue_admin.add(parser.add_subparsers())
    args = parser.parse_args(["queue", *map(str, arguments)])
    return args.run(args)


def envelope(*recipients: str) -> bytes:
    found = [Recipient(address, address.rpartition("@")[2]) for address in recipients]
    return encode(Envelope("id", "s@sender.example", found, 1.0, 7))


async def fill(directory: Path) -> list[int]:
    """A log with a finished, a postponed, an arriving and an untouched item, ended cleanly."""
    store = Store(directory, disk=OsDisk())
    store.open()
    store.start(asyncio.get_running_loop())
    durable: list[int] = []
    four = asyncio.Event()

    def on_durable(seq: int) -> None:
        durable.append(seq)
        if len(durable) == 4:
            four.set()

    def on_failed(error: OSError) -> None:
        raise error

    store.append("id-finished", envelope("a@x.example"), 1, b"one", on_durable, on_failed)
    store.append(
        "id-postponed", envelope(*(f"r{n}@y.example" for n in range(5))), 5, b"two", on_durable, on_failed, None, 90.0
    )
    store.append("id-arriving", b"no envelope", 1, b"three", on_durable, on_failed, Origin(3, 33))
    store.append("id-\x1b[2J", envelope("e\x07vil@z.example"), 1, b"the content", on_durable, on_failed)
    await four.wait()
    way = Way(host="mx.x.example")
    fate = Fate("delivered", 2.0, Reply(250, "2.0.0", "Got it,\x1b[2J thanks"), "content", 1, 0.0, way)
    store.finish(durable[0], (0,), encode_note(fate))
    store.postpone(durable[1], (0, 3), 1_700_000_000.0, b"\xff later")
    store.told(store.mark_position())
    await store.close()
    return durable


@pytest.fixture
def queue(tmp_path: Path) -> Path:
    """A queue directory with two logs."""
    asyncio.run(fill(tmp_path / "queue" / "0"))
    asyncio.run(fill(tmp_path / "queue" / "10"))
    return tmp_path / "queue"


def file_of(log: Path) -> Path:
    return log / segment.file_name(1)


def test_verify_sound(queue: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Sound logs are listed by number, with what lives in them, and the answer is yes."""
    status = run("verify", queue)

    lines = capsys.readouterr().out.splitlines()
    assert status == 0
    assert [line.split()[0] for line in lines] == ["log", str(queue / "0"), str(queue / "10")]
    assert lines[1].split()[4:] == ["3", "7", "sound"]


def test_verify_one_log_as_json(queue: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One log of a queue can be looked at alone; as JSON all figures have names."""
    status = run("verify", queue / "0", "--json")

    (report,) = json.loads(capsys.readouterr().out)
    assert status == 0
    assert report["bytes"] == file_of(queue / "0").stat().st_size
    del report["bytes"]
    assert report == {
        "log": str(queue / "0"),
        "segments": 1,
        "records": 9,
        "items": 3,
        "recipients": 7,
        "arriving": 1,
        "untold": 0,
        "missing": [],
        "quarantine": [],
        "problems": [],
    }


def test_verify_finds_a_changed_byte(queue: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One changed byte of a content is found, named with its file, and the answer is no."""
    path = file_of(queue / "10")
    path.write_bytes(path.read_bytes().replace(b"the content", b"the cOntent"))

    status = run("verify", queue)

    output = capsys.readouterr().out
    assert status == 1
    assert "1 problems" in output
    assert f"{path}: item id-" in output
    assert "content damaged" in output


def test_verify_every_changed_byte(queue: Path) -> None:
    """There is no byte that can change unnoticed, but those of the seal and before it that a crash may tear."""
    disk, path = OsDisk(), file_of(queue / "0")
    good = path.read_bytes()

    unnoticed = []
    for at in range(len(good) - record.SEAL_BYTES):
        path.write_bytes(good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :])
        if not inspection.verify(disk, queue / "0").problems:
            unnoticed.append(at)

    assert unnoticed == []


def test_verify_changes_nothing(queue: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Looking leaves every file as it was, also one that a crash cut short, which is no mistake."""
    path = file_of(queue / "0")
    path.write_bytes(path.read_bytes()[: -record.SEAL_BYTES - 3])
    before = {one: one.read_bytes() for one in queue.rglob("*") if one.is_file()}

    assert run("verify", queue) == 0
    assert run("dump", queue / "10") == 0
    assert {one: one.read_bytes() for one in queue.rglob("*") if one.is_file()} == before
    capsys.readouterr()


def test_verify_newer_format(queue: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A file of a newer version is said to be one."""
    path = file_of(queue / "0")
    path.write_bytes(record.encode_file_header(FileHeader(record.VERSION + 1, 1, 0, 1, 1, 0)))

    assert run("verify", queue / "0") == 1
    assert "newer format" in capsys.readouterr().out


def test_verify_shows_the_quarantine(queue: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Files that were set aside are listed with their reasons; they are not the queue any more."""
    log = queue / "0"
    (log / (segment.file_name(7) + segment.ASIDE_SUFFIX)).write_bytes(b"x")
    (log / segment.file_name(8)).write_bytes(b"x")
    Quarantine(log, OsDisk(), lambda: 0.0).take(8, ["9 bytes at 5: \x1b damaged"])

    assert run("verify", log) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].endswith("  sound")
    assert lines[2:] == [
        f"{log}/{segment.file_name(7)}.aside: set aside: nobody wrote down why",
        f"{log}/quarantine/{segment.file_name(8)}: set aside: 1970-01-01T00:00:00+00:00 9 bytes at 5: \\x1b damaged",
    ]


def test_verify_tells_how_far_it_is(
    queue: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever waits at a terminal sees how much has been read; the line is wiped in the end, and a pipe has none."""
    monkeypatch.setattr(queue_files, "PROGRESS_AFTER_S", 0.0)
    monkeypatch.setattr(queue_files, "PROGRESS_EVERY_S", 0.0)

    assert run("verify", queue) == 0
    assert capsys.readouterr().err == ""
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    assert run("verify", queue) == 0
    shown = capsys.readouterr().err
    assert "\r0 of 0 MB (100 %)" in shown
    assert shown.endswith(f"\r{'':40}\r")


def test_dump_json(queue: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Every record is one JSON object a line, in the order of the file."""
    status = run("dump", queue / "0", "--json")

    records = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert status == 0
    kinds = ["segment", "item", "item", "item", "item", "finished", "postponed", "told", "index", "sealed"]
    assert [one["kind"] for one in records] == kinds
    assert records[8]["records"] == 7
    assert {one["log"] for one in records} == {str(queue / "0")}
    assert records[1]["sender"] == "s@sender.example"
    assert (records[2]["recipients"][4], records[2]["parts"], records[2]["due"]) == ("r4@y.example", 5, 90.0)
    assert records[3]["origin"] == {"log": 3, "number": 33}
    assert "sender" not in records[3]
    assert (records[5]["item"], records[5]["parts"], records[5]["fate"]) == (records[1]["number"], [0], "delivered")
    assert records[5]["reply"] == "250 2.0.0 Got it,\x1b[2J thanks"
    assert (records[5]["host"], records[5]["attempt"], records[5]["stage"]) == ("mx.x.example", 1, "content")
    assert (records[6]["parts"], records[6]["due"], records[6]["note"]) == ([0, 3], 1.7e9, "\\xff later")


def test_dump_text(queue: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The text is one line a record, long lists are cut, and nothing a sender wrote reaches the terminal raw."""
    status = run("dump", queue)

    lines = capsys.readouterr().out.splitlines()
    assert status == 0
    assert len(lines) == 20
    assert "recipients=r0@y.example,r1@y.example,r2@y.example and 2 more" in lines[2]
    assert "origin=3/33" in lines[3]
    assert "id=id-\\x1b[2J" in lines[4]
    assert "e\\x07vil@z.example" in lines[4]
    assert lines[5].endswith(
        " fate=delivered host=mx.x.example attempt=1 stage=content reply=250 2.0.0 Got it,\\x1b[2J thanks"
    )
    assert "due=2023-11-14T22:13:20+00:00" in lines[6]


def test_dump_damage(queue: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Damage is shown where it lies, and the answer is no."""
    path = file_of(queue / "0")
    data = bytearray(path.read_bytes())
    data[60] ^= 1
    path.write_bytes(data)

    assert run("dump", queue / "0") == 1
    assert " damage bytes=" in capsys.readouterr().out.splitlines()[1]


def test_dump_unreadable(queue: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A file that is no segment is said to be none."""
    file_of(queue / "0").write_bytes(b"\xff" * 500)

    assert run("dump", queue / "0") == 1
    assert "unreadable reason=no segment" in capsys.readouterr().out


def test_beside_a_running_server(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Both work on a log that is open and locked, also when nothing was ever put into it."""
    store = Store(tmp_path / "0", disk=OsDisk())
    store.open()

    assert run("verify", tmp_path) == 0
    assert run("dump", tmp_path / "0") == 0
    asyncio.run(store.close())
    capsys.readouterr()


def test_dump_shows_copies_and_what_was_rescheduled(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A copy says whose it is and what its parts wait for; a time that was changed alone has no reply."""
    marker = 7
    fate = Fate("deferred", 2.0, Reply(451, "4.7.1", "later"), "rcpt", 1)
    states = [CopiedState(9.0, (0,), encode_note(fate)), CopiedState(20.0, (2, 3), b"")]
    data = record.encode_file_header(FileHeader(record.VERSION, marker, 0, 1, 1, 0))
    data += record.encode_copy(marker, 50, 41, "id-41", envelope("a@x.example"), 0, 0, states)
    data += record.encode_fate(marker, 51, record.RESCHEDULED, 41, (2,), b"", 30.0)
    (tmp_path / "0").mkdir()
    file_of(tmp_path / "0").write_bytes(data)

    run("dump", tmp_path)
    text = capsys.readouterr().out
    run("dump", tmp_path, "--json")
    _, copy, rescheduled = (json.loads(line) for line in capsys.readouterr().out.splitlines())

    assert (copy["kind"], copy["item"], copy["id"], copy["recipients"]) == ("item", 41, "id-41", ["a@x.example"])
    assert copy["copied"] == [
        {"parts": [0], "due": 9.0, "fate": "deferred", "attempt": 1, "stage": "rcpt", "reply": "451 4.7.1 later"},
        {"parts": [2, 3], "due": 20.0},
    ]
    assert (rescheduled["kind"], rescheduled["item"], rescheduled["due"]) == ("rescheduled", 41, 30.0)
    assert "copied=0:1970-01-01T00:00:09+00:00,2/3:1970-01-01T00:00:20+00:00" in text


@pytest.mark.parametrize("action", ["verify", "dump"])
def test_no_queue_there(tmp_path: Path, action: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A directory without a queue, or none at all, is wrong usage and said so."""
    assert run(action, tmp_path) == 2
    assert "holds no queue" in capsys.readouterr().err
    assert run(action, tmp_path / "missing") == 2
    assert "No such file" in capsys.readouterr().err


def test_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    """Without an action or a directory argparse explains and exits with 2."""
    for arguments in ([], ["verify"], ["summary", "x"]):
        with pytest.raises(SystemExit) as raised:
            run(*arguments)
        assert raised.value.code == 2
    capsys.readouterr()


def test_dump_shows_fates_that_ended_together(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One record of several recipients that did not end alike: each with its own reply, and the notification's id."""
    asyncio.run(fill_together(tmp_path / "0"))

    run("dump", tmp_path)
    text = capsys.readouterr().out
    run("dump", tmp_path, "--json")
    records = [json.loads(line) for line in capsys.readouterr().out.splitlines()]

    (found,) = (record for record in records if "fates" in record)
    assert found["parts"] == [0, 1]
    assert [(each["part"], each["fate"], each["dsn"]) for each in found["fates"]] == [
        (0, "bounced", "d1"),
        (1, "expired", "d1"),
    ]
    assert found["fates"][0]["reply"] == "550 5.1.1 unknown"
    assert "fates=0:bounced:550 5.1.1 unknown,1:expired:" in text


async def fill_together(directory: Path) -> None:
    """A log with an item whose two recipients were ended by one record."""
    store = Store(directory, disk=OsDisk())
    store.open()
    store.start(asyncio.get_running_loop())
    durable: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    store.append("id-1", envelope("a@x.example", "b@x.example"), 2, b"one", durable.set_result, durable.set_exception)
    fates = [
        ([0], Fate("bounced", 2.0, Reply(550, "5.1.1", "unknown"), "rcpt", 1, dsn="d1")),
        ([1], Fate("expired", 2.0, Reply(451, "4.4.7", "too late"), "local", 1, dsn="d1")),
    ]
    store.finish(await durable, (0, 1), encode_notes(fates))
    await store.close()


def test_every_action_is_offered(capsys: pytest.CaptureFixture[str]) -> None:
    """Those that ask a server and those that read files."""
    with pytest.raises(SystemExit):
        run("--help")

    offered = capsys.readouterr().out
    for action in ("summary", "list", "show", "retry", "hold", "release", "cancel", "verify", "dump"):
        assert f"    {action} " in offered

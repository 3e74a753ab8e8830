"""The HTTP face over workers that are made up."""

import asyncio
import json
import socket
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mta.admin import face as room
from mta.admin.address import TcpAddress
from mta.admin.face import AdminFace
from mta.admin.kept_file import KeptFileError
from mta.model.identity import IdMaker
from mta.model.selection import Selection
from mta.reporting.questions import Act, Acted, Failed, Rules, Suspend
from mta.reporting.waiting import List, Listed, Show, Shown, SiteRow, Summarized, Summary
from mta.reporting.worker_counts import Metrics, WorkerCounts
from mta.testing.admin_rig import Client, FakeAsker, row
from mta.testing.fake_clock import FakeClock
from mta_policies.firing import Snapshot

MakeFace = Callable[..., AdminFace]
ID = IdMaker(1).make(1_750_000_000.0)


async def test_health_is_ok_where_all_is_well(client: Client) -> None:
    """200, and what this server is."""
    answer = await client.get("/health")

    assert answer.status == 200
    expected = {"status": "ok", "version": "1.2.3", "hostname": "mail.test", "workers": 2, "problems": []}
    assert answer.json == expected


async def test_health_names_what_is_wrong(client: Client, asker: FakeAsker) -> None:
    """503 where a worker is down or takes no mail."""
    asker.down = {0}
    asker.answers[Metrics] = [None, WorkerCounts(1, 1.0, is_taking_mail=False)]

    answer = await client.get("/health")

    assert answer.status == 503
    assert answer.json["status"] == "failing"
    assert answer.json["problems"][0] == "worker 0 does not answer"
    assert answer.json["problems"][1].startswith("worker 1 takes no mail")


async def test_workers_count_at_most_twice_a_second(client: Client, asker: FakeAsker, clock: FakeClock) -> None:
    """However many ask for health and metrics, at the same time or soon after each other."""
    await asyncio.gather(*(client.get(target) for target in ["/health", "/metrics"] * 10))
    assert len(asker.of(Metrics)) == 1

    clock.advance(0.6)
    await client.get("/health")

    assert len(asker.of(Metrics)) == 2


async def test_metrics_are_text(client: Client, asker: FakeAsker) -> None:
    """In the format that Prometheus reads; a worker that is down is there with 0."""
    asker.down = {1}
    asker.answers[Metrics] = [WorkerCounts(0, 1.0, delivered=12)]

    answer = await client.get("/metrics")

    assert answer.status == 200
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    lines = answer.body.decode().splitlines()
    assert 'mta_delivered_total{worker="0"} 12' in lines
    assert 'mta_up{worker="1"} 0' in lines


async def test_workers_are_told_as_they_count(client: Client, asker: FakeAsker) -> None:
    """For programs: the counters of each."""
    asker.down = {1}

    answer = await client.get("/workers")

    assert [each["worker"] for each in answer.json["workers"]] == [0]
    assert answer.json["problems"] == ["worker 1 does not answer"]


async def test_the_summary_is_of_all_workers(client: Client, asker: FakeAsker) -> None:
    """With the selection that was asked for."""
    asker.answers[Summary] = [Summarized([SiteRow("p", "s", 1, 3)], 2), Summarized([SiteRow("p", "s", 1, 4)], 4)]

    answer = await client.get("/queue?tenant=shop&older_than=1h")

    assert answer.status == 200
    assert [(each["site"], each["ready"]) for each in answer.json["rows"]] == [("s", 7)]
    assert asker.of(Summary) == [Summary(Selection(tenant="shop", older_than_s=3600.0))]


async def test_lists_come_in_pages(client: Client, asker: FakeAsker) -> None:
    """`limit` and `after` are handed to the workers."""
    asker.answers[List] = [Listed([row("1"), row("2")], more=True), Listed([row("3")])]

    answer = await client.get("/queue/messages?domain=x.test&limit=2&after=0")

    assert [each["id"] for each in answer.json["rows"]] == ["1", "2"]
    assert answer.json["more"] is True
    assert asker.of(List) == [List(Selection(domain="x.test"), 2, "0")]


async def test_a_message_is_shown_with_its_history(make_face: MakeFace, asker: FakeAsker, tmp_path: Path) -> None:
    """What waits at any worker, and what the event log says."""
    events = tmp_path / "events.jsonl"
    lines = [{"event": "delivered", "time": 5.0, "id": ID, "recipient": "b@x.test"}, {"event": "x", "id": "other"}]
    events.write_text("".join(json.dumps(each, separators=(",", ":")) + "\n" for each in lines))
    asker.answers[Show] = [Shown([]), Shown([row(ID)], "<m@shop.test>")]
    face = make_face(events_path=events)
    await face.start()

    answer = await Client(face).get(f"/queue/messages/{ID}")

    assert answer.status == 200
    assert (answer.json["id"], answer.json["message_id"]) == (ID, "<m@shop.test>")
    assert [each["recipient"] for each in answer.json["rows"]] == ["a@x.test"]
    assert answer.json["history"] == [lines[0]]
    assert answer.json["history_is_complete"] is True


async def test_a_message_that_is_done_is_shown_from_the_log(
    make_face: MakeFace, asker: FakeAsker, tmp_path: Path
) -> None:
    """Nothing of it waits, its history is there."""
    events = tmp_path / "events.jsonl"
    events.write_text(json.dumps({"event": "bounced", "time": 5.0, "id": ID}, separators=(",", ":")) + "\n")
    asker.answers[Show] = [Shown([]), Shown([])]
    face = make_face(events_path=events)
    await face.start()

    answer = await Client(face).get(f"/queue/messages/{ID}")

    assert (answer.status, len(answer.json["history"])) == (200, 1)


async def test_a_message_that_nobody_knows_is_not_found(make_face: MakeFace, asker: FakeAsker, tmp_path: Path) -> None:
    """404; where not everything could be looked through the answer says so."""
    asker.answers[Show] = [Shown([]), Shown([])]
    face = make_face(events_path=tmp_path / "events.jsonl")
    await face.start()
    client = Client(face)

    unknown = await client.get(f"/queue/messages/{ID}")
    impossible = await client.get("/queue/messages/..%2Fetc")
    asker.down = {1}
    unsure = await client.get(f"/queue/messages/{ID}")

    assert (unknown.status, impossible.status, unsure.status) == (404, 404, 404)
    assert unknown.json == {"error": f"no message {ID} waits or is in the event log"}
    assert impossible.json == {"error": 'no message can have the id "../etc"'}
    assert "not everything could be looked through" in unsure.json["error"]
    assert "worker 1 does not answer" in unsure.json["error"]


@pytest.mark.parametrize("verb", ["retry", "hold", "release", "cancel"])
async def test_actions_go_to_all_workers(client: Client, asker: FakeAsker, verb: str) -> None:
    """And what they did is added up."""
    asker.answers[Act] = [Acted(3, 2, 1), Acted(10, 10)]

    answer = await client.post(f"/queue/{verb}", {"sender": "*@shop.test", "by": "kim"})

    assert answer.status == 200
    assert answer.json == {
        "touched": 13,
        "messages": 12,
        "sending": 1,
        "left": {},
        "workers": 2,
        "cursors": [{"after": 0, "until": 0, "looked_at": 0, "of": 0}] * 2,
        "problems": [],
    }
    assert [(act.verb, act.selection, act.by) for act in asker.of(Act)] == [
        (verb, Selection(sender="*@shop.test"), "kim")
    ]


@pytest.mark.parametrize("body", [{}, {"by": "kim"}, {"all": False}, {"domain": 1}, {"domian": "x"}, [], None, "all"])
async def test_an_action_on_nothing_is_refused(client: Client, asker: FakeAsker, body: Any) -> None:
    """400, and no worker hears of it."""
    answer = await client.post("/queue/cancel", body)

    assert answer.status == 400
    assert answer.json["error"]
    assert asker.asked == []


async def test_a_worker_in_trouble_is_named(client: Client, asker: FakeAsker) -> None:
    """The others' answers are there; where nobody answers it is 503."""
    asker.answers[Act] = [Acted(3, 3), Failed("no such thing")]

    half = await client.post("/queue/hold", {"all": True})
    asker.down = {0, 1}
    nobody = await client.post("/queue/hold", {"all": True})

    assert (half.status, half.json["touched"], half.json["problems"]) == (200, 3, ["worker 1: no such thing"])
    assert (nobody.status, nobody.json) == (503, {"error": "no worker answers"})


async def test_suspensions_begin_and_end(client: Client, asker: FakeAsker, clock: FakeClock) -> None:
    """POST, GET, DELETE; all workers hear of it."""
    wish = {"selection": {"domain": "x.test"}, "for_s": 60, "reason": "why", "by": "kim"}

    begun = await client.post("/suspensions", wish)
    listed = await client.get("/suspensions")
    ended = await client.delete(f"/suspensions/{begun.json['suspension']['id']}?by=lee")
    again = await client.delete(f"/suspensions/{begun.json['suspension']['id']}")
    empty = await client.get("/suspensions")

    assert [answer.status for answer in (begun, listed, ended, again, empty)] == [201, 200, 200, 404, 200]
    suspension = begun.json["suspension"]
    assert suspension["selection"] == {"domain": "x.test"}
    assert suspension["until_s"] == clock.wall_s() + 60
    assert listed.json == {"suspensions": [suspension]}
    assert ended.json == {"suspension": suspension, "problems": []}
    assert empty.json == {"suspensions": []}
    assert [question.ended_by for question in asker.of(Suspend)] == ["", "", "lee", "lee"]


@pytest.mark.parametrize(
    "wish", [{}, {"for_s": 5}, {"selection": {}, "for_s": 5}, {"selection": {"all": True}, "for_s": -1}]
)
async def test_a_suspension_without_sense_is_refused(client: Client, asker: FakeAsker, wish: Any) -> None:
    """400, and nobody is told."""
    answer = await client.post("/suspensions", wish)

    assert answer.status == 400
    assert asker.asked == []


async def test_a_worker_that_comes_up_is_told(client: Client, asker: FakeAsker) -> None:
    """What the supervisor calls when one has started."""
    await client.post("/suspensions", {"selection": {"all": True}, "for_s": 60})
    asker.asked.clear()

    client.face.worker_up(1)
    await asyncio.sleep(0)

    (suspend, first), (rules, second) = asker.asked
    assert isinstance(suspend, Suspend)
    assert isinstance(rules, Rules)
    assert (len(suspend.suspensions), first, rules.snapshot, second) == (1, 1, Snapshot(), 1)


# -- who is let in --


async def test_the_token_is_needed(make_face: MakeFace, asker: FakeAsker) -> None:
    """Every page wants it; health without it says only whether all is well."""
    face = make_face(token="secret")
    await face.start()
    client = Client(face)

    refused = await client.get("/queue")
    wrong = await client.post("/queue/cancel", {"all": True}, Authorization="Bearer Secret")
    bare = await client.get("/health")
    known = await client.get("/health", Authorization="Bearer secret")
    metrics = await client.get("/metrics", Authorization="Bearer secret")

    assert (refused.status, wrong.status, bare.status, known.status, metrics.status) == (401, 401, 200, 200, 200)
    assert refused.headers["www-authenticate"] == "Bearer"
    assert bare.json == {"status": "ok"}
    assert known.json["workers"] == 2
    assert asker.of(Act) == []


async def test_pages_of_other_sites_change_nothing(client: Client, asker: FakeAsker) -> None:
    """A form sent by a browser, a name that leads to loopback: both are refused before anything is read."""
    form = await client.post("/queue/cancel", {"all": True}, Content_Type="text/plain")
    rebound = await client.post("/queue/cancel", {"all": True}, Host="evil.test")
    nameless = await client.get("/queue", Host="")

    assert (form.status, rebound.status) == (415, 403)
    assert nameless.status in (400, 403)
    assert asker.asked == []


async def test_a_unix_socket_is_for_its_owner_alone(make_face: MakeFace, tmp_path: Path) -> None:
    """Mode 0600; it is gone when the face is."""
    path = tmp_path / ("x" * 120) / "admin.sock"
    face = make_face(f"unix:{path}")

    await face.start()
    mode = stat.S_IMODE(path.stat().st_mode)
    await face.stop()

    assert mode == 0o600
    assert not path.exists()


async def test_a_unix_socket_is_spoken_to_as_tcp_is(make_face: MakeFace, tmp_path: Path) -> None:
    """The Host does not matter there."""
    face = make_face(f"unix:{tmp_path / 'admin.sock'}")
    await face.start()

    answer = await Client(face).get("/suspensions", Host="whatever.test")

    assert answer.status == 200


async def test_what_a_killed_server_left_is_no_hindrance(make_face: MakeFace, tmp_path: Path) -> None:
    """Its socket is replaced; a living one and a file of another kind are not."""
    path = tmp_path / "admin.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    face = make_face(f"unix:{path}")

    await face.start()

    assert (await Client(face).get("/health")).status == 200
    with pytest.raises(OSError, match="in use"):
        await make_face(f"unix:{path}").start()
    (tmp_path / "file").write_text("precious")
    with pytest.raises(OSError, match="no socket"):
        await make_face(f"unix:{tmp_path / 'file'}").start()
    assert (tmp_path / "file").read_text() == "precious"


async def test_a_port_that_is_taken_is_told(client: Client, make_face: MakeFace) -> None:
    """OSError, and nothing stays open."""
    with pytest.raises(OSError, match="in use"):
        await make_face(str(client.face.address)).start()


async def test_suspensions_that_cannot_be_read_stop_the_start(make_face: MakeFace, tmp_path: Path) -> None:
    """An error that says what to do; nothing is left of the attempt, and with the file gone it starts."""
    path = tmp_path / "admin.sock"
    (tmp_path / "suspensions.json").write_text("half a li")

    with pytest.raises(KeptFileError, match="remove it to suspend nothing"):
        await make_face(f"unix:{path}").start()

    assert not path.exists()
    (tmp_path / "suspensions.json").unlink()
    face = make_face(f"unix:{path}")
    await face.start()
    assert (await Client(face).get("/health")).status == 200


async def test_an_address_may_be_ipv6(make_face: MakeFace) -> None:
    """With its own Host."""
    face = make_face("[::1]:0")
    await face.start()

    answer = await Client(face).get("/health", Host=str(face.address))

    assert isinstance(face.address, TcpAddress)
    assert answer.status == 200


# -- what strangers send --


@pytest.mark.parametrize(
    ("method", "target", "status"),
    [
        ("GET", "/", 404),
        ("GET", "/nothing", 404),
        ("GET", "/queue/hold", 405),
        ("POST", "/queue/explode", 404),
        ("POST", "/metrics", 405),
        ("DELETE", "/suspensions", 405),
        ("OPTIONS", "/queue/hold", 405),
        ("GET", "/queue?limit=1&domian=x", 400),
        ("GET", "/queue/messages?limit=0", 400),
        ("GET", "/queue/messages?limit=5000", 400),
    ],
)
async def test_other_paths_and_methods_have_errors_in_json(
    client: Client, asker: FakeAsker, method: str, target: str, status: int
) -> None:
    """Always `{"error": ...}`."""
    answer = await client.ask(method, target, b"" if method != "GET" else None)

    assert answer.status == status
    assert answer.json["error"]
    assert asker.asked == []


async def test_bodies_are_bounded(client: Client, asker: FakeAsker) -> None:
    """64 KB, whether the length is told before or not."""
    large = json.dumps({"domain": "x" * 70_000}).encode()
    head = "POST /queue/hold HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"

    told = await client.ask("POST", "/queue/hold", large)
    chunked = await client.raw(
        f"{head}Transfer-Encoding: chunked\r\n\r\n{len(large):x}\r\n".encode() + large + b"\r\n0\r\n\r\n"
    )

    assert (told.status, chunked.status) == (413, 413)
    assert asker.asked == []


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"\r\n\r\n\r\n",
        b"GET\r\n\r\n",
        b"BREW /queue HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
        b"\x00\xff\xfe\r\n\r\n",
        b"GET /health HTTP/9.9\r\nHost: 127.0.0.1\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\nX: " + b"y" * 100_000 + b"\r\n\r\n",
        b"GET /" + b"z" * 100_000 + b" HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
        b"POST /queue/hold HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: -1\r\n\r\n",
        b"POST /queue/hold HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 100,
    ],
)
async def test_what_is_no_http_does_no_harm(client: Client, request_bytes: bytes) -> None:
    """It gets an error or nothing; whoever comes next is served."""
    reader, writer = await client.open()
    writer.write(request_bytes)
    writer.write_eof()
    answer = await reader.read()
    writer.close()

    assert answer == b"" or answer.split()[1][:1] == b"4"
    assert (await client.get("/health")).status == 200


async def test_a_connection_carries_one_request(client: Client) -> None:
    """And is closed; no answer may be kept by anybody on the way."""
    answer = await client.get("/health")

    assert answer.headers["connection"] == "close"
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["server"] == "mta"


async def test_a_connection_too_many_is_closed(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever is in stays in, and when one leaves there is room again."""
    monkeypatch.setattr(room, "CONNECTIONS_MAX", 2)
    idle = [await client.open() for _ in range(2)]
    await asyncio.sleep(0)

    too_many = await client.raw(b"")
    for _, writer in idle:
        writer.close()
        await writer.wait_closed()
    answer = await client.get("/health")

    assert too_many.status == 0
    assert answer.status == 200


async def test_who_says_nothing_is_cut(make_face: MakeFace, monkeypatch: pytest.MonkeyPatch) -> None:
    """After some sweeps; it cannot keep others out for ever."""
    monkeypatch.setattr(room, "SWEEP_S", 0.01)
    face = make_face()
    await face.start()
    reader, writer = await Client(face).open()

    said = await reader.read()
    writer.close()

    assert said == b""


async def test_stopping_does_not_wait_for_a_worker(
    client: Client, asker: FakeAsker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever waits for an answer is cut off after a moment, and nobody is let in any more."""
    is_asked, never = asyncio.Event(), asyncio.Event()

    async def silent(*_: object, **__: object) -> list[bytes | None]:
        is_asked.set()
        await never.wait()
        return []

    monkeypatch.setattr(asker, "ask", silent)
    waiting = asyncio.create_task(client.get("/queue"))
    await is_asked.wait()

    await client.face.stop()

    assert (await waiting).status in (0, 500)
    with pytest.raises(OSError, match="Connect call failed"):
        await client.open()


async def test_an_error_of_ours_is_one_answer(
    client: Client, asker: FakeAsker, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """500 in JSON for whoever met it; the others are served."""

    async def broken(*_: object, **__: object) -> list[bytes | None]:
        raise ZeroDivisionError("bug")

    monkeypatch.setattr(asker, "ask", broken)
    answer = await client.get("/queue")
    monkeypatch.undo()

    assert answer.status == 500
    assert answer.json == {"error": "an error of the server's own: ZeroDivisionError"}
    assert (await client.get("/health")).status == 200

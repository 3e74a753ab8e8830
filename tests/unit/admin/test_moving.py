"""The pages of exports and imports: each asks one worker, and says what is wrong in a sentence."""

import base64
from typing import Any

import msgspec

from mta.model.selection import Selection
from mta.reporting.moved_mail import (
    Export,
    Exported,
    ExportedItem,
    Import,
    Imported,
    Known,
    KnownAre,
    MovedItem,
    MovedRecipient,
    Piece,
    PieceOf,
    Remove,
    Upload,
)
from mta.reporting.questions import Act, Acted, Failed
from mta.testing.admin_rig import Client, FakeAsker

ID = "1m80zd5v0abcde000001"
ITEM = MovedItem(
    ID, "s@shop.test", [MovedRecipient("a@x.test", "x.test", note=b"\x00\xff")], 1.0, b"\x93", 3, b"abc", 7, 1
)
AS_JSON: dict[str, Any] = {
    "id": ID,
    "sender": "s@shop.test",
    "recipients": [{"address": "a@x.test", "domain": "x.test", "note": base64.b64encode(b"\x00\xff").decode()}],
    "received_s": 1.0,
    "envelope": base64.b64encode(b"\x93").decode(),
    "size": 3,
    "content": base64.b64encode(b"abc").decode(),
    "seq": 7,
    "worker": 1,
}


async def test_a_page_of_an_export(client: Client, asker: FakeAsker) -> None:
    """Of the worker that was named, who else there is to be asked, and where it goes on."""
    asker.answers[Export] = [Exported([]), Exported([ITEM], 7, {"being sent": 1}, 3, 9)]

    answer = await client.post("/queue/export", {"selection": {"domain": "x.test"}, "worker": 1, "after": 5})

    assert answer.status == 200
    assert answer.json == {
        "items": [AS_JSON],
        "next": 7,
        "left": {"being sent": 1},
        "looked_at": 3,
        "of": 9,
        "workers": 2,
        "hostname": "mail.test",
    }
    assert asker.asked == [(Export(Selection(domain="x.test"), 5), 1)]


async def test_a_piece(client: Client, asker: FakeAsker) -> None:
    """Of a large content, by the item's number."""
    asker.answers[Piece] = [PieceOf(b"xyz"), Failed("no")]

    answer = await client.get("/queue/export/0/12?offset=99")

    assert answer.json == {"data": base64.b64encode(b"xyz").decode()}
    assert asker.asked == [(Piece(12, 99, 1 << 20), 0)]
    for path in ("/queue/export/x/1", "/queue/export/0/1?offset=-1", "/queue/export/0/99999999999999999999"):
        assert (await client.get(path)).status == 400
    assert (await client.get("/queue/export/2/1")).status == 404


async def test_what_was_exported_is_removed(client: Client, asker: FakeAsker) -> None:
    """Item by item, with who asks."""
    asker.answers[Remove] = [Acted(2, 1, 0, {"not held any more": 1}), Acted(0, 0)]

    answer = await client.post("/queue/export/remove", {"worker": 0, "items": [[7, ID, [0, 1]]], "by": "kim"})

    assert (answer.json["touched"], answer.json["left"]) == (2, {"not held any more": 1})
    assert asker.asked == [(Remove([ExportedItem(7, ID, [0, 1])], "kim"), 0)]


async def test_what_any_worker_knows_is_known(client: Client, asker: FakeAsker) -> None:
    """All are asked; where one does not answer nobody knows, and nothing may be imported."""
    asker.answers[Known] = [KnownAre([2]), KnownAre([0, 2])]
    wish = {"recipients": [[ID, "a@x.test"], [ID, "b@x.test"], [ID, "c@x.test"]]}

    answer = await client.post("/queue/import/known", wish)
    asker.down = {1}
    late = await client.post("/queue/import/known", wish)

    assert answer.json == {"numbers": [0, 2], "workers": 2}
    assert (late.status, late.json) == (503, {"error": "worker 1 does not answer"})


async def test_an_import(client: Client, asker: FakeAsker) -> None:
    """As it was exported, also over 64 KB; the answer is the worker's, or why not."""
    asker.answers[Import] = [Failed("the disk is nearly full"), Imported(1, 1)]
    large = AS_JSON | {"content": base64.b64encode(bytes(300_000)).decode(), "size": 300_000}

    taken = await client.post("/queue/import", {"worker": 1, "items": [AS_JSON]})
    also = await client.post("/queue/import", {"worker": 1, "items": [large]})
    refused = await client.post("/queue/import", {"worker": 0, "items": [AS_JSON]})
    strange = await client.post("/queue/import", {"worker": 1, "items": [AS_JSON | {"id": "../x"}]})

    assert (taken.json, also.status) == ({"messages": 1, "recipients": 1}, 200)
    assert asker.asked[0] == (Import([ITEM]), 1)
    assert (refused.status, refused.json) == (503, {"error": "worker 0: the disk is nearly full"})
    assert strange.status == 400


async def test_a_piece_of_an_import(client: Client, asker: FakeAsker) -> None:
    """Goes to the worker that will have the item."""
    asker.answers[Upload] = [Imported(0, 0), Imported(0, 0)]

    await client.post("/queue/import/piece", {"worker": 1, "id": ID, "offset": 4, "data": "YWJj"})

    assert asker.asked == [(Upload(ID, 4, b"abc"), 1)]


async def test_an_export_of_nothing_is_a_mistake(client: Client, asker: FakeAsker) -> None:
    """As with every action: everything is never meant by silence."""
    answer = await client.post("/queue/export", {"selection": {}})
    unknown = await client.post("/queue/export", {"selection": {"all": True}, "wrker": 1})

    assert (answer.status, unknown.status) == (400, 400)
    assert asker.asked == []


async def test_only_cancel_notifies(client: Client, asker: FakeAsker) -> None:
    """And only where it is asked to."""
    asker.answers[Act] = [Acted(1, 1), Acted(0, 0)]

    wrong = await client.post("/queue/hold", {"all": True, "notify": True})
    right = await client.post("/queue/cancel", {"all": True, "notify": True})

    assert (wrong.status, right.status) == (400, 200)
    assert [act.notify for act in asker.of(Act)] == [True]


async def test_an_action_is_answered_when_it_is_done(client: Client, asker: FakeAsker, monkeypatch: Any) -> None:
    """Without cursors, however often the workers must be asked; with them after each time."""
    steps = {0: Acted(5, 5, next=100, until=200, looked_at=5, of=10), 100: Acted(4, 4, until=200, looked_at=10, of=10)}

    async def ask(question: Any, *, worker: int | None = None) -> list[bytes]:
        asker.asked.append((question, worker))
        return [msgspec.json.encode(steps[question.after])] * (2 if worker is None else 1)

    monkeypatch.setattr(asker, "ask", ask)

    whole = await client.post("/queue/hold", {"all": True})
    some = await client.post("/queue/hold", {"all": True, "cursors": []})
    rest = await client.post("/queue/hold", {"all": True, "cursors": some.json["cursors"]})

    assert (whole.json["touched"], [each["after"] for each in whole.json["cursors"]]) == (18, [0, 0])
    assert (some.json["touched"], [each["after"] for each in some.json["cursors"]]) == (10, [100, 100])
    assert (rest.json["touched"], [each["after"] for each in rest.json["cursors"]]) == (8, [0, 0])

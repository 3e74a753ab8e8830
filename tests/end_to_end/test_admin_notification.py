"""A message bounces: its sender is told by mail, and an admin can follow both messages from one to the other."""

from pathlib import Path

from bench.ledger import Village
from bench.sink import Sink
from mta.testing.commands import run
from mta.testing.running_server import Event, RunningServer
from mta.testing.toy_dns import ToyDns


def told(events: list[Event]) -> set[tuple[str, str]]:
    """What was told of which message."""
    return {(each["event"], each["id"]) for each in events}


def notice_of(events: list[Event]) -> str:
    """The notification that a bounce names."""
    return next((each["dsn"] for each in events if each["event"] == "bounced"), "not yet")


async def test_a_bounce_is_followed_to_its_notification(tmp_path: Path) -> None:
    """`show` of the message names the notification; `show` of the notification says that it was delivered."""
    village = Village(2)
    async with (
        ToyDns(village.zone) as dns,
        Sink(village.profiles(keep="contents")) as sink,
        RunningServer(tmp_path, dns=dns.address, port=sink.port, policies=village.policies()) as server,
    ):
        message_id = await server.send("boss@d1.test", ["unknown@d0.test", "fine@d0.test"])
        events = await server.until_told(
            lambda events: {("received", notice_of(events)), ("delivered", notice_of(events))} <= told(events),
            "the notification was delivered",
        )
        notice = notice_of(events)
        about = (await run(server, "queue", "show", message_id)).out
        of_notice = (await run(server, "queue", "show", notice, "--json")).json
        assert await server.stop() == 0

    (delivery,) = [each for each in sink.profiles["d1.test"].deliveries if "boss@d1.test" in str(each)]
    assert "nothing of it waits any more" in about
    assert f"(the sender was told: {notice})" in about
    assert [(each["event"], each.get("recipient")) for each in of_notice["history"]] == [
        ("received", None),
        ("delivered", "boss@d1.test"),
    ]
    assert of_notice["history"][0]["sender"] == ""
    assert b"unknown@d0.test" in (delivery.content or b"")
    assert b"fine@d0.test" not in (delivery.content or b"")

"""A listener that trusts nobody relays for nobody, in whatever form it is asked."""

import asyncio
import smtplib
from pathlib import Path

import pytest

from bench.sink import Profile, Sink
from mta.testing.running_server import Event, RunningServer, free_port
from mta.testing.toy_dns import ToyDns

ZONE = {"*.test": {"MX": ["10 mx.swift.test."]}, "mx.swift.test": {"A": ["127.0.0.2"]}}
FORMS = [
    "<b@victim.test>",
    "<b%victim.test@mail.server.test>",
    '<"b@victim.test"@mail.server.test>',
    "<@mail.server.test:b@victim.test>",
    "<victim.test!b@mail.server.test>",
    "<b@[127.0.0.2]>",
    "<b@victim.test.>",
    "<B@VICTIM.TEST>",
    "<postmaster>",
    "<b@mail.server.test>",
    "<b@xn--bcher-kva.test>",
    "b@victim.test",
]


def at_rcpt(told: list[Event]) -> list[Event]:
    """Refusals of recipients; each worker writes its own now and then."""
    return [each for each in told if each["event"] == "rejected" and each["stage"] == "rcpt"]


async def test_strangers_are_refused_and_friends_are_not(tmp_path: Path) -> None:
    """550 5.7.1 for every form, nothing for DATA; another listener of the same server goes on relaying."""
    open_port = free_port()
    async with (
        ToyDns(ZONE) as dns,
        Sink([Profile(name="swift")]) as sink,
        RunningServer(
            tmp_path,
            dns=dns.address,
            port=sink.port,
            more=f'trusted = []\n\n[[listener]]\naddress = "127.0.0.1:{open_port}"\n',
        ) as server,
    ):

        def ask() -> list[tuple[int, bytes]]:
            said = []
            for form in FORMS:
                with smtplib.SMTP("127.0.0.1", server.smtp_port, local_hostname="c.test", timeout=30) as client:
                    client.ehlo()
                    assert client.docmd("MAIL", "FROM:<a@victim.test>")[0] == 250
                    said.append(client.docmd("RCPT", f"TO:{form}"))
                    assert client.docmd("DATA")[0] == 554
            return said

        refused = await asyncio.to_thread(ask)
        with pytest.raises(smtplib.SMTPRecipientsRefused):
            await server.send("a@shop.test", ["b@victim.test"])
        server.smtp_port = open_port
        await server.send("a@shop.test", ["b@victim.test"])
        await sink.until(lambda: sink.messages == 1)
        told = await server.until_told(
            lambda told: any(each["event"] == "delivered" for each in told) and len(at_rcpt(told)) > len(FORMS)
        )

    assert {(code, text[:5]) for code, text in refused} == {(550, b"5.7.1")}
    assert len(at_rcpt(told)) == len(FORMS) + 1
    assert sum(each["event"] == "received" for each in told) == 1

"""STARTTLS on the way out: used where it is offered, given up only as the policy allows."""

import asyncio
import ssl
from pathlib import Path

import trustme

from bench.sink import Profile, Sink
from mta.testing.running_server import RunningServer
from mta.testing.scripted_peer import Close, Do, Expect, Say, ScriptedPeer, StartTls, Step, accept, goodbye, hello
from mta.testing.toy_dns import ToyDns

ZONE = {"tls.test": {"MX": ["10 mx.tls.test."]}, "mx.tls.test": {"A": ["127.0.0.2"]}}
HANDSHAKE: list[Step] = [Expect("STARTTLS"), Say("220 2.0.0 go ahead")]


def policy(tls: str, messages_per_connection: int = 0) -> str:
    return f"""match = {{ domains = ["tls.test"] }}
tls = "{tls}"
[limits]
connections = 1
connection_rate = "none"
messages_per_connection = {messages_per_connection}
rate = "none"
"""


def certificate() -> ssl.SSLContext:
    """Of a host with a certificate that nobody has to know."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("mx.tls.test").configure_cert(context)
    return context


async def test_mail_is_encrypted_where_that_is_offered(tmp_path: Path) -> None:
    """An opportunistic policy takes STARTTLS, whoever signed the certificate; the event names version and cipher."""
    async with (
        ToyDns(ZONE) as dns,
        Sink([Profile(name="tls", keep="contents")], tls=certificate()) as sink,
        RunningServer(tmp_path, dns=dns.address, port=sink.port, policies={"tls": policy("opportunistic")}) as server,
    ):
        for _ in range(3):
            await server.send("a@shop.test", ["user@tls.test"])
        await sink.until(lambda: sink.messages == 3)
        events = await server.until_told(lambda told: sum(each["event"] == "delivered" for each in told) == 3)
        tls = sink.profiles["tls"]

    assert tls.tls_handshakes == tls.connections_total == 1
    assert all(delivery.content.endswith(b"\r\n\r\nHello.\r\n") for delivery in tls.deliveries)
    for each in events:
        if each["event"] == "delivered":
            version, cipher = each["tls"].split(" ")
            assert version == "TLSv1.3"
            assert cipher.startswith("TLS_")


async def test_a_failed_handshake_is_followed_by_a_connection_in_clear(tmp_path: Path) -> None:
    """An opportunistic policy goes on in clear, but on a new connection and never on the one that failed."""
    broken: list[Step] = [*hello("PIPELINING", "STARTTLS"), *HANDSHAKE, Say("this is no TLS"), Close()]
    clear = [*hello("PIPELINING", "STARTTLS"), *accept(), *goodbye()]
    async with (
        ScriptedPeer(broken, clear, address="127.0.0.2") as peer,
        ToyDns(ZONE) as dns,
        RunningServer(
            tmp_path, dns=dns.address, port=peer.port, policies={"tls": policy("opportunistic", 1)}
        ) as server,
    ):
        await server.send("a@shop.test", ["user@tls.test"])
        events = await server.until_told(lambda told: any(each["event"] == "delivered" for each in told))
        await peer.finished()

    assert [commands[1] for commands in peer.commands] == ["STARTTLS", "MAIL FROM:<a@shop.test>"]
    fates = [each for each in events if each["event"] not in ("received",)]
    assert [(each["event"], each.get("tls", "")) for each in fates] == [("delivered", "")]


async def test_where_tls_is_required_nothing_goes_in_clear(tmp_path: Path) -> None:
    """A peer that does not offer STARTTLS defers the mail, before anything is said of it."""
    async with (
        ToyDns(ZONE) as dns,
        Sink([Profile(name="tls")]) as sink,
        RunningServer(tmp_path, dns=dns.address, port=sink.port, policies={"tls": policy("required")}) as server,
    ):
        tls = sink.profiles["tls"]
        await server.send("a@shop.test", ["user@tls.test"])
        events = await server.until_told(lambda told: any(each["event"] == "deferred" for each in told))
        sink.profiles["tls"].tls = certificate()
        await sink.until(lambda: sink.messages == 1, 60)

    deferred = [each for each in events if each["event"] == "deferred"]
    assert {(each["stage"], each["code"], each["attempt"]) for each in deferred} == {("starttls", 451, 0)}
    assert {each["text"] for each in deferred} == {"TLS is required but not offered"}
    assert tls.mails == tls.tls_handshakes == 1


async def test_where_the_certificate_is_verified_a_stranger_gets_nothing(tmp_path: Path) -> None:
    """With `verify` a certificate of an unknown authority defers the mail."""
    async with (
        ToyDns(ZONE) as dns,
        Sink([Profile(name="tls")], tls=certificate()) as sink,
        RunningServer(tmp_path, dns=dns.address, port=sink.port, policies={"tls": policy("verify")}) as server,
    ):
        await server.send("a@shop.test", ["user@tls.test"])
        events = await server.until_told(lambda told: any(each["event"] == "deferred" for each in told))
        tls = sink.profiles["tls"]

    (deferred,) = [each for each in events if each["event"] == "deferred"]
    assert deferred["stage"] == "starttls"
    assert "certificate" in deferred["text"]
    assert tls.mails == 0


async def test_a_second_connection_resumes_the_session_of_the_first(tmp_path: Path) -> None:
    """With one message a connection the peer sees a full handshake first and a resumed one then."""
    resumed: list[bool] = []

    async def look(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        resumed.append(writer.get_extra_info("ssl_object").session_reused)

    script: list[Step] = [*hello("PIPELINING", "STARTTLS"), *HANDSHAKE, StartTls(certificate()), Do(look)]
    script += [Expect("EHLO *"), Say("250-peer.example\n250 PIPELINING"), *accept(), *goodbye()]
    async with (
        ScriptedPeer(script, address="127.0.0.2") as peer,
        ToyDns(ZONE) as dns,
        RunningServer(
            tmp_path, dns=dns.address, port=peer.port, policies={"tls": policy("opportunistic", 1)}
        ) as server,
    ):
        for count in (1, 2, 3):
            await server.send("a@shop.test", ["user@tls.test"])
            await server.until_told(lambda told: sum(each["event"] == "delivered" for each in told) == count)  # noqa: B023 - awaited within the round
        await peer.finished()

    assert resumed == [False, True, True]

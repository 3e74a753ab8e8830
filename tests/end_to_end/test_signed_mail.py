"""DKIM: what leaves is signed by the keys of its From domain, once, and told in the event log."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.sink import Profile, Sink
from mta.signing.keys import SigningKey
from mta.testing.running_server import RunningServer
from mta.testing.signing_rig import ed25519_key, rsa_key, verify
from mta.testing.toy_dns import ToyDns

SHOP = rsa_key("shop.test", "s2026")
ESP = ed25519_key("esp.test", "all")
ZONE: dict[str, dict[str, Any]] = {
    name: {"MX": [f"10 mx.{name}."]} for name in ("swift.test", "slow.test", "third.test")
} | {f"mx.{name}": {"A": ["127.0.0.2"]} for name in ("swift.test", "slow.test", "third.test")}
QUICK = """
tls = "none"
[limits]
connections = 4
connection_rate = "none"
rate = "none"
[retry]
schedule = ["1s"]
jitter = "0%"
"""


def write_keys(folder: Path, keys: Sequence[SigningKey]) -> str:
    """Key files, and the lines of mta.toml that name them; those of esp.test sign every message."""
    lines = ""
    for key in keys:
        path = folder / f"{key.selector}.pem"
        path.write_bytes(key.pem)
        path.chmod(0o600)
        lines += f'[[dkim]]\ndomain = "{key.domain}"\nselector = "{key.selector}"\nkey = "{path.name}"\n'
        lines += 'sign = "always"\n' if key is ESP else ""
    return lines


def letter(domain: str, text: str = "Hello.") -> bytes:
    return f"From: Shop <a@{domain}>\r\nTo: b@swift.test\r\nSubject: Your order\r\n\r\n{text}\r\n".encode()


def delivered(events: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {each["recipient"]: each for each in events if each["event"] == "delivered"}


def carries(content: bytes, key: SigningKey) -> bool:
    """Whether a good signature of this key stands anywhere in the header."""
    fields = content[: content.index(b"Received: ")].split(b"DKIM-Signature: ")[1:]
    own = [field for field in fields if f"d={key.domain};".encode() in field]
    if not own:
        return False
    return verify(b"DKIM-Signature: " + own[0] + content[content.index(b"Received: ") :], key)


async def test_signed_by_the_from_domain_and_by_the_provider(tmp_path: Path) -> None:
    """A message of a domain with a key carries its signature and that of the key that always signs, and both verify."""
    async with (
        ToyDns(ZONE) as dns,
        Sink([Profile(name="swift", keep="contents")]) as sink,
        RunningServer(tmp_path, dns=dns.address, port=sink.port, more=write_keys(tmp_path, [SHOP, ESP])) as server,
    ):
        await server.send("a@shop.test", ["b1@swift.test"], letter("shop.test"))
        await server.send("a@shop.test", ["b2@swift.test"], letter("mail.shop.test"))
        await server.send("a@shop.test", ["b3@swift.test"], letter("other.test"))
        await sink.until(lambda: sink.messages == 3)
        events = await server.until_told(lambda events: len(delivered(events)) == 3)
        assert await server.stop() == 0

    contents = {each.recipients[0]: each.content for each in sink.profiles["swift"].deliveries}
    assert carries(contents["b1@swift.test"], SHOP)
    assert carries(contents["b1@swift.test"], ESP)
    assert carries(contents["b2@swift.test"], SHOP)
    assert not carries(contents["b3@swift.test"], SHOP)
    assert carries(contents["b3@swift.test"], ESP)
    told = delivered(events)
    assert told["b1@swift.test"]["dkim"] == told["b2@swift.test"]["dkim"] == "shop.test,esp.test"
    assert told["b3@swift.test"]["dkim"] == "esp.test"


async def test_once_however_many_recipients_and_attempts(tmp_path: Path) -> None:
    """Recipients of one site and those that were put off first, even over a restart, get one and the same signature."""
    async with (
        ToyDns(ZONE) as dns,
        Sink([Profile(name="swift", keep="contents")]) as sink,
        RunningServer(
            tmp_path,
            dns=dns.address,
            port=sink.port,
            policies={"default": QUICK.replace('"1s"', '"4s"')},
            more=write_keys(tmp_path, [SHOP]),
        ) as server,
    ):
        recipients = [f"b{number}@swift.test" for number in range(5)] + ["tempfail.1+1@swift.test"]
        await server.send("a@shop.test", recipients, letter("shop.test"))
        await server.until_told(lambda events: any(each["event"] == "deferred" for each in events))
        assert await server.stop() == 0
        await server.start()
        events = await server.until_told(lambda events: len(delivered(events)) == 6)
        assert await server.stop() == 0

    contents = {each.content for each in sink.profiles["swift"].deliveries}
    assert len(sink.profiles["swift"].deliveries) == 2
    assert len(contents) == 1
    assert all(carries(content, SHOP) for content in contents)
    assert {each["dkim"] for each in delivered(events).values()} == {"shop.test"}


async def test_first_key_comes_with_a_reload(tmp_path: Path) -> None:
    """A server without keys runs no helpers; SIGHUP with the first key starts them, and mail is signed from then on."""
    async with (
        ToyDns(ZONE) as dns,
        Sink([Profile(name="swift", keep="contents")]) as sink,
        RunningServer(tmp_path, dns=dns.address, port=sink.port) as server,
    ):
        await server.send("a@shop.test", ["b1@swift.test"], letter("shop.test"))
        await sink.until(lambda: sink.messages == 1)
        assert not list((tmp_path / "queue" / "links").glob("signer-*"))

        server.config.write_text(server.config.read_text() + write_keys(tmp_path, [SHOP]))
        await server.reload()
        await server.until(
            lambda: len(list((tmp_path / "queue" / "links").glob("signer-*"))) == 2, "the helpers listen"
        )
        while sink.messages < 20:
            before = sink.messages
            await server.send("a@shop.test", [f"b{before}@swift.test"], letter("shop.test"))
            await sink.until(lambda: sink.messages > before)  # noqa: B023 - awaited at once
        assert await server.stop() == 0

    deliveries = sink.profiles["swift"].deliveries
    assert not carries(deliveries[0].content, SHOP)
    assert carries(deliveries[-1].content, SHOP)

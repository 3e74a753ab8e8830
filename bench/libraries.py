"""What well-known libraries cost a message, beside code of our own: the numbers of decision 0001.

CPU time, not wall time, so that a busy machine disturbs little: of a whole process where one side is
measured (the other side is another process), of this process for signatures.

    python -m bench.libraries [--messages 4000] [--save libraries]
"""

import argparse
import asyncio
import contextlib
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import aiosmtplib
import dkim
import msgspec
import uvloop
from aiosmtpd.smtp import SMTP, Envelope, Session
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ed25519, padding, rsa

from bench.load import Maker, Plan, run
from bench.results_file import save
from bench.rig import Rig, is_listening
from bench.table import render
from bench.temper import Profile
from mta.testing.ports import free_port

SESSIONS = 20
ROUNDS = 5
SIGNATURES = 400
SIGNATURES_SLOW = 40  # of pure Python


class Cost(msgspec.Struct):
    """One row."""

    what: str
    least_cpu_us: float
    """Of the rounds, a message or a signature: what it costs where nothing else uses the caches."""
    median_cpu_us: float
    rounds: list[float]


class Taker:
    """What aiosmtpd hands its messages to: nothing is done with them."""

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802 - its name
        return "250 OK"


async def serve_aiosmtpd(port: int) -> None:
    """aiosmtpd as it is, on uvloop as the rest."""
    loop = asyncio.get_running_loop()
    await loop.create_server(lambda: SMTP(Taker(), hostname="bench.test", loop=loop), "127.0.0.1", port)
    await loop.create_future()


def receiving(rig: Rig, name: str, port: int, host: str, messages: int) -> float:
    """CPU microseconds a message of the receiving process, under our generator."""
    plan = Plan(host=host, port=port, messages=messages, sessions=SESSIONS)
    uvloop.run(run(msgspec.structs.replace(plan, messages=200)))
    before_s = rig.cpu_s(name)
    uvloop.run(run(plan))
    return (rig.cpu_s(name) - before_s) / messages * 1e6


def sending_ours(host: str, port: int, messages: int) -> float:
    """CPU microseconds a message of this process: our generator, which also makes the messages."""
    plan = Plan(host=host, port=port, messages=messages, sessions=SESSIONS)
    before_s = time.process_time()
    uvloop.run(run(plan))
    return (time.process_time() - before_s) / messages * 1e6


def sending_aiosmtplib(host: str, port: int, messages: int) -> float:
    """CPU microseconds a message of this process: aiosmtplib over kept-open connections."""
    maker = Maker(Plan(run_id="library"))
    contents = [maker.make(number, 0.0).content.removesuffix(b".\r\n") for number in range(messages)]

    async def work(numbers: range) -> None:
        async with aiosmtplib.SMTP(hostname=host, port=port, local_hostname="bench.test", start_tls=False) as client:
            for number in numbers:
                await client.sendmail("a@load.test", [f"user{number}@sink.test"], contents[number])

    async def work_all() -> None:
        await asyncio.gather(*(work(range(first, messages, SESSIONS)) for first in range(SESSIONS)))

    before_s = time.process_time()
    uvloop.run(work_all())
    return (time.process_time() - before_s) / messages * 1e6


def signing(sign: Callable[[], object], count: int) -> float:
    """CPU microseconds a signature."""
    sign()
    before_s = time.process_time()
    for _ in range(count):
        sign()
    return (time.process_time() - before_s) / count * 1e6


def signers() -> list[tuple[str, Callable[[], object], int]]:
    """Name, one signature over a message of 4 KB, and how often it is done."""
    key = rsa.generate_private_key(65537, 2048)
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
    )
    content = Maker(Plan(run_id="library")).make(0, 0.0).content.removesuffix(b".\r\n")
    scheme, kind, short = padding.PKCS1v15(), hashes.SHA256(), ed25519.Ed25519PrivateKey.generate()
    return [
        ("dkimpy: DKIM, RSA-2048, all of it", lambda: dkim.sign(content, b"s1", b"load.test", pem), SIGNATURES_SLOW),
        ("cryptography: RSA-2048 over SHA-256", lambda: key.sign(content, scheme, kind), SIGNATURES),
        ("cryptography: Ed25519", lambda: short.sign(content), SIGNATURES),
    ]


def measure(messages: int) -> list[Cost]:
    """All rows; each round measures everything once, so that a busy minute disturbs all alike."""
    rounds: dict[str, list[float]] = {}

    def note(what: str, cpu_us: float) -> None:
        rounds.setdefault(what, []).append(round(cpu_us, 1))

    with tempfile.TemporaryDirectory() as folder, Rig(Path(folder)) as rig:
        ours = rig.start_sink([Profile(name="sink", keep="counts", times=False)])
        theirs = free_port()
        rig.start("aiosmtpd", [sys.executable, "-m", "bench.libraries", "--serve", str(theirs)])
        rig.wait("aiosmtpd", lambda: is_listening("127.0.0.1", theirs))
        for _ in range(ROUNDS):
            note("receive: aiosmtpd", receiving(rig, "aiosmtpd", theirs, "127.0.0.1", messages))
            note("receive: own Protocol (bench.sink)", receiving(rig, "sink", ours, "127.0.0.2", messages))
            note("send: aiosmtplib", sending_aiosmtplib("127.0.0.2", ours, messages))
            note("send: own Protocol (bench.load)", sending_ours("127.0.0.2", ours, messages))
            for name, sign, count in signers():
                note(f"sign: {name}", signing(sign, count))
    return [Cost(what, min(figures), statistics.median(figures), figures) for what, figures in rounds.items()]


def main(argv: list[str] | None = None) -> int:
    """`python -m bench.libraries`"""
    parser = argparse.ArgumentParser(prog="python -m bench.libraries", description="What libraries cost a message.")
    parser.add_argument("--messages", type=int, default=4_000, help="of 4,096 bytes, in each of the rounds")
    parser.add_argument("--save", metavar="NAME", help="write bench/results/NAME.json")
    parser.add_argument("--serve", type=int, metavar="PORT", help="be the receiving aiosmtpd (used by itself)")
    args = parser.parse_args(argv)
    if args.serve:
        with contextlib.suppress(KeyboardInterrupt):
            uvloop.run(serve_aiosmtpd(args.serve))
        return 0
    costs = measure(args.messages)
    rows = [[each.what, f"{each.least_cpu_us:.0f}", f"{each.median_cpu_us:.0f}"] for each in costs]
    print(render([f"CPU microseconds, of {ROUNDS} rounds", "least", "median"], rows))
    if args.save:
        print(f"  written to {save(args.save, costs)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

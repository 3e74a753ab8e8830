"""A disk that takes no more: mail already in goes out, new mail is told to come later, and all is well by itself.

The kernel refuses every write of the workers (RLIMIT_FSIZE, which needs no rights and stands for a full disk: a write
takes what still fits, then fails) while the system says that there is room.
"""

import asyncio
import resource
import smtplib
from pathlib import Path

from bench.ledger import Ledger, Village
from bench.load import Plan
from bench.sink import Sink
from mta.testing.running_server import RunningServer
from mta.testing.toy_dns import ToyDns

WAITING = 60
AFTER = 20
WITHIN_S = 60.0


def let_files_grow(server: RunningServer, bytes_max: int) -> None:
    """No file that a worker writes to may be larger from now on."""
    for pid in server.worker_pids().values():
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (bytes_max, resource.RLIM_INFINITY))


async def reply_to_mail(server: RunningServer) -> tuple[int, str]:
    """What a client is told that wants to hand in a message."""

    def ask() -> tuple[int, str]:
        with smtplib.SMTP("127.0.0.1", server.smtp_port, timeout=60) as client:
            client.ehlo("application.test")
            code, text = client.mail("a@shop.test", [])
            return code, text.decode()

    return await asyncio.to_thread(ask)


async def reply_to_message(server: RunningServer) -> int:
    """The code that a message ends with, wherever it is refused."""
    try:
        await server.send("a@shop.test", ["someone@nowhere.test"])
    except smtplib.SMTPDataError as refused:
        return refused.smtp_code
    except smtplib.SMTPRecipientsRefused:
        return (await reply_to_mail(server))[0]
    return 250


async def until_mail_is(server: RunningServer, code: int) -> str:
    """Every worker's door answers MAIL with this code, or TimeoutError; -> the last reply."""
    loop = asyncio.get_running_loop()
    end_s = loop.time() + WITHIN_S
    same = 0
    while True:
        found, text = await reply_to_mail(server)
        same = same + 1 if found == code else 0
        if same == 3:
            return text
        if loop.time() > end_s:
            raise TimeoutError(f"MAIL is answered {found} {text}")


async def test_a_disk_that_takes_nothing_more(tmp_path: Path) -> None:
    """Mail in the queue is delivered, new mail gets 452 4.3.1, and both are right again when the disk takes more."""
    village = Village(4)
    async with (
        ToyDns(village.zone) as dns,
        Sink(village.profiles(down=True)) as sink,
        RunningServer(tmp_path, dns=dns.address, port=sink.port, workers=1, policies=village.policies()) as server,
    ):
        ledger = Ledger(sink)
        await ledger.run(Plan(port=server.smtp_port, messages=WAITING, domains=village.domains))
        assert len(ledger.accepted) == WAITING

        let_files_grow(server, 1)
        refused = await reply_to_message(server)
        text = await until_mail_is(server, 452)
        for provider in sink.profiles.values():
            await provider.set_down(False)
        await server.until(lambda: not ledger.missing(), "waiting mail arrived without a disk", WITHIN_S)
        still = await reply_to_mail(server)

        let_files_grow(server, resource.RLIM_INFINITY)
        await until_mail_is(server, 250)
        await ledger.run(Plan(port=server.smtp_port, messages=AFTER, domains=village.domains))
        await server.until(lambda: not ledger.missing(), "new mail arrived", WITHIN_S)
        await server.until(lambda: not ledger.untold(server.events()), "all was told", WITHIN_S)
        await server.kill_and_wait()  # what was not written down meanwhile would go out again
        await server.start()
        await ledger.run(Plan(port=server.smtp_port, messages=1, domains=village.domains))
        await server.until(lambda: not ledger.missing(), "the last mail arrived", WITHIN_S)
        status = await server.stop()

    assert (refused, still[0]) == (452, 452)
    assert text.startswith("4.3.1")
    assert status == 0
    assert len(ledger.accepted) == WAITING + AFTER + 1
    assert ledger.twice() == {}
    assert ledger.strangers() == set()

"""The `mta` command against a running server, as an admin types it.

done = await run(server, "queue", "hold", "--domain", "a.test")
page = await until_shown(server, lambda page: not page["rows"], "queue", "summary")
"""

import asyncio
import json
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

from mta.testing.running_server import POLL_S, RunningServer


class Done(NamedTuple):
    """What a command said."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """Of a command with `--json`."""
        return json.loads(self.out)


async def run(server: RunningServer, *words: str) -> Done:
    """Run `mta WORDS` with the server's configuration."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "mta.cli", *words, "--config", str(server.config)),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    assert process.returncode is not None, "it has ended"
    return Done(process.returncode, out.decode(), err.decode())


async def fetched(server: RunningServer, path: str) -> tuple[int, str]:
    """A page of the admin face, as a monitor asks for it."""
    reader, writer = await asyncio.open_unix_connection(str(server.folder / "admin.sock"))
    writer.write(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    head, _, body = (await reader.read()).decode().partition("\r\n\r\n")
    writer.close()
    await writer.wait_closed()
    return int(head.split()[1]), body


async def until_shown(
    server: RunningServer, condition: Callable[[Any], bool], *words: str, timeout_s: float = 60.0
) -> Any:
    """Run a command with `--json` until it succeeds and shows what is waited for; -> what it shows."""
    end_s = asyncio.get_running_loop().time() + timeout_s
    while True:
        done = await run(server, *words, "--json")
        if done.status == 0 and condition(done.json):
            return done.json
        if asyncio.get_running_loop().time() > end_s:
            raise TimeoutError(f"mta {' '.join(words)} still says: {done}; the server said: {server.log[-2000:]}")
        await asyncio.sleep(POLL_S)

"""An admin face on TCP with a token: commands find both in the configuration, strangers hear nothing."""

import asyncio
from pathlib import Path

from mta.testing.commands import run
from mta.testing.ports import free_port
from mta.testing.running_server import RunningServer
from mta.testing.toy_dns import ToyDns

TOKEN = "a long token, drawn at random"


async def asked(port: int, method: str, path: str, *fields: str) -> tuple[int, str]:
    """Status and body of one request, said by hand."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write("\r\n".join([f"{method} {path} HTTP/1.1", *fields, "", ""]).encode())
    head, _, body = (await reader.read()).decode().partition("\r\n\r\n")
    writer.close()
    await writer.wait_closed()
    return int(head.split()[1]), body


async def test_the_token_is_needed_and_found(tmp_path: Path) -> None:
    """The configuration or a file says it; without it every page is refused, and health has the status alone."""
    port = free_port()
    async with ToyDns({}) as dns:
        server = RunningServer(tmp_path, dns=dns.address, port=9)
        admin = f'address = "127.0.0.1:{port}"\ntoken = {{ file = "admin.token" }}'
        server.config.write_text(server.config.read_text().replace('address = "unix:admin.sock"', admin))
        (tmp_path / "admin.token").write_text(f"{TOKEN}\n")
        async with server:
            by_config = await run(server, "queue", "summary")
            by_file = await run(
                server, "suspend", "list", "--admin", f"127.0.0.1:{port}", "--token-file", str(tmp_path / "admin.token")
            )
            without = await run(server, "queue", "cancel", "--all", "--admin", f"127.0.0.1:{port}")
            host = f"Host: 127.0.0.1:{port}"
            metrics = await asked(port, "GET", "/metrics", host)
            wrong = await asked(port, "DELETE", "/suspensions/x", host, "Authorization: Bearer guess")
            health = await asked(port, "GET", "/health", host)
            known = await asked(port, "GET", "/metrics", host, f"Authorization: Bearer {TOKEN}")
            assert await server.stop() == 0
        ended = await run(server, "queue", "summary")

    assert (by_config.status, by_file.status) == (0, 0)
    assert by_file.out == "nothing is suspended\n"
    assert without.status == 1
    assert "wants a token: --token-file FILE" in without.err
    assert (metrics[0], wrong[0], health[0], known[0]) == (401, 401, 200, 200)
    assert '{"status":"ok"}' in health[1]
    assert 'mta_up{worker="1"} 1' in known[1]
    assert (ended.status, ended.err) == (
        69,
        f"mta queue: no server answers at 127.0.0.1:{port}: connection refused\n",
    )

"""The baseline as an engine: well-known libraries, put together straightforwardly (bench.baseline_server).

It is told what the plan says in its own words: routes or a name server, connections and messages a connection for each
destination (shared out among its processes, for they know nothing of each other), one pause before a retry. It keeps
no rates: a provider that is sent too much says so, and the mail comes again later.
"""

import os
import sys

import msgspec
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from bench.baseline_directions import Limits
from bench.engines import EngineError, EnginePlan
from bench.rig import Rig, RigError, is_listening

IDLE_S_MAX = 5.0  # with one connection a mail host and thousands of hosts, idle ones would take all the places


class BaselineEngine:
    """aiosmtpd, a synced file a message, aiosmtplib, dkimpy; as many processes as the plan has workers."""

    name = "baseline"

    def __init__(self) -> None:
        self.smtp_port = 0
        self._rig: Rig | None = None

    def start(self, rig: Rig, plan: EnginePlan) -> None:
        """Returns when every process takes mail, so that the sessions spread over all of them."""
        command = [sys.executable, "-m", "bench.baseline_server", *arguments(plan)]
        self._rig, self.smtp_port = rig, plan.smtp_port
        rig.start(self.name, command)
        log = rig.log_of(self.name)
        rig.wait(self.name, lambda: log.read_bytes().count(b"listens on") >= plan.workers)
        rig.wait(self.name, lambda: is_listening("127.0.0.1", plan.smtp_port, greeting=b"220"))

    def pids(self) -> list[int]:
        """The parent of its processes."""
        return [self._rig.pid(self.name)] if self._rig is not None else []

    def stop(self) -> None:
        """Ends all processes; what had no fate is left in the folder. Raises RigError where one had failed."""
        if self._rig is not None and (status := self._rig.stop(self.name)):
            raise RigError(f"the baseline ended with status {status}; it wrote last:\n{self._rig.tail(self.name)}")


def arguments(plan: EnginePlan) -> list[str]:
    """What the server is started with; writes its files into the folder. Raises EngineError."""
    files: dict[str, object] = {"limits": limits(plan)}
    if plan.dns_port:
        direction = ["--dns", f"127.0.0.1:{plan.dns_port}"]
    elif plan.routes:
        files["routes"] = dict(plan.routes)
        direction = ["--routes", str(plan.folder / "routes.json")]
    else:
        raise EngineError("the plan has neither a name server nor routes")
    for name, content in files.items():
        (plan.folder / f"{name}.json").write_bytes(msgspec.json.encode(content))
    return [
        *("--listen", f"127.0.0.1:{plan.smtp_port}"),
        *("--processes", str(plan.workers)),
        *("--queue", str(plan.folder / "queue")),
        *("--durability", plan.durability),
        *("--port", str(plan.sink_port)),
        *("--limits", str(plan.folder / "limits.json")),
        *("--retry-s", str(plan.retry_s)),
        *("--idle-s", str(min(plan.idle_timeout_s, IDLE_S_MAX))),
        *direction,
        *signing(plan),
    ]


def limits(plan: EnginePlan) -> list[Limits]:
    """A process's share of every destination's connections; those of all others last."""
    special, default = [], Limits()
    for each in plan.destinations:
        share = Limits(
            connections=max(1, each.connections // plan.workers),
            messages_per_connection=each.messages_per_connection,
            domains=each.domains,
            mx=each.mx,
        )
        if each.domains or each.mx:
            special.append(share)
        else:
            default = share
    return [*special, default]


def signing(plan: EnginePlan) -> list[str]:
    """The key's options, and the key as dkimpy reads it. Raises EngineError where dkimpy cannot sign with it here."""
    if plan.key is None:
        return []
    try:
        key = serialization.load_pem_private_key(plan.key.path.read_bytes(), None)
    except (ValueError, TypeError) as error:
        raise EngineError(f"{plan.key.path} holds no private key in PEM without a password: {error}") from None
    if not isinstance(key, rsa.RSAPrivateKey):
        raise EngineError(f"the baseline signs with RSA, and the key in {plan.key.path} is of another kind")
    path = plan.folder / "key.pem"
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
    )
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(pem)
    return ["--key", str(path), "--domain", plan.key.domain, "--selector", plan.key.selector]

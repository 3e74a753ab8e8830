"""Postfix as an engine: the installed one, with configuration, queue and data of its own in the plan's folder.

It is tuned as somebody who relays a lot with it would tune it for two cores; every setting stands in `TUNING` with
its reason, and in the main.cf that is written. It keeps its promise as it always does: cleanup syncs the queue file
before the 250. It logs into a file, as others write what they do. Nothing of the system's own Postfix is read but its
programs, and nothing is changed.

What it cannot do here is said before anything runs: it needs root, as Postfix does; it does not sign (that would be
OpenDKIM's figure, not Postfix's); it asks the system's name servers only, so it needs the plan's routes; it does not
leave out the sync. Limits of a rate are left to the provider's replies, for Postfix counts in whole seconds between
messages.
"""

import os
import pwd
import re
import shutil
import stat
import subprocess
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import dns.message
import dns.query
import dns.rdatatype

from bench.baseline_directions import fits
from bench.engines import Destination, EngineError, EnginePlan
from bench.rig import Rig, RigError, is_listening

SYSTEM_FOLDERS = ("/usr/sbin", "/usr/local/sbin")
DEFAULT = "smtp"  # the client for everything that no destination takes
DOOR_PROCESSES = 200  # each session that comes in has a process of its own; above what a scenario opens
DNS_TIMEOUT_S = 5.0
TAIL_PROCESSES = 300  # each connection out has one, too: above this two cores only switch between them
CLEAN_STATUSES = (0, -15)  # the master ends itself by the signal that it passed on

MASTER = """\
127.0.0.1:{port} inet n - n - {door} smtpd
cleanup   unix  n - n - 0 cleanup
qmgr      unix  n - n 300 1 qmgr
rewrite   unix  - - n - - trivial-rewrite
bounce    unix  - - n - 0 bounce
defer     unix  - - n - 0 bounce
trace     unix  - - n - 0 bounce
verify    unix  - - n - 1 verify
error     unix  - - n - - error
retry     unix  - - n - - error
discard   unix  - - n - - discard
proxymap  unix  - - n - - proxymap
anvil     unix  - - n - 1 anvil
scache    unix  - - n - 1 scache
tlsmgr    unix  - - n 1000? 1 tlsmgr
postlog   unix-dgram n - n - 1 postlogd
"""
"""Postfix's own, without local delivery, pickup and flush; nothing in a chroot. 0: no limit but memory."""


class Setting(NamedTuple):
    """A line of main.cf."""

    name: str
    value: str
    why: str


TUNING = (
    Setting("in_flow_delay", "0", "new mail is not slowed down for old mail: the queue may grow"),
    Setting("qmgr_message_active_limit", "100000", "a burst fits into the active queue and is not read twice"),
    Setting("qmgr_message_recipient_limit", "100000", "as many recipients"),
    Setting("max_use", "100000", "a process serves that many requests, not 100: fewer forks"),
    Setting("max_idle", "300s", "and it waits for the next one"),
    Setting("ipc_idle", "60s", "processes keep their lines to each other"),
    Setting("smtpd_peername_lookup", "no", "no DNS for clients that are ours"),
    Setting("smtpd_client_connection_count_limit", "0", "no counting of clients: anvil is not asked"),
    Setting("smtpd_client_connection_rate_limit", "0", "the same"),
    Setting("smtpd_client_message_rate_limit", "0", "the same"),
    Setting("smtpd_client_recipient_rate_limit", "0", "the same"),
    Setting("smtpd_client_new_tls_session_rate_limit", "0", "the same"),
    Setting("smtpd_client_auth_rate_limit", "0", "the same"),
    Setting("smtpd_error_sleep_time", "0", "a client of ours is not punished"),
    Setting("smtpd_relay_restrictions", "permit_mynetworks, reject", "one look-up decides who may relay"),
    Setting("smtpd_recipient_restrictions", "", "and nothing more"),
    Setting(
        "receive_override_options",
        "no_unknown_recipient_checks, no_header_body_checks, no_address_mappings",
        "none of these is in use: not even asked",
    ),
    Setting("local_header_rewrite_clients", "", "headers are left as they are"),
    Setting("smtpd_tls_security_level", "none", "as the other engines"),
    Setting("smtp_tls_security_level", "none", "as the other engines; a connection with TLS could not be kept"),
    Setting("smtp_connection_cache_on_demand", "yes", "busy destinations keep their connections"),
    Setting("smtp_connection_reuse_time_limit", "600s", "kept connections are used for longer than 300 s"),
    Setting("smtp_dns_support_level", "disabled", "routes name addresses: no DNS"),
    Setting("smtp_host_lookup", "native", "goes with it"),
    Setting("smtp_destination_recipient_limit", "50", "several recipients a transaction, as usual"),
    Setting("smtp_destination_concurrency_failed_cohort_limit", "0", "one failure does not stop a whole destination"),
    Setting("hash_queue_names", "deferred, defer", "active and incoming are flat: one file system entry a message"),
    Setting("enable_original_recipient", "no", "no header of its own for it"),
    Setting("address_verify_map", "", "no cache on disk that nobody asks"),
)
"""What differs from Postfix's defaults for the sake of speed, and why."""


class PostfixEngine:
    """The installed Postfix."""

    name = "postfix"

    def __init__(self) -> None:
        self.smtp_port = 0
        self._rig: Rig | None = None

    def start(self, rig: Rig, plan: EnginePlan) -> None:
        """Returns when it greets. Raises EngineError where it is not installed or cannot do what is asked."""
        postconf = usable(plan)
        let_in(rig.folder, plan.folder)
        files = Files(plan, programs(postconf), rig.log_of(self.name))
        files.write()
        check(postconf.with_name("postfix"), files.config)
        rig.start(self.name, [str(files.programs / "master"), "-c", str(files.config), "-s"])
        self._rig, self.smtp_port = rig, plan.smtp_port
        rig.wait(self.name, lambda: is_listening("127.0.0.1", plan.smtp_port, greeting=b"220"))

    def pids(self) -> list[int]:
        """The master; all others are its children."""
        return [self._rig.pid(self.name)] if self._rig is not None else []

    def stop(self) -> None:
        """Ends the master and all its children. Raises RigError where it had failed."""
        if self._rig is not None and (status := self._rig.stop(self.name)) not in CLEAN_STATUSES:
            raise RigError(f"postfix ended with status {status}; it wrote last:\n{self._rig.tail(self.name)}")


def usable(plan: EnginePlan) -> Path:
    """Where postconf is. Raises EngineError with what is missing for this plan, in one sentence."""
    found = shutil.which("postconf") or shutil.which("postconf", path=":".join(SYSTEM_FOLDERS))
    if found is None:
        raise EngineError("postfix is not installed (Debian, Ubuntu: apt-get install postfix)")
    if os.geteuid() != 0:
        raise EngineError("postfix is started by root: its master gives each process the rights that it needs")
    if plan.key is not None:
        raise EngineError("postfix does not sign by itself, and no milter is part of this comparison: run it unsigned")
    if plan.durability != "fsync":
        raise EngineError("postfix syncs every message before its 250 and cannot be told not to")
    if not plan.routes:
        raise EngineError("postfix asks the system's name servers, so it needs routes, and the plan has none")
    return Path(found)


def programs(postconf: Path) -> Path:
    """Where master and the daemons are. Raises EngineError."""
    asked = subprocess.run([postconf, "-dh", "daemon_directory"], capture_output=True, text=True, check=False)
    if asked.returncode:
        raise EngineError(f"postconf fails: {asked.stderr.strip()}")
    return Path(asked.stdout.strip())


def let_in(outermost: Path, folder: Path, top: Path = Path("/")) -> None:
    """Postfix's own user can reach the folder: those from our outermost one on are opened for passing through, foreign
    ones above, up to the top, are only looked at.

    Raises EngineError with the first of them that it may not pass.
    """
    for each in [folder, *folder.parents]:
        mode = each.stat().st_mode
        if mode & stat.S_IXOTH or not each.is_relative_to(top):
            continue
        if not each.is_relative_to(outermost):
            raise EngineError(f"postfix's user cannot pass {each}: take a --folder that everybody may pass through")
        each.chmod(stat.S_IMODE(mode) | stat.S_IXOTH)


def check(postfix: Path, config: Path) -> None:
    """Lets Postfix make its queue folders and look at its configuration. Raises EngineError with what it says."""
    checked = subprocess.run([postfix, "-c", config, "check"], capture_output=True, text=True, check=False)
    if checked.returncode:
        raise EngineError(f"postfix refuses {config}:\n{checked.stdout}{checked.stderr}")


class Files:
    """Everything that Postfix reads, and the folders it writes to."""

    def __init__(self, plan: EnginePlan, programs: Path, log: Path) -> None:
        """`programs`: where the daemons are; `log`: where postlogd writes."""
        self._plan = plan
        self.programs = programs
        self._log = log
        self.config = plan.folder / "config"
        self.queue = plan.folder / "queue"
        self.data = plan.folder / "data"

    def write(self) -> None:
        """Makes them. Raises EngineError where there is no user postfix."""
        for folder in (self.config, self.queue, self.data):
            folder.mkdir()
            folder.chmod(0o755)
        try:
            owner = pwd.getpwnam("postfix")
        except KeyError:
            raise EngineError("there is no user postfix, which its package makes") from None
        os.chown(self.data, owner.pw_uid, owner.pw_gid)
        (self.config / "main.cf").write_text(self.main_cf())
        (self.config / "master.cf").write_text(self.master_cf())
        (self.config / "transport").write_text(self.transport())

    def main_cf(self) -> str:
        """The settings: what is so because of the plan, and the tuning."""
        retry = f"{max(1, round(self._plan.retry_s))}s"
        needed = {
            "compatibility_level": "3.6",
            "myhostname": self._plan.hostname,
            "mydestination": "",
            "local_recipient_maps": "",
            "alias_maps": "",
            "inet_interfaces": "127.0.0.1",
            "inet_protocols": "ipv4",
            "mynetworks": "127.0.0.0/8",
            "daemon_directory": str(self.programs),
            "queue_directory": str(self.queue),
            "data_directory": str(self.data),
            "maillog_file": str(self._log),
            "maillog_file_prefixes": str(self._log.parent),
            "message_size_limit": "50000000",
            "mailbox_size_limit": "0",
            "transport_maps": f"texthash:{self.config / 'transport'}",
            "local_transport": "error:no local delivery",
            "default_transport": "discard:",  # the routes are complete: what has none tells a sender of bounced mail
            "minimal_backoff_time": retry,
            "maximal_backoff_time": retry,
            "queue_run_delay": retry,
            "smtp_connection_cache_time_limit": f"{max(1, round(self._plan.idle_timeout_s))}s",
        }
        lines = [f"{name} = {value}" for name, value in needed.items()]
        for name, value, why in TUNING:
            lines += [f"# {why}", f"{name} = {value}"]
        for transport, destination in self._transports():
            lines += [
                f"{transport}_destination_concurrency_limit = {destination.connections}",
                f"{transport}_initial_destination_concurrency = {destination.connections}",
            ]
        return "\n".join(lines) + "\n"

    def master_cf(self) -> str:
        """The services: a client for each destination, with as many processes as it may have connections."""
        lines = [MASTER.format(port=self._plan.smtp_port, door=DOOR_PROCESSES)]
        for transport, destination in self._transports():
            limit = TAIL_PROCESSES if transport == DEFAULT else destination.connections
            lines.append(f"{transport} unix - - n - {limit} smtp\n")
            if destination.messages_per_connection:
                lines.append(f"  -o smtp_connection_reuse_count_limit={destination.messages_per_connection}\n")
        return "".join(lines)

    def transport(self) -> str:
        """Domain -> transport and next hop, by `texthash`: each process reads it once."""
        of_place = self._of_place()
        lines = []
        for domain, place in self._plan.routes.items():
            host, _, port = place.rpartition(":")
            name = "*" if domain == "*" else domain
            lines.append(f"{name} {of_place.get(place, DEFAULT)}:[{host}]:{port}\n")
        return "".join(lines)

    def _of_place(self) -> Mapping[str, str]:
        """The transport for each place that a destination's domains or mail hosts lead to, for whatever domain.

        A destination that is known by its mail hosts alone is recognised by one of the domains that share the place.
        """
        found = {}
        shared = Counter(self._plan.routes.values())
        some_domain = {place: domain for domain, place in self._plan.routes.items() if shared[place] > 1}
        for transport, destination in self._transports():
            for domain in destination.domains:
                place = self._plan.routes.get(domain)
                if place is not None:
                    found[place] = transport
        if self._plan.dns_port:
            for place, domain in some_domain.items():
                if place not in found and (transport := self._by_mx(domain)):
                    found[place] = transport
        return found

    def _by_mx(self, domain: str) -> str:
        """The transport whose mail hosts serve the domain, or ""."""
        query = dns.message.make_query(domain, dns.rdatatype.MX)
        answer = dns.query.tcp(query, "127.0.0.1", DNS_TIMEOUT_S, self._plan.dns_port)
        hosts = [each.exchange.to_text(omit_final_dot=True) for rrset in answer.answer for each in rrset]
        for transport, destination in self._transports():
            if any(fits(host, pattern) for host in hosts for pattern in destination.mx):
                return transport
        return ""

    def _transports(self) -> Iterator[tuple[str, Destination]]:
        """The name of each destination's client, and what it keeps to; last the one for all others."""
        default = Destination(name="default")
        for each in self._plan.destinations:
            if each.domains or each.mx:
                yield "smtp-" + re.sub(r"[^a-z0-9]+", "-", each.name.lower()), each
            else:
                default = each
        yield DEFAULT, default

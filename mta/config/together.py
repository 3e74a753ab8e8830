"""What only shows together: names that nobody defines, doors on one port, files that are not there.

Each check looks only at values that were right by themselves, so that one mistake is told once.
"""

import ipaddress
import os
import stat
from collections.abc import Iterable
from pathlib import Path

from mta.config.settings import Listener, Settings
from mta_policies.answers import SYSTEM_SOURCE
from mta_policies.located import nearest
from mta_policies.reader import Reader
from mta_policies.sound import is_zone

_ANY_ADDRESS = {"0.0.0.0": 4, "::": 6}

TLS_REFUSED = (
    'tls = "{tls}" has no effect yet, and without it this listener would speak in clear: refused.'
    ' Take tls = "none" or leave the listener out'
)
AUTH_REFUSED = (
    'auth = "required" has no effect yet, and without it whoever is trusted would relay unasked: refused.'
    ' Take auth = "none" or "optional", or leave the listener out'
)


def check_together(reader: Reader, settings: Settings) -> None:
    """Notes every problem in `reader`."""
    _listeners(reader, settings)
    _names(reader, settings)
    _pools(reader, settings)
    _tenants(reader, settings)
    _limits(reader, settings)
    _warmups(reader, settings)
    _routes(reader, settings)
    _signing(reader, settings)
    _places(reader, settings)
    _admin(reader, settings)


def _listeners(reader: Reader, settings: Settings) -> None:
    tenants = _known(reader, "tenant")
    if "listener" in reader.tree.data and not settings.listeners and reader.is_good("listener"):
        reader.fail(("listener",), "listener: without a door no mail can come in")
    for i, listener in enumerate(settings.listeners):
        here = ("listener", i)
        for j, other in enumerate(settings.listeners[:i]):
            if _same_port(listener, other) and _good(reader, [(*here, "address"), ("listener", j, "address")]):
                first = reader.tree.place(("listener", j, "address"))
                reader.fail((*here, "address"), f"address {listener.address} is taken by the listener at {first}")
        if listener.tls != "none":
            reader.fail((*here, "tls"), TLS_REFUSED.format(tls=listener.tls))
            for name, file in (("certificate", listener.certificate), ("key", listener.key)):
                if file is None and reader.is_good(*here, name):
                    reader.fail((*here, "tls"), f'tls = "{listener.tls}" needs {name} = "..."')
        if listener.auth == "required":
            reader.fail((*here, "auth"), AUTH_REFUSED)
        for name, file in (("certificate", listener.certificate), ("key", listener.key)):
            if file is not None:
                _file(reader, (*here, name), name, file)
        if listener.tenant and listener.tenant not in tenants and reader.is_good(*here, "tenant"):
            hint = nearest(listener.tenant, tenants)
            reader.fail((*here, "tenant"), f"there is no tenant {listener.tenant}{hint}")


def _same_port(one: Listener, other: Listener) -> bool:
    """Whether both would bind the same port; port 0 is a free one each time, and IPv6 sockets take IPv6 only."""
    if one.address.port != other.address.port or not one.address.port:
        return False
    hosts = one.address.host, other.address.host
    families = [6 if ":" in host else 4 for host in hosts]
    return hosts[0] == hosts[1] or (families[0] == families[1] and any(host in _ANY_ADDRESS for host in hosts))


def _names(reader: Reader, settings: Settings) -> None:
    """Nothing is called twice the same."""
    for table, names in (
        ("source", [source.name for source in settings.sources]),
        ("pool", [pool.name for pool in settings.pools]),
        ("tenant", [tenant.name for tenant in settings.tenants]),
        ("warmup", [warmup.source for warmup in settings.warmups]),
        ("dkim", [f"{key.selector}._domainkey.{key.domain}" for key in settings.dkim]),
    ):
        seen: dict[str, int] = {}
        for i, name in enumerate(names):
            first = seen.setdefault(name, i)
            key = {"dkim": "selector", "warmup": "source"}.get(table, "name")
            if first != i and _good(reader, [(table, i, key), (table, first, key)]):
                at = reader.tree.place((table, first, key))
                reader.fail((table, i, key), f"{table} {name} is already given at {at}")


def _pools(reader: Reader, settings: Settings) -> None:
    sources = _known(reader, "source")
    for i, pool in enumerate(settings.pools):
        here = ("pool", i, "sources")
        if not reader.is_good(*here):
            continue
        if not pool.sources:
            reader.fail(here, f"pool {pool.name} names no source")
        elif not any(pool.sources.values()):
            reader.fail(here, f"pool {pool.name} has no source with a weight over 0")
        for name in pool.sources:
            if name not in sources:
                reader.fail((*here, name), f"there is no source {name}{nearest(name, sources)}")


def _tenants(reader: Reader, settings: Settings) -> None:
    pools = _known(reader, "pool") | {"default"}
    seen: dict[str, tuple[str | int, ...]] = {}
    for i, tenant in enumerate(settings.tenants):
        if tenant.pool not in pools and reader.is_good("tenant", i, "pool"):
            reader.fail(("tenant", i, "pool"), f"there is no pool {tenant.pool}{nearest(tenant.pool, pools)}")
        if not reader.is_good("tenant", i, "senders"):
            continue
        for j, pattern in enumerate(tenant.senders):
            here = ("tenant", i, "senders", j)
            first = seen.setdefault(pattern, here)
            if first != here:
                reader.fail(here, f"sender {pattern} is already given at {reader.tree.place(first)}")


def _limits(reader: Reader, settings: Settings) -> None:
    """Limits across destinations."""
    seen: dict[tuple[str, str], int] = {}
    named = {"tenant": _known(reader, "tenant"), "source": _known(reader, "source") or {SYSTEM_SOURCE}}
    for i, limit in enumerate(settings.limits):
        here = ("limit", i)
        if not (limit.rate or limit.quota or limit.window) and reader.is_good(*here):
            reader.fail(here, "limit: without rate, quota and window nothing is limited")
        zones = [("quota", limit.quota.zone)] if limit.quota is not None else []
        zones += [("window", window.zone) for window in limit.window]
        for key, zone in zones:
            _zone(reader, (*here, key), key, zone)
        if not _good(reader, [(*here, "per"), (*here, "name")]):
            continue
        first = seen.setdefault((limit.per, limit.name), i)
        if first != i:
            at = reader.tree.place(("limit", first))
            reader.fail(here, f"a limit per {limit.per} named {limit.name} is already given at {at}")
        known = named.get(limit.per)
        if not limit.name:
            reader.fail((*here, "name"), 'name: expected a name, or "*" for all')
        elif known is not None and "*" not in limit.name and limit.name not in known:
            text = f"there is no {limit.per} {limit.name}{nearest(limit.name, known)}"
            if limit.per == "source":
                reader.fail((*here, "name"), text)
            else:
                reader.warn((*here, "name"), f"{text}: this holds only for mail whose header names it")


def _warmups(reader: Reader, settings: Settings) -> None:
    sources, pools = _known(reader, "source") or {SYSTEM_SOURCE}, _known(reader, "pool") | {"default"}
    for i, warmup in enumerate(settings.warmups):
        here = ("warmup", i)
        if warmup.source not in sources and reader.is_good(*here, "source"):
            hint = nearest(warmup.source, sources)
            reader.fail((*here, "source"), f"there is no source {warmup.source}{hint}")
        if warmup.overflow_pool not in pools | {""} and reader.is_good(*here, "overflow_pool"):
            hint = nearest(warmup.overflow_pool, pools)
            reader.fail((*here, "overflow_pool"), f"there is no pool {warmup.overflow_pool}{hint}")
        _zone(reader, (*here, "zone"), "zone", warmup.zone)
        for path, plan in ((("plan",), warmup.plan), *((("providers", n), p) for n, p in warmup.providers.items())):
            if not plan and reader.is_good(*here, *path):
                reader.fail((*here, *path), f"{path[-1]}: a plan of no day")
            elif list(plan) != sorted(plan) and reader.is_good(*here, *path):
                reader.warn((*here, *path), f"{path[-1]}: a later day allows less than an earlier one")


def _zone(reader: Reader, path: tuple[str | int, ...], what: str, zone: str) -> None:
    if reader.is_good(*path) and not is_zone(zone):
        reader.fail(path, f'{what}: there is no time zone "{zone}"; write "Asia/Tokyo" or "UTC"')


def _routes(reader: Reader, settings: Settings) -> None:
    all_before = None
    for i, route in enumerate(settings.routes):
        for key, values in (("domains", route.domains), ("hosts", route.hosts)):
            if not values and reader.is_good("route", i, key):
                reader.fail(("route", i, key), f"route without {key}")
        if all_before is not None:
            reader.warn(("route", i), f"never used: the route at {all_before} takes everything")
        elif "*" in route.domains:
            all_before = reader.tree.place(("route", i, "domains"))


def _signing(reader: Reader, settings: Settings) -> None:
    for i, key in enumerate(settings.dkim):
        here = ("dkim", i, "key")
        if reader.is_good(*here):
            _file(reader, here, "key", key.key)
        if reader.is_good(*here) and key.key.stat().st_mode & stat.S_IRWXO:
            reader.warn(here, f"key: everybody on this machine can read {key.key}: chmod 600")
    directory = settings.signing.directory
    if directory is not None and not directory.is_dir():
        reader.fail(("signing", "directory"), f"directory: there is no folder {directory}")
    if settings.signing.unsigned == "refuse" and not settings.dkim and directory is None:
        reader.warn(("signing", "unsigned"), 'unsigned = "refuse" without any key: all mail is refused')


def check_keys(reader: Reader, settings: Settings) -> tuple[bytes, ...]:
    """The private keys of `[[dkim]]`, PEM; notes in `reader` where a file holds none that can sign."""
    if not settings.dkim:
        return ()
    from mta.signing.keys import KeyFileError, load_key  # who configures no key need not wait for it

    pems = []
    for i, key in enumerate(settings.dkim):
        try:
            if reader.is_good("dkim", i, "key"):
                pems.append(load_key(key.key, key.domain, key.selector).pem)
        except KeyFileError as error:
            reader.fail(("dkim", i, "key"), f"key: {error}")
    return tuple(pems)


def _places(reader: Reader, settings: Settings) -> None:
    """Folders where they are named, and sizes of which nothing is left."""
    for size, path in (
        (settings.queue.message_size_max_bytes, ("queue", "message_size_max")),
        (settings.queue.memory_max_bytes, ("queue", "memory_max")),
        (settings.log.rotate.size_bytes, ("log", "rotate", "size")),
    ):
        if size == 0 and reader.is_good(*path):
            reader.fail(path, f"{path[-1]}: nothing would fit")
    queue = settings.queue.directory
    if queue.exists() and not queue.is_dir():
        reader.fail(("queue", "directory"), f"directory: {queue} is not a folder")
    policies = settings.policies.directory
    given = reader.tree.get(("policies", "directory"))
    # The default may be written out in the file and still be absent; a name of the admin's own is meant.
    if given not in (None, "policies") and not policies.is_dir() and reader.is_good("policies", "directory"):
        reader.fail(("policies", "directory"), f"directory: there is no folder {policies}")


def _admin(reader: Reader, settings: Settings) -> None:
    """Whoever reaches the admin address may do everything: beyond this machine he must show the token."""
    address = settings.admin.address
    if address.startswith("unix:") or settings.admin.token or not reader.is_good("admin", "token"):
        return
    host = address.rpartition(":")[0].strip("[]")
    if reader.is_good("admin", "address") and not ipaddress.ip_address(host).is_loopback:
        reader.fail(("admin", "address"), f"address: {address} can be reached from elsewhere, so token is required")


def _file(reader: Reader, path: tuple[str | int, ...], what: str, file: Path) -> None:
    """Must be there and readable by whoever runs this."""
    if not file.is_file():
        reader.fail(path, f"{what}: there is no file {file}")
    elif not os.access(file, os.R_OK):
        reader.fail(path, f"{what}: {file} cannot be read by this user")


def _known(reader: Reader, table: str) -> set[str]:
    """The names that are given, also in tables with another mistake: who uses them is not wrong."""
    tables = reader.tree.data.get(table)
    if not isinstance(tables, list):
        return set()
    return {name for one in tables if isinstance(one, dict) and isinstance(name := one.get("name"), str)}


def _good(reader: Reader, paths: Iterable[tuple[str | int, ...]]) -> bool:
    return all(reader.is_good(*path) for path in paths)

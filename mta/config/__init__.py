"""The configuration: mta.toml and what it includes, read whole, checked whole, or refused with all that is wrong.

`load` gives a `Config` in which everything that hangs together fits together: the policies are read, defaults
that depend on the machine are filled in, every pool has sources. Each value knows the file and line that it
comes from. `render` writes the commented mta.toml of the repository's root.
"""

import glob
import os
import socket
from pathlib import Path

import msgspec

from mta.config.render import render
from mta.config.settings import Listener, Pool, Route, Settings, Source, Tenant, Warmup
from mta.config.together import check_keys, check_together
from mta.model.envelope import POOL_DEFAULT
from mta_policies import layers
from mta_policies.answers import SYSTEM_SOURCE
from mta_policies.layers import PolicyError, PolicySet
from mta_policies.located import Problem, SyntaxProblem, nearest, parse
from mta_policies.reader import Reader
from mta_policies.tree import Tree, join, tree_of
from mta_policies.warmth import Plan

__all__ = [
    "DEFAULT_FILE",
    "Config",
    "ConfigError",
    "Listener",
    "Pool",
    "Route",
    "Settings",
    "Source",
    "Tenant",
    "Warmup",
    "load",
    "load_settings",
    "render",
]

DEFAULT_FILE = "mta.toml"

CONFIG_BYTES_MAX = 10_000_000  # a thousand tenants fit many times; what is larger is not a configuration


class ConfigError(Exception):
    """The configuration cannot be used; `problems` are all that is wrong, `warnings` what else there was to say."""

    def __init__(self, problems: list[Problem], warnings: list[Problem]) -> None:
        super().__init__("\n".join(map(str, problems)))
        self.problems = problems
        self.warnings = warnings


class Config(Settings, frozen=True, kw_only=True):
    """The settings in force. Beside what mta.toml says: `hostname`, the sources' `ehlo` and the routes' ports are
    filled in, there is at least one source, and a pool `default`."""

    file: str
    """The file that was loaded, as it was named."""
    policy_set: PolicySet
    warnings: tuple[Problem, ...]
    """What is never used, ties between policies: nothing that keeps the server from running."""
    tree: Tree
    pems: tuple[bytes, ...]
    """What the key files of `dkim` held, one each: a worker that is restarted signs with what was accepted."""

    def origin(self, *path: str | int) -> str:
        """Where a value was written: `origin("queue", "directory")` is "mta.toml:12"; "built in" where nowhere."""
        return self.tree.written(path)

    @property
    def warmup_plans(self) -> tuple[Plan, ...]:
        """What `[[warmup]]` says, as the server keeps it."""
        return tuple(warmup.as_plan() for warmup in self.warmups)

    @property
    def worker_count(self) -> int:
        """`workers`, or one per CPU core that this process may use."""
        return self.workers or len(os.sched_getaffinity(0))


def load(path: str | Path = DEFAULT_FILE) -> Config:
    """Reads, checks and completes; raises ConfigError with all problems at once."""
    problems: list[Problem] = []
    tree = _read_all(str(path), problems)
    reader = Reader(tree)
    settings = reader.read(Settings)
    check_together(reader, settings)
    policy_set = _load_policies(reader, settings)
    warnings = _in_order(reader.warnings, str(path))
    pems = check_keys(reader, settings)
    problems += reader.problems
    if problems or policy_set is None:
        raise ConfigError(_in_order(problems, str(path)), warnings)
    return Config(
        **msgspec.structs.asdict(_completed(settings)),
        file=str(path),
        policy_set=policy_set,
        warnings=tuple(warnings),
        tree=tree,
        pems=pems,
    )


def load_settings(path: str | Path = DEFAULT_FILE) -> Settings:
    """What mta.toml says, for whoever wants to reach a running server. Raises ConfigError for what is wrong there;
    policies are not read: who has just broken one may still ask why mail waits."""
    problems: list[Problem] = []
    reader = Reader(_read_all(str(path), problems))
    settings = reader.read(Settings)
    problems += reader.problems
    if problems:
        raise ConfigError(_in_order(problems, str(path)), [])
    return settings


def _read_all(file: str, problems: list[Problem]) -> Tree:
    """The file and all that it includes, joined."""
    tree = _read(file, problems)
    include, place = tree.data.get("include"), ("include",)
    patterns: list[object] = include if isinstance(include, list) else list(Settings().include)
    for included in _included(file, [one for one in patterns if isinstance(one, str)], tree, problems):
        more = _read(included, problems)
        if "include" in more.data:
            problems.append(more.problem(place, f"include is only for {file}, not for what it includes"))
        tree = join(tree, more.without("include"), problems)
    return tree


def _read(file: str, problems: list[Problem]) -> Tree:
    content = b""
    try:
        with Path(file).open("rb") as stream:
            content = stream.read(CONFIG_BYTES_MAX + 1)
        if len(content) > CONFIG_BYTES_MAX:
            raise ValueError(f"larger than {CONFIG_BYTES_MAX} bytes: not a configuration")
        return tree_of(parse(content.decode(), file))
    except OSError as error:
        problems.append(Problem(file, 0, f"cannot be read: {error.strerror}"))
    except UnicodeDecodeError as error:
        problems.append(Problem(file, content[: error.start].count(b"\n") + 1, "not UTF-8 text"))
    except SyntaxProblem as error:
        problems.append(error.problem)
    except ValueError as error:
        problems.append(Problem(file, 0, str(error)))
    return tree_of(parse("", file))


def _included(file: str, patterns: list[str], tree: Tree, problems: list[Problem]) -> list[str]:
    """The files that the patterns mean, each once, in the order of their names."""
    folder = os.path.dirname(file)
    found: set[str] = set()
    for pattern in patterns:
        matches = [os.path.join(folder, name) for name in glob.glob(pattern, root_dir=folder or None)]
        if not matches and not glob.has_magic(pattern):
            problems.append(tree.problem(("include",), f"include: there is no {os.path.join(folder, pattern)}"))
        found.update(match for match in matches if os.path.isfile(match))
    return sorted(name for name in found if not (os.path.exists(file) and os.path.samefile(name, file)))


def _load_policies(reader: Reader, settings: Settings) -> PolicySet | None:
    """The policies; their problems and what names them wrongly go to the reader's."""
    known = layers.shipped_names()
    for i, name in enumerate(settings.policies.disabled):
        if name == layers.DEFAULT:
            reader.fail(("policies", "disabled", i), "default is under all policies and cannot be disabled")
        elif name not in known:
            hint = nearest(name, known)
            reader.fail(("policies", "disabled", i), f"there is no shipped policy {name}{hint}")
    directory = settings.policies.directory
    try:
        policy_set = layers.load(directory if directory.is_dir() else None, settings.policies.disabled)
    except PolicyError as error:
        reader.problems += error.problems
        reader.warnings += error.warnings
        return None
    reader.warnings += policy_set.warnings
    tenants = {tenant.name for tenant in settings.tenants}
    for name in policy_set.tenants:
        if name not in tenants:
            text = f"there is no tenant {name}{nearest(name, tenants)}: this holds only for mail whose header names it"
            reader.warnings.append(Problem(str(directory / layers.TENANTS / name), 0, text))
    for name in sorted(policy_set.own - {layers.DEFAULT} - {route.policy for route in settings.routes}):
        policy = policy_set.policies[name]
        if not (policy.match.domains or policy.match.mx):
            text = f"policy {name} is for nobody: it has no match, and no route names it{nearest(name, known)}"
            reader.warnings.append(Problem(policy.files[-1], 0, text))
    for i, route in enumerate(settings.routes):
        if route.policy and route.policy not in policy_set.policies:
            hint = nearest(route.policy, policy_set.policies)
            reader.fail(("route", i, "policy"), f"there is no policy {route.policy}{hint}")
    for i, warmup in enumerate(settings.warmups):
        for name in warmup.providers:
            if name not in policy_set.policies:
                text = f"there is no policy {name}{nearest(name, policy_set.policies)}"
                reader.fail(("warmup", i, "providers", name), text)
    return policy_set


def _completed(settings: Settings) -> Settings:
    """With the values that are made from others or from the machine."""
    hostname = settings.hostname or _machine_name()
    port = settings.delivery.port
    routes = tuple(
        msgspec.structs.replace(route, hosts=tuple(host._replace(port=host.port or port) for host in route.hosts))
        for route in settings.routes
    )
    sources = settings.sources or (Source(name=SYSTEM_SOURCE),)
    sources = tuple(msgspec.structs.replace(source, ehlo=source.ehlo or hostname) for source in sources)
    pools = settings.pools
    if POOL_DEFAULT not in {pool.name for pool in pools}:
        pools = (*pools, Pool(name=POOL_DEFAULT, sources={source.name: 1 for source in sources}))
    return msgspec.structs.replace(settings, hostname=hostname, routes=routes, sources=sources, pools=pools)


def _machine_name() -> str:
    """The fully qualified name, or the best that the machine knows of itself."""
    full, short = socket.getfqdn().rstrip(".").lower(), socket.gethostname().rstrip(".").lower()
    return full if "." in full and not full.startswith("localhost") else short or "localhost"


def _in_order(problems: list[Problem], main: str) -> list[Problem]:
    """Each once: first the main file, then the others by name, line by line."""
    return sorted(dict.fromkeys(problems), key=lambda problem: (problem.file != main, problem.file, problem.line))

"""Layers: the shipped policies, an admin's own over them, tenants' over these, and `default` under all of them.

A file of the admin's with the name of a shipped one adds to it or replaces its values, key by key; with
`replace = true` it starts afresh. What a policy leaves open comes from `default`, whose rules are tried after the
policy's own. `tenants/TENANT/NAME.toml` holds for one tenant's mail. Every value that is in force knows the file and
line that it comes from.
"""

from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Generic, NamedTuple, TypeVar, cast

from mta_policies import sound
from mta_policies.located import Place, Problem, SyntaxProblem, nearest, parse
from mta_policies.match import Index
from mta_policies.policy import Policy
from mta_policies.reader import Known, Reader
from mta_policies.rulebook import TestCase
from mta_policies.schema import PolicyFile
from mta_policies.tenants import TenantFile, with_scopes
from mta_policies.tree import Tree, overlay, tree_of

T = TypeVar("T")

DEFAULT = "default"
"""The name of the policy that is under all others."""

FILE_BYTES_MAX = 1_000_000  # a policy is a page of text; more is a mistake of who named the folder

POLICIES_KEPT = 128
"""Twice what is shipped, and more: two generations, so that whoever goes back to the last one finds it."""

TENANTS = "tenants"
"""The folder in the admin's that has a folder for each tenant."""

_OWN_KEYS = ("title", "replace", "match", "owners", "sources", "rule")
"""What a policy never takes from `default`: who it is for, how many workers share it, and its own exceptions. Rules
are taken, but stand behind its own."""


class PolicyError(Exception):
    """The policy files do not hold together; `problems` are all of them, `warnings` what else there was to say."""

    def __init__(self, problems: Sequence[Problem], warnings: Sequence[Problem] = ()) -> None:
        super().__init__("\n".join(map(str, problems)))
        self.problems = list(problems)
        self.warnings = list(warnings)


class LocatedTest(NamedTuple):
    """A `[[test]]` and where it stands."""

    policy: str
    tenant: str
    """Whose file it is in; "" for files that are for all."""
    test: TestCase
    place: Place
    is_shipped: bool
    """It is about the shipped policies alone."""


class PolicySet:
    """All policies in force. `default` is one of `policies`, but never matches by domain or MX."""

    def __init__(
        self,
        policies: dict[str, Policy],
        warnings: Sequence[Problem],
        tests: Sequence[LocatedTest] = (),
        own: Iterable[str] = (),
    ) -> None:
        self.policies = policies
        self.own = frozenset(own)
        """Names of policies that the admin has a file for."""
        self.tests = list(tests)
        """Of all files, in their order."""
        self.tenants = sorted({tenant for policy in policies.values() for tenant in policy.tenant_trees})
        """Who has files of his own."""
        self.default = policies[DEFAULT]
        self.warnings = list(warnings)
        self._domains = Index()
        self._hosts = Index()
        for name, policy in policies.items():
            if name != DEFAULT:
                self._domains.add(name, policy.match.domains)
                self._hosts.add(name, policy.match.mx)

    def by_domain(self, domain: str) -> Policy | None:
        """The policy that names this domain (lower case, A-labels), or the longest pattern it is under."""
        name = self._domains.find(domain)
        return self.policies[name] if name else None

    def by_mx(self, hosts: Sequence[str]) -> Policy | None:
        """The policy whose patterns match every one of these MX hosts; of several the one with longer patterns."""
        name = self._hosts.find_all(hosts)
        return self.policies[name] if name else None

    def origin(self, policy_name: str, path: tuple[str, ...], source_name: str = "", tenant: str = "") -> str:
        """Where a value in force was written: "policies/google.toml:12"; "built in" where no file says it."""
        return self.policies[policy_name].tenant_tree(tenant, source_name).written(path)


def shipped_directory() -> Path:
    """The folder of the shipped files: beside the package in an installation, above it in a checkout."""
    package = Path(__file__).parent
    packed = package / "shipped"
    return packed if packed.is_dir() else package.parent


def shipped_names(shipped: Path | None = None) -> list[str]:
    """The names of the shipped policies."""
    return sorted(path.stem for path in (shipped or shipped_directory()).glob("*.toml"))


def load(
    local: Path | None, disabled: Sequence[str] = (), *, shipped: Path | None = None, draft: Path | None = None
) -> PolicySet:
    """Reads both folders; PolicyError with all problems at once where they do not hold together.

    `local`: the admin's folder; None for none. `disabled`: shipped policies that are not wanted. `draft`: a file that
    is read as if it lay in the admin's folder, in the place of one with its name.
    """
    loader = _Loader(shipped or shipped_directory(), local, disabled)
    if draft is not None:
        loader.local_files[draft.stem] = draft
    return loader.load()


class _File:
    """What one file says. As long as its text is the same it is the same object, and so is what was made of it."""

    def __init__(self, tree: Tree) -> None:
        self.tree = tree


class _Read(NamedTuple, Generic[T]):
    """What was made of files, and what there was to say about them."""

    result: T
    problems: Sequence[Problem]
    warnings: Sequence[Problem]


class _Below(NamedTuple):
    """What is under every policy but `default` itself."""

    values: Tree
    rules: Tree
    known: Known


_Files = tuple[_File, ...]
_OfTenants = tuple[tuple[str, _File], ...]
_Tests = Sequence[tuple[TestCase, Place]]


class _Loader:
    def __init__(self, shipped: Path, local: Path | None, disabled: Sequence[str]) -> None:
        self.problems: list[Problem] = []
        self.warnings: list[Problem] = []
        self.tests: list[LocatedTest] = []
        self.disabled = set(disabled) - {DEFAULT}
        self.shipped_files = _files(shipped)
        self.local_files: dict[str, Path] = {}
        self.tenant_files: dict[str, dict[str, Path]] = {}
        if local is not None:
            if local.resolve() != shipped.resolve():
                self.local_files = _files(local)
            folders = sorted(path for path in (local / TENANTS).glob("*") if path.is_dir())
            self.tenant_files = {folder.name: _files(folder) for folder in folders}

    def load(self) -> PolicySet:
        shipped = self.read({name: path for name, path in self.shipped_files.items() if name not in self.disabled})
        local = self.read(self.local_files)
        for files in (shipped, local):
            for name, file in files.items():
                self.take_tests(_tests(file, PolicyFile), name, "", is_shipped=files is shipped)
        names = [DEFAULT, *sorted((shipped.keys() | local.keys()) - {DEFAULT})]
        layers = {name: _layers(name, shipped, local) for name in names}
        tenants = self.read_tenants(names)
        policies = {}
        for name in names:
            of_tenants = tenants.get(name, ()), tenants.get(DEFAULT, ())
            policies[name] = self.take(_policy(name, layers[name], layers[DEFAULT], *of_tenants))
        self.warnings += sound.ties(policies)
        if self.problems:
            raise PolicyError(_once(self.problems), _once(self.warnings))
        return PolicySet(policies, _once(self.warnings), self.tests, local)

    def read(self, paths: dict[str, Path]) -> dict[str, _File]:
        files = {}
        for name, path in paths.items():
            shown = str(_relative(path))
            try:
                if path.stat().st_size > FILE_BYTES_MAX:
                    raise ValueError(f"larger than {FILE_BYTES_MAX} bytes: not a policy")
                files[name] = _parsed(path.read_text(encoding="utf-8"), shown)
            except SyntaxProblem as error:
                self.problems.append(error.problem)
            except UnicodeDecodeError:
                self.problems.append(Problem(shown, 0, "not UTF-8 text"))
            except OSError as error:
                self.problems.append(Problem(shown, 0, f"cannot be read: {error.strerror}"))
            except ValueError as error:
                self.problems.append(Problem(shown, 0, str(error)))
        return files

    def read_tenants(self, policies: Sequence[str]) -> dict[str, _OfTenants]:
        """Of each policy, the tenants that have a file about it."""
        found: dict[str, _OfTenants] = {}
        for tenant, paths in self.tenant_files.items():
            for name, file in self.read(paths).items():
                if name not in policies:
                    hint = nearest(name, policies)
                    self.problems.append(file.tree.problem((), f"there is no policy {name} to lay this over{hint}"))
                self.take(_laid(file))
                self.take_tests(_tests(file, TenantFile), name, tenant, is_shipped=False)
                found[name] = (*found.get(name, ()), (tenant, file))
        return found

    def take_tests(self, read: _Read[_Tests], name: str, tenant: str, *, is_shipped: bool) -> None:
        self.tests += [LocatedTest(name, tenant, test, place, is_shipped) for test, place in self.take(read)]

    def take(self, read: _Read[T]) -> T:
        self.problems += read.problems
        self.warnings += read.warnings
        return read.result


def _layers(name: str, shipped: dict[str, _File], local: dict[str, _File]) -> _Files:
    """The files that a policy is made of, the strongest last."""
    layers = [files[name] for files in (shipped, local) if name in files]
    if len(layers) == 2 and layers[1].tree.data.get("replace") is True:
        del layers[0]
    return tuple(layers)


# What is made of files is kept as long as they are the same: a reload, or another test, reads again what has changed.


@lru_cache(maxsize=256)
def _tests(file: _File, struct: type[PolicyFile] | type[TenantFile]) -> _Read[_Tests]:
    """Tests are not layered: each is about the layers up to its own. And names that one file uses twice."""
    tree = file.tree if struct is PolicyFile else with_scopes(file.tree)
    problems = sound.twice_named(tree)
    alone = tree.only("test")
    if not alone.data:
        return _Read((), problems, ())
    reader = Reader(alone)
    tests = [(test, tree.place(("test", i))) for i, test in enumerate(reader.read(struct).tests)]
    return _Read(tests, problems + reader.problems, reader.warnings)


@lru_cache(maxsize=256)
def _laid(file: _File) -> _Read[Tree]:
    """A tenant's file, its tests left aside."""
    tree = with_scopes(file.tree).without("test")
    reader = Reader(tree)
    sound.check_tenant(reader, reader.read(TenantFile))
    return _Read(tree, reader.problems, reader.warnings)


@lru_cache(maxsize=POLICIES_KEPT)
def _policy(name: str, layers: _Files, default_layers: _Files, own: _OfTenants, for_all: _OfTenants) -> _Read[Policy]:
    """A policy. `own`: tenants' files about it; `for_all`: about all policies, and so about this."""
    if name == DEFAULT:
        reader = Reader(_joined(layers))
        trees = {tenant: _laid(file).result for tenant, file in own}
    else:
        below = _below(default_layers)
        reader = Reader(overlay(below.values, _joined(layers)).with_below("rule", below.rules, "when"), below.known)
        trees = _of_tenants(dict(own), dict(for_all))
    file = reader.read(PolicyFile)
    if name == DEFAULT and "match" in reader.tree.data:
        reader.fail(("match",), "default is under all policies and matches nothing by itself")
    policy = Policy(name, file, reader.tree, [layer.tree.place(()).file for layer in layers], trees)
    sound.check(reader, policy, file)
    return _Read(policy, reader.problems, reader.warnings)


def _of_tenants(own: Mapping[str, _File], for_all: Mapping[str, _File]) -> dict[str, Tree]:
    """What tenants' files say of a policy, those about it over those about all."""
    trees = {}
    for tenant in sorted(own.keys() | for_all.keys()):
        tree, *lower = (_laid(files[tenant]).result for files in (own, for_all) if tenant in files)
        trees[tenant] = overlay(lower[0], tree.with_below("rule", lower[0], "when")) if lower else tree
    return trees


@lru_cache(maxsize=8)
def _below(layers: _Files) -> _Below:
    """What all other policies take from `default`."""
    whole = _joined(layers)
    rules = whole.only("rule")
    reader = Reader(rules)
    read = reader.read(PolicyFile).rules
    is_right = not reader.problems and not reader.warnings
    tables = cast("list[object]", rules.data.get("rule", [])) if is_right else []
    return _Below(whole.without(*_OWN_KEYS), rules, Known(tables, read if is_right else ()))


def _joined(layers: _Files) -> Tree:
    """What the files of one name together say, tests left aside."""
    trees = [layer.tree for layer in layers]
    tree = trees[0] if trees else Tree({}, {})
    for upper in trees[1:]:
        tree = overlay(tree, upper.with_below("rule", tree, "when"))
    return tree.without("test")


def _files(folder: Path) -> dict[str, Path]:
    return {path.stem: path for path in sorted(folder.glob("*.toml"))}


@lru_cache(maxsize=256)
def _parsed(text: str, file: str) -> _File:
    """What a file says. Kept, because most files are as they were when a reload, or a test, reads them again."""
    return _File(tree_of(parse(text, file)))


def _once(problems: Sequence[Problem]) -> list[Problem]:
    """A mistake in `default` shows in every policy, but is told once; in the order of files and lines."""
    return sorted(dict.fromkeys(problems))


def _relative(path: Path) -> Path:
    """As short as it can be told."""
    try:
        return path.relative_to(Path.cwd()) if path.is_absolute() else path
    except ValueError:
        return path

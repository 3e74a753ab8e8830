"""Layers: the shipped policies, an admin's own over them, tenants' over these, and `default` under all of them.

A file of the admin's with the name of a shipped one adds to it or replaces its values, key by key; with
`replace = true` it starts afresh. What a policy leaves open comes from `default`, whose rules are tried after the
policy's own. `tenants/TENANT/NAME.toml` holds for one tenant's mail. Every value that is in force knows the file and
line that it comes from.
"""

from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from mta_policies import sound
from mta_policies.located import Place, Problem, SyntaxProblem, nearest, parse
from mta_policies.match import Index
from mta_policies.policy import Policy
from mta_policies.reader import Reader
from mta_policies.rulebook import TestCase
from mta_policies.schema import PolicyFile
from mta_policies.tenants import TenantFile, with_scopes
from mta_policies.tree import Tree, overlay, tree_of

DEFAULT = "default"
"""The name of the policy that is under all others."""

BUILT_IN = "built in"
"""Where a value comes from that no file says."""

FILE_BYTES_MAX = 1_000_000  # a policy is a page of text; more is a mistake of who named the folder

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
        place = self.policies[policy_name].tenant_tree(tenant, source_name).origin(path)
        return str(place) if place else BUILT_IN


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
        shipped = self.trees({name: path for name, path in self.shipped_files.items() if name not in self.disabled})
        local = self.trees(self.local_files)
        for trees in (shipped, local):
            for name, tree in trees.items():
                self.read_tests(PolicyFile, name, "", tree, is_shipped=trees is shipped)
        default, default_files = self.layer(DEFAULT, shipped, local)
        default = default.without("test")
        names = sorted((shipped.keys() | local.keys()) - {DEFAULT})
        tenant_trees = self.tenant_layer([DEFAULT, *names])
        policies = {DEFAULT: self.policy(DEFAULT, default, default_files, tenant_trees, is_default=True)}
        for name in names:
            own, files = self.layer(name, shipped, local)
            tree = overlay(default.without(*_OWN_KEYS), own.without("test")).with_below("rule", default)
            policies[name] = self.policy(name, tree, files, tenant_trees)
        self.warnings += sound.ties(policies)
        if self.problems:
            raise PolicyError(_once(self.problems), _once(self.warnings))
        return PolicySet(policies, _once(self.warnings), self.tests, local)

    def trees(self, files: dict[str, Path]) -> dict[str, Tree]:
        trees = {}
        for name, path in files.items():
            shown = str(_relative(path))
            try:
                if path.stat().st_size > FILE_BYTES_MAX:
                    raise ValueError(f"larger than {FILE_BYTES_MAX} bytes: not a policy")
                trees[name] = _parsed(path.read_text(encoding="utf-8"), shown)
            except SyntaxProblem as error:
                self.problems.append(error.problem)
            except UnicodeDecodeError:
                self.problems.append(Problem(shown, 0, "not UTF-8 text"))
            except OSError as error:
                self.problems.append(Problem(shown, 0, f"cannot be read: {error.strerror}"))
            except ValueError as error:
                self.problems.append(Problem(shown, 0, str(error)))
        return trees

    def read_tests(
        self, struct: type[PolicyFile] | type[TenantFile], name: str, tenant: str, tree: Tree, *, is_shipped: bool
    ) -> None:
        """Tests are not layered: each is about the layers up to its own. And names that one file uses twice."""
        self.problems += sound.twice_named(tree)
        alone = tree.only("test")
        if not alone.data:
            return
        reader = Reader(alone)
        tests = reader.read(struct).tests
        self.take(reader)
        self.tests += [
            LocatedTest(name, tenant, test, tree.place(("test", i)), is_shipped) for i, test in enumerate(tests)
        ]

    def take(self, reader: Reader) -> None:
        self.problems += reader.problems
        self.warnings += reader.warnings

    def layer(self, name: str, shipped: dict[str, Tree], local: dict[str, Tree]) -> tuple[Tree, list[str]]:
        """What the files of this name together say, and which they are."""
        layers = [trees[name] for trees in (shipped, local) if name in trees]
        if not layers:
            return Tree({}, {}), []
        if len(layers) == 2 and layers[1].data.get("replace") is True:
            del layers[0]
        tree = layers[0]
        for upper in layers[1:]:
            tree = overlay(tree, upper.with_below("rule", tree))
        return tree, [layer.place(()).file for layer in layers]

    def policy(
        self,
        name: str,
        tree: Tree,
        files: list[str],
        tenant_trees: dict[str, dict[str, Tree]],
        *,
        is_default: bool = False,
    ) -> Policy:
        reader = Reader(tree)
        file = reader.read(PolicyFile)
        if is_default and "match" in tree.data:
            reader.fail(("match",), "default is under all policies and matches nothing by itself")
        own = tenant_trees.get(name, {})
        for_all = {} if is_default else tenant_trees.get(DEFAULT, {})
        merged = {
            tenant: overlay(for_all[tenant], own[tenant].with_below("rule", for_all[tenant]))
            if tenant in own and tenant in for_all
            else own.get(tenant) or for_all[tenant]
            for tenant in sorted(own.keys() | for_all.keys())
        }
        policy = Policy(name, file, tree, files, merged)
        sound.check(reader, policy, file)
        self.take(reader)
        return policy

    def tenant_layer(self, policies: Sequence[str]) -> dict[str, dict[str, Tree]]:
        """Of each policy, what the tenants' files say about it, read and found right."""
        layers: dict[str, dict[str, Tree]] = {}
        for tenant, files in self.tenant_files.items():
            for name, raw in self.trees(files).items():
                tree = with_scopes(raw)
                if name not in policies:
                    hint = nearest(name, policies)
                    self.problems.append(raw.problem((), f"there is no policy {name} to lay this over{hint}"))
                reader = Reader(tree.without("test"))
                sound.check_tenant(reader, reader.read(TenantFile))
                self.take(reader)
                self.read_tests(TenantFile, name, tenant, tree, is_shipped=False)
                layers.setdefault(name, {})[tenant] = tree.without("test")
        return layers


def _files(folder: Path) -> dict[str, Path]:
    return {path.stem: path for path in sorted(folder.glob("*.toml"))}


@lru_cache(maxsize=256)
def _parsed(text: str, file: str) -> Tree:
    """What a file says. Kept, because most files are as they were when a reload, or a test, reads them again."""
    return tree_of(parse(text, file))


def _once(problems: Sequence[Problem]) -> list[Problem]:
    """A mistake in `default` shows in every policy, but is told once; in the order of files and lines."""
    return sorted(dict.fromkeys(problems))


def _relative(path: Path) -> Path:
    """As short as it can be told."""
    try:
        return path.relative_to(Path.cwd()) if path.is_absolute() else path
    except ValueError:
        return path

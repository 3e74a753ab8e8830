"""Layers: the shipped policies, an admin's own over them, and `default` under all of them.

A file of the admin's with the name of a shipped one adds to it or replaces its values, key by key; with
`replace = true` it starts afresh. What a policy leaves open comes from `default`. Every value that is in force
knows the file and line that it comes from.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path

from mta_policies.located import Keys, Problem, SyntaxProblem, parse
from mta_policies.match import Index
from mta_policies.reader import Reader
from mta_policies.schema import Limits, Policy, PolicyFile, Retry
from mta_policies.tree import Table, Tree, is_list_of_tables, overlay, tree_of

DEFAULT = "default"
"""The name of the policy that is under all others."""

BUILT_IN = "built in"
"""Where a value comes from that no file says."""

FILE_BYTES_MAX = 1_000_000  # a policy is a page of text; more is a mistake of who named the folder

_OWN_KEYS = ("title", "replace", "match", "owners", "sources", "rule")
"""What a policy never takes from `default`: who it is for, how many workers share it, and its own exceptions."""

_SOURCE_KEYS = ("limits", "source_limits", "retry")


class PolicyError(Exception):
    """The policy files do not hold together; `problems` are all of them, `warnings` what else there was to say."""

    def __init__(self, problems: Sequence[Problem], warnings: Sequence[Problem] = ()) -> None:
        super().__init__("\n".join(map(str, problems)))
        self.problems = list(problems)
        self.warnings = list(warnings)


class PolicySet:
    """All policies in force. `default` is one of `policies`, but never matches by domain or MX."""

    def __init__(self, policies: dict[str, Policy], warnings: Sequence[Problem]) -> None:
        self.policies = policies
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

    def origin(self, policy_name: str, path: tuple[str, ...], source_name: str = "") -> str:
        """Where a value in force was written: "policies/google.toml:12"; "built in" where no file says it."""
        policy = self.policies[policy_name]
        place = (policy.source_tree(source_name) if source_name else policy.tree).origin(path)
        return str(place) if place else BUILT_IN


def shipped_directory() -> Path:
    """The folder of the shipped files: beside the package in an installation, above it in a checkout."""
    package = Path(__file__).parent
    packed = package / "shipped"
    return packed if packed.is_dir() else package.parent


def shipped_names(shipped: Path | None = None) -> list[str]:
    """The names of the shipped policies."""
    return sorted(path.stem for path in (shipped or shipped_directory()).glob("*.toml"))


def load(local: Path | None, disabled: Sequence[str] = (), *, shipped: Path | None = None) -> PolicySet:
    """Reads both folders; PolicyError with all problems at once where they do not hold together.

    `local`: the admin's folder; None for none. `disabled`: shipped policies that are not wanted.
    """
    return _Loader(shipped or shipped_directory(), local, disabled).load()


class _Loader:
    def __init__(self, shipped: Path, local: Path | None, disabled: Sequence[str]) -> None:
        self.problems: list[Problem] = []
        self.warnings: list[Problem] = []
        self.disabled = set(disabled) - {DEFAULT}
        self.shipped_files = {path.stem: path for path in sorted(shipped.glob("*.toml"))}
        self.local_files: dict[str, Path] = {}
        if local is not None and local.resolve() != shipped.resolve():
            self.local_files = {path.stem: path for path in sorted(local.glob("*.toml"))}

    def load(self) -> PolicySet:
        shipped = self.trees(path for name, path in self.shipped_files.items() if name not in self.disabled)
        local = self.trees(self.local_files.values())
        default, default_files = self.layer(DEFAULT, shipped, local)
        policies = {DEFAULT: self.policy(DEFAULT, default, default_files, is_default=True)}
        for name in sorted((shipped.keys() | local.keys()) - {DEFAULT}):
            own, files = self.layer(name, shipped, local)
            policies[name] = self.policy(name, overlay(default.without(*_OWN_KEYS), own), files)
        self.find_ties(policies)
        if self.problems:
            raise PolicyError(_once(self.problems), _once(self.warnings))
        return PolicySet(policies, _once(self.warnings))

    def trees(self, paths: Iterable[Path]) -> dict[str, Tree]:
        trees = {}
        for path in paths:
            shown = str(_relative(path))
            try:
                if path.stat().st_size > FILE_BYTES_MAX:
                    raise ValueError(f"larger than {FILE_BYTES_MAX} bytes: not a policy")
                trees[path.stem] = tree_of(parse(path.read_text(encoding="utf-8"), shown))
            except SyntaxProblem as error:
                self.problems.append(error.problem)
            except UnicodeDecodeError:
                self.problems.append(Problem(shown, 0, "not UTF-8 text"))
            except OSError as error:
                self.problems.append(Problem(shown, 0, f"cannot be read: {error.strerror}"))
            except ValueError as error:
                self.problems.append(Problem(shown, 0, str(error)))
        return trees

    def layer(self, name: str, shipped: dict[str, Tree], local: dict[str, Tree]) -> tuple[Tree, list[str]]:
        """What the files of this name together say, and which they are."""
        layers = [trees[name] for trees in (shipped, local) if name in trees]
        if not layers:
            return Tree({}, {}), []
        if len(layers) == 2 and layers[1].data.get("replace") is True:
            del layers[0]
        tree = layers[0]
        for upper in layers[1:]:
            tree = overlay(tree, _with_rules_below(tree, upper))
        return tree, [layer.place(()).file for layer in layers]

    def policy(self, name: str, tree: Tree, files: list[str], *, is_default: bool = False) -> Policy:
        reader = Reader(tree)
        file = reader.read(PolicyFile)
        if is_default and "match" in tree.data:
            reader.fail(("match",), "default is under all policies and matches nothing by itself")
        _check_regular(reader, file.retry, ("retry",))
        policy = Policy(name, file, tree, files)
        self.check_owners(reader, policy, file)
        for pattern in policy.source_patterns:
            if not reader.is_good("sources", pattern):
                continue
            table = tree.get(("sources", pattern))
            given = [key for key in _SOURCE_KEYS if isinstance(table, dict) and key in table]
            whole_reader = Reader(policy.tree_with([pattern]))
            whole = whole_reader.read(PolicyFile)
            del whole_reader.problems[:], whole_reader.warnings[:]  # told already: what counts here is the whole
            if "retry" in given:
                _check_regular(whole_reader, whole.retry, ("retry",))
            for key, limits in (("limits", whole.limits), ("source_limits", whole.source_limits)):
                if key in given:
                    self.check_share(whole_reader, key, limits, policy.owners)
            reader.problems += whole_reader.problems
            reader.warnings += whole_reader.warnings
        self.problems += reader.problems
        self.warnings += reader.warnings
        return policy

    def check_owners(self, reader: Reader, policy: Policy, file: PolicyFile) -> None:
        limits = {"limits": file.limits, "source_limits": file.source_limits, "provider_limits": file.provider_limits}
        for key, one in limits.items():
            self.check_share(reader, key, one, policy.owners)

    def check_share(self, reader: Reader, table: str, limits: Limits, owners: int) -> None:
        """Each owner has its share of a limit: less than one connection or message would be none."""
        if owners == 1:
            return
        if 0 < limits.connections < owners:
            text = f"connections = {limits.connections} cannot be shared by owners = {owners}: each needs at least one"
            reader.fail((table, "connections"), text)
        for key, rates in (("connection_rate", limits.connection_rate), ("rate", limits.rate)):
            for rate in rates:
                if rate.count < owners:
                    text = f'{key} = "{rate}" cannot be shared by owners = {owners}: each needs at least one'
                    reader.fail((table, key), text)
                elif rate.per_second < owners:
                    text = (
                        f'{key} = "{rate}" is less than one a second for each of owners = {owners}: '
                        "after a pause each may begin with one at the same moment"
                    )
                    reader.warn((table, key), text)

    def find_ties(self, policies: dict[str, Policy]) -> None:
        """The same pattern in two policies: which one wins would be a matter of names."""
        for key in ("domains", "mx"):
            seen: dict[str, str] = {}
            for name, policy in policies.items():
                patterns = policy.match.domains if key == "domains" else policy.match.mx
                for pattern in dict.fromkeys(patterns):
                    first = seen.setdefault(pattern, name)
                    if first != name:
                        at = policies[first].tree.place(("match", key))
                        text = f"{pattern} is also in {at}: a tie, and policy {first} wins by its name"
                        self.warnings.append(policy.tree.problem(("match", key), text))


def _check_regular(reader: Reader, retry: Retry, path: Keys) -> None:
    """What only shows together in [retry]."""
    is_good = reader.is_good(*path, "schedule")
    if is_good and (not retry.schedule or min(retry.schedule) < 1.0):
        reader.fail((*path, "schedule"), "schedule: at least one time, and none under a second")
    if len({minute for window in retry.avoid for minute in window.minutes()}) == 60:
        reader.fail((*path, "avoid"), "avoid: nothing is left of the hour")


def _with_rules_below(lower: Tree, upper: Tree) -> Tree:
    """The upper tree with the lower one's rules after its own, but for those whose names it uses itself."""
    own, below = upper.data.get("rule"), lower.data.get("rule")
    if not (is_list_of_tables(own) and is_list_of_tables(below)):
        return upper
    rules: list[Table] = [*own]  # type: ignore[misc]  # is_list_of_tables has just said so
    names = {rule.get("name") for rule in rules}
    places = dict(upper.places)
    for i, rule in enumerate(below):  # type: ignore[arg-type]
        if rule.get("name") not in names:
            branch = lower.branch(("rule", i))
            places |= {("rule", len(rules), *keys): place for keys, place in branch.places.items()}
            rules.append(rule)
    return Tree({**upper.data, "rule": rules}, places)


def _once(problems: Sequence[Problem]) -> list[Problem]:
    """A mistake in `default` shows in every policy, but is told once; in the order of files and lines."""
    return sorted(dict.fromkeys(problems))


def _relative(path: Path) -> Path:
    """As short as it can be told."""
    try:
        return path.relative_to(Path.cwd()) if path.is_absolute() else path
    except ValueError:
        return path

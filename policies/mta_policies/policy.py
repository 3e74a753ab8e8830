"""A policy in force: what its files say over what `default` says, and what of it holds for a source or a tenant."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from mta_policies import match, tenants
from mta_policies.reader import Reader
from mta_policies.rules import Rules
from mta_policies.schema import Limits, PolicyFile, Retry, TlsMode
from mta_policies.tenants import ForTenant
from mta_policies.tree import Tree, overlay


class ForSource(NamedTuple):
    """What of a policy holds for one source."""

    limits: Limits
    source_limits: Limits
    retry: Retry


class Policy:
    """One policy in force."""

    def __init__(
        self,
        name: str,
        file: PolicyFile,
        tree: Tree,
        files: Sequence[str],
        tenant_trees: Mapping[str, Tree] | None = None,
    ) -> None:
        """`tenant_trees`: what the files of tenants say of this policy or of all, read before and found right."""
        self.name = name
        self.title = file.title or name
        self.match = file.match
        self.owners = file.owners
        self.tls: TlsMode = file.tls
        self.limits = file.limits
        self.source_limits = file.source_limits
        self.provider_limits = file.provider_limits
        self.retry = file.retry
        self.adapt = file.adapt
        self.rulebook = file.rules
        """The rules as they are written, in the order in which they are tried; default's come last."""
        self.rules = Rules(file.rules)
        self.source_patterns = tuple(sorted(file.sources, key=lambda pattern: (len(pattern), pattern)))
        """The names in `[sources."..."]`, the strongest last."""
        self.tree = tree
        """Every value and where it was written."""
        self.files = tuple(files)
        """The files that make it, the strongest last, without `default`'s."""
        self.tenant_trees = tenant_trees or {}
        self.tenants_with_rules = tuple(name for name, tree in self.tenant_trees.items() if "rule" in tree.data)
        """Tenants that have rules of their own here."""
        self.tenants_with_limits = frozenset(name for name, tree in self.tenant_trees.items() if "limits" in tree.data)
        """Tenants that allow themselves less than the policy does."""
        self.tenants_with_retry = frozenset(name for name, tree in self.tenant_trees.items() if "retry" in tree.data)
        """Tenants whose mail is tried again at other times."""
        self._everybody = tenants.everybody(self.rules)
        self._for_source: dict[str, ForSource] = {}
        self._for_tenant: dict[str, ForTenant] = {}
        self._retry: dict[tuple[str, str], Retry] = {}

    def __repr__(self) -> str:
        return f"Policy({self.name!r})"

    # for a source

    def for_source(self, source_name: str) -> ForSource:
        """Limits and retry for this source: of several patterns that match, the longer's values stand."""
        known = self._for_source.get(source_name)
        if known is None:
            if self.patterns_for(source_name):
                file = Reader(self.source_tree(source_name)).read(PolicyFile)
                known = ForSource(file.limits, file.source_limits, file.retry)
            else:
                known = ForSource(self.limits, self.source_limits, self.retry)
            self._for_source[source_name] = known
        return known

    def connections_max(self, source_name: str) -> int:
        """Connections that this source may have open at one site, by every level of limits; 0: no limit."""
        limits, source_limits, _ = self.for_source(source_name)
        counts = (limits.connections, source_limits.connections, self.provider_limits.connections)
        return min(filter(None, counts), default=0)

    def patterns_for(self, source_name: str) -> list[str]:
        """The `[sources."..."]` that apply to this source, the strongest last."""
        return [pattern for pattern in self.source_patterns if match.name_matches(pattern, source_name)]

    def source_tree(self, source_name: str) -> Tree:
        """Every value as it holds for this source, and where it was written."""
        return self.tree_with(self.patterns_for(source_name))

    def tree_with(self, patterns: Sequence[str]) -> Tree:
        tree = self.tree
        for pattern in patterns:
            tree = overlay(tree, self.tree.branch(("sources", pattern)))
        return tree

    # for a tenant

    def for_tenant(self, tenant: str) -> ForTenant:
        """The limits of this tenant's own and the rules for its mail; the same object for all that have no files."""
        if tenant not in self.tenant_trees:
            return self._everybody
        known = self._for_tenant.get(tenant)
        if known is None:
            known = tenants.for_tenant(self.tenant_trees[tenant], self.rulebook, self.rules)
            self._for_tenant[tenant] = known
        return known

    def retry_for(self, tenant: str, source_name: str) -> Retry:
        """When mail of this tenant from this source is tried again."""
        own = self.for_tenant(tenant).retry_tree
        if own is None:
            return self.for_source(source_name).retry
        known = self._retry.get((tenant, source_name))
        if known is None:
            retry = self.source_tree(source_name).branch(("retry",)).under("retry")
            known = self._retry[tenant, source_name] = Reader(overlay(retry, own)).read(PolicyFile).retry
        return known

    def tenant_tree(self, tenant: str, source_name: str = "") -> Tree:
        """Every value as it holds for this tenant's mail, and where it was written. Its limits are kept beside those
        of the policy, whose rules come after its own."""
        tree = self.source_tree(source_name)
        own = self.tenant_trees.get(tenant)
        return overlay(tree, own.with_below("rule", tree, "when")) if own is not None else tree

    def rule_origin(self, name: str, tenant: str = "") -> str:
        """Where a rule was written: "policies/google.toml:30"; "" where there is none of this name."""
        for tree in filter(None, (self.tenant_trees.get(tenant), self.tree)):
            index = tree.index_of("rule", name)
            if index is not None:
                return str(tree.place(("rule", index)))
        return ""

"""Shipped files, the admin's own over them, default under all: values and where each was written."""

from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mta_policies import layers
from mta_policies.layers import PolicyError, PolicySet
from mta_policies.policy import ForSource
from mta_policies.units import Rate

DEFAULT = """\
tls = "opportunistic"
[limits]
connections = 10
rate = "100/s"
[retry]
schedule = ["5m", "1h"]
"""
GOOGLE = """\
title = "Google"
match = { mx = ["*.google.example"], domains = ["gmail.example"] }
tls = "required"
[limits]
connections = 5
[source_limits]
connections = 5
[sources."new-*"]
limits = { connections = 2, rate = "2/s" }
[sources."new-9*"]
limits = { rate = "9/s" }
retry = { schedule = ["9h"] }
"""


class Folders:
    def __init__(self, root: Path) -> None:
        self.shipped, self.local = root / "shipped", root / "local"
        self.shipped.mkdir()
        self.local.mkdir()
        self.ship("default", DEFAULT)
        self.ship("google", GOOGLE)

    def ship(self, name: str, text: str) -> None:
        (self.shipped / f"{name}.toml").write_text(text)

    def put(self, name: str, text: str) -> None:
        (self.local / f"{name}.toml").write_text(text)

    def load(self, *disabled: str) -> PolicySet:
        return layers.load(self.local, disabled, shipped=self.shipped)

    def problems(self) -> list[str]:
        with pytest.raises(PolicyError) as raised:
            self.load()
        return [str(problem).replace(f"{self.shipped.parent}/", "") for problem in raised.value.problems]


@pytest.fixture
def folders(tmp_path: Path) -> Folders:
    return Folders(tmp_path)


def test_what_a_policy_leaves_open_comes_from_default(folders: Folders) -> None:
    """Key by key, not table by table."""
    google = folders.load().policies["google"]

    assert google.limits.connections == 5
    assert google.limits.rate == (Rate(100, 1),)
    assert google.retry.schedule == (300.0, 3600.0)
    assert google.tls == "required"


def test_a_local_file_adds_to_the_shipped_one(folders: Folders) -> None:
    """Its values stand, what it leaves open is the shipped file's."""
    folders.put("google", '[limits]\nrate = "7/s"\nmessages_per_connection = 9\n')

    google = folders.load().policies["google"]

    assert google.limits.rate == (Rate(7, 1),)
    assert google.limits.messages_per_connection == 9
    assert google.limits.connections == 5
    assert google.match.domains == ("gmail.example",)
    assert len(google.files) == 2


def test_a_local_default_reaches_all_that_say_nothing_themselves(folders: Folders) -> None:
    """So one file lifts the limits of everything but what a policy limits itself."""
    folders.put("default", '[limits]\nconnections = 0\nrate = "none"\nmessages_per_connection = 0\n')

    policies = folders.load()

    assert policies.default.limits.connections == 0
    assert policies.default.limits.rate == ()
    assert policies.policies["google"].limits.rate == ()
    assert policies.policies["google"].limits.connections == 5


def test_replace_starts_afresh(folders: Folders) -> None:
    """Nothing of the shipped file is left but what default says."""
    folders.put("google", 'replace = true\nmatch = { domains = ["gmail.example"] }\n')

    google = folders.load().policies["google"]

    assert google.limits.connections == 10
    assert google.match.mx == ()
    assert google.tls == "opportunistic"
    assert google.source_patterns == ()


def test_a_policy_of_ones_own_needs_no_shipped_one(folders: Folders) -> None:
    """A new name is a new policy."""
    folders.put("partner", 'match = { domains = ["partner.example"] }\n')

    partner = folders.load().by_domain("partner.example")

    assert partner is not None
    assert (partner.name, partner.title, partner.limits.connections) == ("partner", "partner", 10)


def test_a_disabled_policy_is_as_if_it_were_not_shipped(folders: Folders) -> None:
    """A local file of its name then stands alone."""
    assert "google" not in folders.load("google").policies

    folders.put("google", 'match = { domains = ["gmail.example"] }\n')

    assert folders.load("google").policies["google"].limits.connections == 10


def test_default_cannot_be_disabled(folders: Folders) -> None:
    """All others stand on it."""
    assert folders.load("default").default.limits.connections == 10


def test_owners_title_and_match_are_not_inherited(folders: Folders) -> None:
    """Four owners for everything else do not cut the provider with five connections in four."""
    folders.put("default", 'owners = 4\ntitle = "Everything"\n[limits]\nrate = "100/s"\n')

    policies = folders.load()

    assert policies.default.owners == 4
    assert policies.policies["google"].owners == 1
    assert policies.policies["google"].title == "Google"


def test_the_shipped_folder_as_ones_own_is_read_once(folders: Folders) -> None:
    """Otherwise every file would lie over itself, and rules would come twice."""
    folders.ship("rules", '[[rule]]\nname = "a"\n')

    policies = layers.load(folders.shipped / ".." / "shipped", (), shipped=folders.shipped)

    assert len(policies.policies["google"].files) == 1


def test_without_a_local_folder_the_shipped_ones_hold(folders: Folders) -> None:
    """None is the answer of who has no files."""
    assert set(layers.load(None, shipped=folders.shipped).policies) == {"default", "google"}


# -- origins --


def test_every_value_knows_its_file_and_line(folders: Folders) -> None:
    """The admin's, the shipped one's, default's, or nobody's."""
    folders.put("google", "\n[limits]\nmessages_per_connection = 9\n")

    policies = folders.load()

    def origin(*path: str) -> str:
        return policies.origin("google", path).removeprefix(f"{folders.shipped.parent}/")

    assert origin("limits", "messages_per_connection") == "local/google.toml:3"
    assert origin("limits", "connections") == "shipped/google.toml:5"
    assert origin("limits", "rate") == "shipped/default.toml:4"
    assert origin("retry", "expire") == "built in"


def test_a_sources_value_knows_its_line_too(folders: Folders) -> None:
    """What `[sources."..."]` says is where it comes from, the rest is as for all."""
    policies = folders.load()

    rate = policies.origin("google", ("limits", "rate"), "new-1")
    connections = policies.origin("google", ("source_limits", "connections"), "new-1")

    assert rate.endswith("shipped/google.toml:9")
    assert connections.endswith("shipped/google.toml:7")


# -- sources --


@pytest.mark.parametrize(
    ("source", "connections", "rate", "schedule"),
    [
        ("out-1", 5, Rate(100, 1), (300.0, 3600.0)),
        ("new-1", 2, Rate(2, 1), (300.0, 3600.0)),
        ("new-91", 2, Rate(9, 1), (32400.0,)),
    ],
)
def test_some_sources_have_other_limits(
    folders: Folders, source: str, connections: int, rate: Rate, schedule: tuple[float, ...]
) -> None:
    """Of several patterns that match the longer one's values stand, key by key."""
    found = folders.load().policies["google"].for_source(source)

    assert found.limits.connections == connections
    assert found.limits.rate == (rate,)
    assert found.source_limits.connections == 5
    assert found.retry.schedule == schedule


def test_a_sources_limits_are_made_once(folders: Folders) -> None:
    """Asked for every message, looked up once."""
    google = folders.load().policies["google"]

    assert isinstance(google.for_source("new-1"), ForSource)
    assert google.for_source("new-1") is google.for_source("new-1")


# -- matching --


def test_a_domain_or_all_its_hosts_lead_to_the_policy(folders: Folders) -> None:
    """And to no policy where neither matches; never to default."""
    policies = folders.load()
    google = policies.policies["google"]

    assert policies.by_domain("gmail.example") is google
    assert policies.by_domain("sub.gmail.example") is None
    assert policies.by_mx(["a.google.example", "b.google.example"]) is google
    assert policies.by_mx(["a.google.example", "b.example"]) is None
    assert policies.by_mx([]) is None


def test_a_tie_is_warned_of(folders: Folders) -> None:
    """Which policy wins is then a matter of names, and the admin is told which."""
    folders.put("another", 'match = { mx = ["*.google.example"] }\n')

    policies = folders.load()

    found = policies.by_mx(["a.google.example"])
    assert found is policies.policies["another"]
    assert [warning.message.split(" is also in ")[0] for warning in policies.warnings] == ["*.google.example"]


# -- problems --


def test_all_problems_of_all_files_are_told_at_once(folders: Folders) -> None:
    """Each once, though default's values are in every policy."""
    folders.put("default", '[limits]\nrate = "fast"\n')
    folders.put("google", "[limit]\n[retry]\njitter = 5\n")
    folders.put("broken", "[limits\n")

    assert folders.problems() == [
        "local/broken.toml:1: not TOML: Expected ']' at the end of a table declaration, column 8",
        'local/default.toml:2: rate: not a rate: "fast"; write "100/s", "600/min", "10000/h" or "50000/d", or "none"',
        "local/google.toml:1: unknown key limit; did you mean limits?",
        'local/google.toml:3: jitter: expected a share such as "20%", got 5',
    ]


@pytest.mark.parametrize(
    ("text", "line", "part"),
    [
        ("[retry]\nschedule = []", 2, "schedule: at least one time"),
        ('[retry]\nschedule = ["5m", "0s"]', 2, "schedule: at least one time, and none under a second"),
        ('[retry]\nschedule = ["5x"]', 2, 'schedule: not a duration: "5x"'),
        ('[retry]\navoid = ["*:00-*:30", "*:31-*:59"]', 2, "avoid: nothing is left of the hour"),
        ('[sources."x"]\nretry = { schedule = [] }', 2, "schedule: at least one time"),
        ('[match]\nmx = ["a*.google.com"]', 2, "not a domain or pattern"),
        ('[match]\ndomains = ["日本.example"]', 2, "ASCII form"),
        ('tls = "requird"', 1, "did you mean required?"),
        ('[limits]\nconnections = "none"', 2, 'connections: expected a whole number, got "none"'),
        ("[limits]\nrate = 5", 2, 'rate: expected a rate such as "100/min"'),
        ('[limits]\nrate = ["1/s", 5]', 2, "rate: expected a text, got 5"),
    ],
)
def test_a_problem_is_told_where_it_is(folders: Folders, text: str, line: int, part: str) -> None:
    """With the file and line that an admin must mend."""
    folders.put("google", text)

    problems = folders.problems()

    assert len(problems) == 1
    assert f"google.toml:{line}: " in problems[0]
    assert part in problems[0]


def test_default_matches_nothing_by_itself(folders: Folders) -> None:
    """It is under all; a match in it would hide the others."""
    folders.put("default", 'match = { domains = ["x.example"] }')

    assert folders.problems() == ["local/default.toml:1: default is under all policies and matches nothing by itself"]


def test_a_slow_rate_for_several_owners_is_warned_of(folders: Folders) -> None:
    """Each may begin with a message of its own."""
    folders.put("google", 'owners = 2\n[limits]\nrate = "60/min"\n')

    policies = folders.load()

    assert [
        'rate = "60/min" is less than one a second for each of owners = 2' in w.message for w in policies.warnings
    ] == [True]


def test_a_badly_written_rule_is_a_problem(folders: Folders) -> None:
    """With the nearest name."""
    folders.put("google", '[[rule]]\nname = "a"\nthen = [{ action = "slwo" }]\n')

    assert ["did you mean slow?" in problem for problem in folders.problems()] == [True]


def test_the_admins_rules_come_before_the_shipped_ones(folders: Folders) -> None:
    """One with a shipped rule's name takes its place."""
    folders.ship("google", GOOGLE + '[[rule]]\nname = "a"\n[[rule]]\nname = "b"\n')
    folders.put("google", '[[rule]]\nname = "own"\n[[rule]]\nname = "a"\nthen = [{ action = "alert" }]\n')

    google = folders.load().policies["google"]

    assert google.tree.get(("rule", 0, "name")) == "own"
    assert [google.tree.get(("rule", i, "name")) for i in range(4)] == ["own", "a", "b", None]
    assert google.tree.get(("rule", 1, "then", 0, "action")) == "alert"
    assert google.tree.place(("rule", 2, "name")).line == 16


def test_defaults_rules_come_after_all_others(folders: Folders) -> None:
    """Those of a policy are tried first, whoever wrote them; one of the same name stands in the place of default's."""
    folders.ship("default", DEFAULT + '[[rule]]\nname = "any"\n[[rule]]\nname = "busy"\n')
    folders.put("default", '[[rule]]\nname = "admins"\n')
    folders.ship("google", GOOGLE + '[[rule]]\nname = "a"\n')
    folders.put("google", '[[rule]]\nname = "own"\n[[rule]]\nname = "busy"\n')

    policies = folders.load()

    assert [rule.name for rule in policies.policies["google"].rulebook] == ["own", "busy", "a", "admins", "any"]
    assert [rule.name for rule in policies.default.rulebook] == ["admins", "any", "busy"]
    assert policies.policies["google"].rule_origin("any").endswith("shipped/default.toml:7")
    assert policies.policies["google"].rule_origin("busy").endswith("local/google.toml:3")
    assert policies.policies["google"].rule_origin("none") == ""


def test_a_rule_without_a_condition_is_the_one_of_its_name_with_other_actions(folders: Folders) -> None:
    """In the place of that one, with its condition, whichever layer it is in: so a single rule is switched off."""
    folders.ship("default", DEFAULT + '[[rule]]\nname = "any"\nwhen = { code = "4xx" }\n')
    two = '[[rule]]\nname = "a"\nwhen = { code = "421" }\n[[rule]]\nname = "b"\nwhen = { code = "450" }\n'
    folders.ship("google", GOOGLE + two)
    folders.put("google", '[[rule]]\nname = "any"\nthen = []\n[[rule]]\nname = "b"\nthen = [{ action = "defer" }]\n')
    (folders.local / "tenants" / "shop").mkdir(parents=True)
    folders.put("tenants/shop/google", '[[rule]]\nname = "a"\nthen = [{ action = "bounce" }]\n')

    policies = folders.load()
    google = policies.policies["google"]

    assert policies.warnings == []
    assert [(rule.name, rule.when.code) for rule in google.rulebook] == [
        ("a", ("421",)),
        ("b", ("450",)),
        ("any", ("4xx",)),
    ]
    assert [[action.action for action in rule.then] for rule in google.rulebook] == [[], ["defer"], []]
    assert google.rule_origin("b").endswith("local/google.toml:4")
    assert str(google.tree.place(("rule", 1, "when"))).endswith("shipped/google.toml:18")
    assert str(google.tree.place(("rule", 2, "when"))).endswith("shipped/default.toml:9")
    shop = google.for_tenant("shop").rules.in_order
    assert [(rule.name, rule.when.code, len(rule.then)) for rule in shop] == [
        ("a", ("421",), 1),
        ("b", ("450",), 1),
        ("any", ("4xx",), 0),
    ]
    assert google.tenant_tree("shop").get(("rule", 0, "then", 0, "action")) == "bounce"


def test_replace_leaves_defaults_rules(folders: Folders) -> None:
    """It starts afresh where the shipped file would be; default is under it all the same."""
    folders.ship("default", DEFAULT + '[[rule]]\nname = "any"\n')
    folders.ship("google", GOOGLE + '[[rule]]\nname = "a"\n')
    folders.put("google", 'replace = true\n[[rule]]\nname = "own"\n')

    assert [rule.name for rule in folders.load().policies["google"].rulebook] == ["own", "any"]


NAMES = st.lists(st.sampled_from("abcdef"), max_size=5, unique=True)


@given(NAMES, NAMES, NAMES, NAMES, st.booleans())
def test_layers_never_lose_a_rule(
    shipped: list[str], local: list[str], default: list[str], tenant: list[str], has_other: bool
) -> None:
    """Every name of every layer is there once, in the order of the layers, and is the strongest layer's."""
    with TemporaryDirectory() as root:
        folders = Folders(Path(root))
        folders.ship("default", _rules(default, "default"))
        folders.ship("google", _rules(shipped, "shipped"))
        folders.put("google", _rules(local, "local"))
        (folders.local / "tenants" / "shop").mkdir(parents=True)
        folders.put("tenants/shop/google", _rules(tenant, "tenant"))
        if has_other:
            folders.put("tenants/shop/default", '[retry]\nexpire = "1d"\n')

        google = folders.load().policies["google"]

    expected = dict[str, str]()
    for names, layer in ((local, "local"), (shipped, "shipped"), (default, "default")):
        expected = expected | {name: layer for name in names if name not in expected}
    for_shop = dict.fromkeys(tenant, "tenant") | {name: layer for name, layer in expected.items() if name not in tenant}
    assert [(rule.name, rule.when.text[0]) for rule in google.rulebook] == list(expected.items())
    assert [(rule.name, rule.when.text[0]) for rule in google.for_tenant("shop").rules.in_order] == list(
        for_shop.items()
    )
    assert google.for_tenant("bank").rules is google.rules


def _rules(names: list[str], layer: str) -> str:
    return "".join(f'[[rule]]\nname = "{name}"\nwhen = {{ text = "{layer}" }}\n' for name in names)


def test_a_draft_stands_for_a_file_of_the_admins(folders: Folders, tmp_path: Path) -> None:
    """So a change is tried before it is put there."""
    folders.put("google", "[limits]\nconnections = 7\n")
    draft = tmp_path / "google.toml"
    draft.write_text("[limits]\nconnections = 8\n")

    policies = layers.load(folders.local, shipped=folders.shipped, draft=draft)

    assert policies.policies["google"].limits.connections == 8
    assert policies.policies["google"].tls == "required"


def test_files_that_cannot_be_read_are_problems(folders: Folders) -> None:
    """Not UTF-8, or a folder with the name of a file."""
    (folders.local / "latin.toml").write_bytes(b'title = "\xe9"\n')
    (folders.local / "folder.toml").mkdir()

    problems = folders.problems()

    assert problems == [
        "local/folder.toml: cannot be read: Is a directory",
        "local/latin.toml: not UTF-8 text",
    ]


def test_what_did_not_change_is_the_same_policy(folders: Folders) -> None:
    """A reload makes anew what is made of another text now: one policy, or, where `default` changed, all."""
    folders.ship("yahoo", 'match = { mx = ["*.yahoo.example"] }\n')
    first = folders.load().policies
    folders.put("google", "[limits]\nconnections = 3\n")
    second = folders.load().policies
    folders.put("default", "[limits]\nmessages_per_connection = 7\n")
    third = folders.load().policies

    assert second["yahoo"] is first["yahoo"]
    assert second["default"] is first["default"]
    assert (first["google"].limits.connections, second["google"].limits.connections) == (5, 3)
    assert [third[name].limits.messages_per_connection for name in ("default", "google", "yahoo")] == [7, 7, 7]


def test_what_there_was_to_say_is_said_again(folders: Folders) -> None:
    """Files that did not change are as wrong as before."""
    folders.put("default", '[[rule]]\nname = "slow"\nwhen = { code = "9xx" }\n')
    folders.put("google", "[limits]\nquick = 1\n")

    assert folders.problems() == folders.problems()
    assert len(folders.problems()) == 2

"""The shipped policies: right, complete, a source for every number, a test for every action, and in the wheel."""

import re
import tomllib
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

from mta_policies import cases, layers
from mta_policies.layers import LocatedTest, PolicySet
from mta_policies.located import Place

FOLDER = layers.shipped_directory()
NAMES = layers.shipped_names()
JAPAN = ("au", "biglobe", "docomo", "jcom", "nifty", "ocn", "plala", "rakuten", "so-net", "softbank", "yahoo-japan")


@pytest.fixture(scope="module")
def policies() -> PolicySet:
    return layers.load(None)


def test_they_load_without_a_word(policies: PolicySet) -> None:
    """No problem, no warning, no tie."""
    assert policies.warnings == []
    assert set(policies.policies) == set(NAMES)
    assert len(NAMES) >= 30


@pytest.mark.parametrize(
    ("domain", "hosts", "name"),
    [
        ("gmail.com", [], "google"),
        ("workspace.example", ["aspmx.l.google.com", "alt1.aspmx.l.google.com", "aspmx2.googlemail.com"], "google"),
        ("hotmail.com", ["hotmail-com.olc.protection.outlook.com"], "outlook"),
        ("firm.example", ["firm-example.mail.protection.outlook.com"], "microsoft"),
        ("dane.example", ["dane-example.a-v1.mx.microsoft"], "microsoft"),
        ("aol.com", ["mx-aol.mail.gm0.yahoodns.net"], "yahoo"),
        ("yahoo.co.jp", [], "yahoo-japan"),
        ("me.com", [], "apple"),
        ("own.example", ["mx01.mail.icloud.com", "mx02.mail.icloud.com"], "apple"),
        ("comcast.net", ["mx1.mxge.comcast.net", "mx2.mxge.comcast.net"], "comcast"),
        ("comcast.net", ["mx-comcast.mail.gm0.yahoodns.net"], "yahoo"),
        ("wanadoo.fr", [], "orange"),
        ("gmx.de", ["mx00.gmx.net", "mx01.gmx.net"], "gmx"),
        ("web.de", ["mx-ha02.web.de", "mx-ha03.web.de"], "gmx"),
        ("mail.com", ["mx00.mail.com", "mx01.mail.com"], "gmx"),
        ("firm.example", ["eu-smtp-inbound-1.mimecast.com", "eu-smtp-inbound-2.mimecast.com"], "mimecast"),
        ("firm.example", ["d1.ess.barracudanetworks.com"], "barracuda"),
        ("firm.example", ["mxa-00360101.gslb.pphosted.com"], "proofpoint"),
        ("firm.example", ["mx1.hc2916-71.iphmx.com"], "cisco"),
        ("planet.nl", ["mx.kpnmail.nl"], "kpn"),
        ("firm.example", ["mxbiz1.qq.com", "mxbiz2.qq.com"], "qq"),
        ("126.com", [], "netease"),
        ("docomo.ne.jp", [], "docomo"),
        ("ezweb.ne.jp", [], "au"),
        ("d.vodafone.ne.jp", [], "softbank"),
        ("i.softbank.jp", [], "softbank"),
        ("rakumail.jp", [], "rakuten"),
        ("aqua.plala.or.jp", [], "plala"),
        ("bk.ru", [], "mail-ru"),
        ("firm.example", ["mx.yandex.net"], "yandex"),
        ("hanmail.net", [], "daum"),
        ("neuf.fr", [], "sfr"),
        ("firm.example", ["mx1.emailsrvr.com", "mx2.emailsrvr.com"], "rackspace"),
        ("firm.example", ["smtp.secureserver.net", "mailstore1.secureserver.net"], "godaddy"),
        ("mixed.example", ["aspmx.l.google.com", "mx.elsewhere.example"], None),
        ("elsewhere.example", ["mx.elsewhere.example"], None),
    ],
)
def test_providers_are_recognised(policies: PolicySet, domain: str, hosts: list[str], name: str | None) -> None:
    """By their domains, or by the names of all their MX hosts."""
    found = policies.by_domain(domain) or policies.by_mx(hosts)

    assert (found and found.name) == name


@pytest.mark.parametrize("name", JAPAN)
def test_mail_for_japan_goes_gently(policies: PolicySet, name: str) -> None:
    """Few connections, evenly spread, retries away from the full hour, and a brake on unknown users."""
    policy = policies.policies[name]
    brakes = [rule for rule in policy.rules.in_order if rule.trigger.share and rule.name.startswith(name)]

    assert policy.limits.connections == 2
    assert max(rate.per_second for rate in policy.limits.rate) <= 10
    assert [str(window) for window in policy.retry.avoid] == ["*:58-*:04"]
    assert [action.action for rule in brakes for action in rule.then if action.action != "category"] == [
        "slow",
        "alert",
    ]


@pytest.mark.parametrize("name", NAMES)
def test_the_admins_own_brake_is_left_to_the_admin(policies: PolicySet, name: str) -> None:
    """Shipped files say nothing of provider_limits, and leave ownership at one."""
    policy = policies.policies[name]

    assert "provider_limits" not in policy.tree.data
    assert policy.owners == 1


# -- replies --


def test_their_own_tests_hold(policies: PolicySet) -> None:
    """Every [[test]] of every file: the rule, what it does, and the category."""
    failed = [result for result in cases.run(policies, policies.tests) if not result.is_good]

    assert [(str(result.case.place), result.mismatches) for result in failed] == []


def test_every_action_is_tested(policies: PolicySet) -> None:
    """Each file's own tests see every action of its rules done, those that wait for a trigger included."""
    done: dict[str, set[tuple[str, str, str]]] = defaultdict(set)
    for case in policies.tests:
        verdict = cases.judged(policies.policies[case.policy], case)
        assert verdict is not None
        done[case.policy] |= {(verdict.rule, action.action, action.scope) for action in verdict.done}
        done[case.policy].add((verdict.rule, "", ""))

    untested = [
        f"{name}: {rule['name']}: {action}"
        for name in NAMES
        for rule in tomllib.loads((FOLDER / f"{name}.toml").read_text("utf-8")).get("rule", [])
        for action in [("", ""), *((one["action"], one.get("scope", "site")) for one in rule["then"])]
        if (rule["name"], *action) not in done[name]
    ]

    assert untested == []
    assert set(done) == set(NAMES)


def test_a_test_that_comes_out_otherwise_is_seen(policies: PolicySet) -> None:
    """The tests above can fail: expecting what does not happen is told, value by value."""
    case = next(one for one in policies.tests if one.test.rule == "google-unusual-rate-ip")
    wrong = LocatedTest("yahoo", "", case.test, Place("yahoo.toml", 1), True)

    (result,) = cases.run(policies, [wrong])

    assert [one.what for one in result.mismatches] == ["rule", "action"]


@pytest.mark.parametrize("name", ["google", "default"])
def test_any_rule_can_be_switched_off_by_its_name(policies: PolicySet, tmp_path: Path, name: str) -> None:
    """Its replies are then nobody's, and all others do what they did."""
    tests = [test for test in policies.tests if test.policy == name]
    for rule in tomllib.loads((FOLDER / f"{name}.toml").read_text("utf-8"))["rule"]:
        (tmp_path / f"{name}.toml").write_text(f'[[rule]]\nname = "{rule["name"]}"\nthen = []\n')
        changed = layers.load(tmp_path)

        assert changed.warnings == []
        for case in tests:
            before, after = (cases.judged(each.policies[name], case) for each in (policies, changed))
            assert before is not None
            assert after is not None
            assert after.rule == before.rule
            assert after.done == (() if before.rule == rule["name"] else before.done)


def test_no_refusal_of_the_source_condemns_an_address(policies: PolicySet) -> None:
    """Of the replies that the files quote, hard are only those about an address; at docomo and au, whose users' filters
    say the same, none."""
    hard = {
        (case.policy, verdict.category)
        for case in policies.tests
        if (verdict := cases.judged(policies.policies[case.policy], case)) and verdict.hard
    }

    assert {category for _, category in hard} == {"bad-mailbox", "inactive-mailbox"}
    assert not {"docomo", "au"} & {name for name, _ in hard}


# -- sources of the numbers --

SOURCE = re.compile(r"\bours\b|\b(?:19|20)\d\d\b|\bRFC \d+|\bas in \S+", re.IGNORECASE)
HEADER = re.compile(r"\[+([\w.\"*-]+)\]+$")
VALUE = re.compile(r'^ *(?:[a-z_]+ *= *)?["{\[\d]')
NUMBER = re.compile(r"(?<![\w.-])\d")


@pytest.mark.parametrize("name", NAMES)
def test_every_number_has_its_source(name: str) -> None:
    """In a comment beside it, or right above its table: who says so and when, an RFC, or "ours"."""
    bare = [
        f"{number}: {line}"
        for number, line, comment in _numbers((FOLDER / f"{name}.toml").read_text("utf-8").splitlines())
        if not SOURCE.search(comment)
    ]

    assert bare == []


def _numbers(lines: list[str]) -> Iterator[tuple[int, str, str]]:
    """Every line with a number in a table other than [[test]], with the comments that are about it."""
    table, above = "", ""
    for i, line in enumerate(lines):
        header = HEADER.match(line)
        if header:
            table, above = header[1], _comment_before(lines, i)
        value, _, beside = line.partition("#")
        is_matched = table == "rule" and value.lstrip().startswith(("name", "when", "'", '"'))
        if table in ("", "test") or header or is_matched or not VALUE.match(value):
            continue
        if NUMBER.search(value.replace('"', " ").replace("*:", " ")):
            yield i + 1, line, f"{beside} {above}"


def _comment_before(lines: list[str], at: int) -> str:
    first = at
    while first and lines[first - 1].startswith("#"):
        first -= 1
    return " ".join(lines[first:at])


def test_a_number_without_a_source_is_noticed() -> None:
    """Beside it or above its table; what a rule matches needs none, nor does a test."""
    lines = [
        "# All of it.",
        "[limits]",
        "connections = 5",
        'rate        = "5/s"  # theirs, 2026-03',
        "",
        "[[rule]]",
        'name = "x-421"',
        'when = { code = "421" }',
        "then = [",
        '    { action = "suspend", for = "1h" },',
        "]",
        "[[test]]",
        "count = 5",
    ]

    found = [(number, bool(SOURCE.search(comment))) for number, _, comment in _numbers(lines)]

    assert found == [(3, False), (4, True), (10, False)]


# -- packed --


def test_the_wheel_takes_every_shipped_file() -> None:
    """pyproject.toml names them one by one; none is forgotten, none is gone."""
    root = Path(__file__).parents[3]
    built = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]

    assert built["force-include"] == {
        f"policies/{path.name}": f"mta_policies/shipped/{path.name}" for path in (root / "policies").glob("*.toml")
    }


def test_an_installation_finds_its_files_beside_the_package(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """In a checkout they are in the folder above."""
    package = tmp_path / "mta_policies"
    (package / "shipped").mkdir(parents=True)
    monkeypatch.setattr(layers, "__file__", str(package / "layers.py"))

    installed = layers.shipped_directory()
    (package / "shipped").rmdir()
    checked_out = layers.shipped_directory()

    assert installed == package / "shipped"
    assert checked_out == tmp_path

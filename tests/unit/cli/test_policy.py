"""`mta policy`: which limits hold for whom, and where each of them is written."""

import json
from pathlib import Path

import pytest

from mta.cli import main, policy_explain
from mta.config import Config
from mta.resolve.errors import ResolveError
from mta.resolve.sites import MailHosts, MxHost
from mta_policies.layers import shipped_directory, shipped_names

Printed = pytest.CaptureFixture[str]

MATCH_LINE = 1 + next(
    i
    for i, line in enumerate((shipped_directory() / "google.toml").read_text().splitlines())
    if line.startswith("match")
)
"""Where google.toml says whose mail it is for."""

HOSTS = {
    "gmail.com": ["gmail-smtp-in.l.google.com", "alt1.gmail-smtp-in.l.google.com"],
    "workspace.example": ["aspmx.l.google.com", "alt1.aspmx.l.google.com"],
    "mixed.example": ["aspmx.l.google.com", "mx.mixed.example"],
}


class FakeResolver:
    """Knows three domains and none else."""

    def __init__(self) -> None:
        self.is_closed = False

    async def mail_hosts(self, domain: str) -> MailHosts:
        if domain not in HOSTS:
            raise ResolveError(550, "5.1.2", f"domain {domain} does not exist")
        hosts = tuple(MxHost(10 * (i + 1), name) for i, name in enumerate(HOSTS[domain]))
        return MailHosts(domain, hosts, False, 1.0)

    async def close(self) -> None:
        self.is_closed = True


@pytest.fixture(autouse=True)
def resolver(monkeypatch: pytest.MonkeyPatch) -> FakeResolver:
    fake = FakeResolver()

    def make(_: Config) -> FakeResolver:
        return fake

    monkeypatch.setattr(policy_explain, "make_resolver", make)
    return fake


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "policies").mkdir()
    (tmp_path / "policies" / "google.toml").write_text(
        '[limits]\nrate = "7/s"\n[sources."new-*"]\nlimits = { rate = "1/s" }\n'
    )
    (tmp_path / "mta.toml").write_text(
        """\
[[source]]
name = "out-1"
[[source]]
name = "new-1"
[[pool]]
name = "default"
sources = { out-1 = 3, new-1 = 1 }
[[pool]]
name = "fresh"
sources = { new-1 = 1 }
[[tenant]]
name = "shop"
pool = "fresh"
[[route]]
domains = ["*.corp.example"]
hosts = ["10.0.0.5"]
[[route]]
domains = ["partner.example"]
hosts = ["10.0.0.6:2525"]
policy = "yahoo"
"""
    )
    return tmp_path


def _json(capsys: Printed, *arguments: str, status: int = 0) -> dict[str, object]:
    assert main(["policy", *arguments, "--json"]) == status
    return json.loads(capsys.readouterr().out)


def _values(answer: dict[str, object], group: int = 0) -> dict[str, tuple[object, str]]:
    groups = answer["sources"]
    assert isinstance(groups, list)
    return {row["key"]: (row["value"], row["origin"]) for row in groups[group]["values"]}


# -- list and show --


@pytest.mark.usefixtures("folder")
def test_all_policies_are_listed(capsys: Printed) -> None:
    """One line each, with the limits that matter most and the files that make it."""
    status = main(["policy", "list"])

    lines = capsys.readouterr().out.splitlines()
    assert status == 0
    assert lines[0].split()[:2] == ["policy", "connections"]
    assert len(lines) == 1 + len(shipped_names())
    google = next(line for line in lines if line.startswith("google "))
    assert google.split()[1:5] == ["5", "50", "7/s", "required"]
    assert google.endswith("policies/google.toml")
    assert any(line.startswith("default ") and "everything else" in line for line in lines)


@pytest.mark.usefixtures("folder")
def test_the_list_may_be_json(capsys: Printed) -> None:
    """An object a policy."""
    assert main(["policy", "list", "--json"]) == 0

    rows = json.loads(capsys.readouterr().out)
    assert {row["name"]: row["rate"] for row in rows}["google"] == "7/s"
    assert {row["name"]: row["mx"] for row in rows}["yahoo"] == ["*.yahoodns.net"]


def test_without_a_configuration_the_shipped_policies_are_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Printed
) -> None:
    """And it is said that they are."""
    monkeypatch.chdir(tmp_path)

    status = main(["policy", "list"])

    printed = capsys.readouterr()
    assert status == 0
    assert "google" in printed.out
    assert printed.err == "no mta.toml here: the shipped policies\n"


@pytest.mark.usefixtures("folder")
def test_a_policy_is_shown_with_the_origin_of_every_value(capsys: Printed) -> None:
    """The admin's file, the shipped one, default's, or built in."""
    answer = _json(capsys, "show", "google")

    values = answer["values"]
    assert isinstance(values, list)
    shown = {row["key"]: (row["value"], row["origin"].split("/main/")[-1]) for row in values}
    assert shown["limits.rate"] == ("7/s", "policies/google.toml:2")
    assert shown["limits.connections"][0] == 5
    assert shown["limits.connection_rate"][0] == "100/min"
    assert shown["limits.connection_rate"][1].endswith("default.toml:10")
    assert shown["owners"] == (1, "built in")
    assert shown["retry.jitter"][0] == "20%"
    assert shown["retry.schedule"][0] == ["5m", "15m", "30m", "1h", "2h", "4h"]
    assert shown["match.domains"][0] == ["gmail.com", "googlemail.com"]


@pytest.mark.usefixtures("folder")
def test_a_policy_is_shown_as_a_table(capsys: Printed) -> None:
    """With what nobody limits as such, and a word about other sources."""
    status = main(["policy", "show", "google"])

    out = capsys.readouterr().out
    assert status == 0
    assert out.startswith("google: Google\n\nkey ")
    recipients = next(line for line in out.splitlines() if line.startswith("limits.recipients_per_connection"))
    assert recipients.split()[1:3] == ["no", "limit"]
    assert out.endswith("other values for sources new-*: see --source NAME\n")


@pytest.mark.usefixtures("folder")
def test_a_policy_is_shown_as_it_holds_for_a_source(capsys: Printed) -> None:
    """What `[sources."..."]` says, with its line."""
    answer = _json(capsys, "show", "google", "--source", "new-1")

    values = answer["values"]
    assert isinstance(values, list)
    assert [(row["value"], row["origin"]) for row in values if row["key"] == "limits.rate"] == [
        ("1/s", "policies/google.toml:4")
    ]


@pytest.mark.usefixtures("folder")
def test_an_unknown_policy_is_told(capsys: Printed) -> None:
    """With the nearest name; exit status 1."""
    status = main(["policy", "show", "gogle"])

    assert status == 1
    assert capsys.readouterr().err == "there is no policy gogle; did you mean google?\n"


# -- explain --


@pytest.mark.usefixtures("folder")
def test_a_policy_that_names_the_domain_is_explained(capsys: Printed) -> None:
    """With the line that names it, the site, and the limits for each kind of source."""
    answer = _json(capsys, "explain", "someone@GMail.com")

    assert (answer["domain"], answer["policy"]) == ("gmail.com", "google")
    assert str(answer["why"]).endswith(f"google.toml:{MATCH_LINE} names the domain, which wins over its MX")
    assert answer["mx"] == [[10, "gmail-smtp-in.l.google.com"], [20, "alt1.gmail-smtp-in.l.google.com"]]
    assert answer["site"] == "(|alt1.)gmail-smtp-in.l.google.com"
    groups = answer["sources"]
    assert isinstance(groups, list)
    assert [group["sources"] for group in groups] == [["out-1"], ["new-1"]]
    assert _values(answer, 0)["limits.rate"] == ("7/s", "policies/google.toml:2")
    assert _values(answer, 1)["limits.rate"] == ("1/s", "policies/google.toml:4")


@pytest.mark.usefixtures("folder")
def test_a_policy_that_matches_all_mx_is_explained(capsys: Printed, resolver: FakeResolver) -> None:
    """With the line of its patterns; the resolver is closed behind it."""
    answer = _json(capsys, "explain", "workspace.example")

    assert answer["policy"] == "google"
    assert str(answer["why"]).endswith(f"google.toml:{MATCH_LINE} matches every MX host of the domain")
    assert resolver.is_closed


@pytest.mark.usefixtures("folder")
def test_a_domain_without_a_policy_gets_default(capsys: Printed) -> None:
    """Also where only some of its MX hosts are a provider's."""
    answer = _json(capsys, "explain", "x@mixed.example")

    assert answer["policy"] == "default"
    assert answer["why"] == "no policy matches the domain or all of its MX hosts"


@pytest.mark.usefixtures("folder")
def test_a_domain_that_does_not_exist_is_told(capsys: Printed) -> None:
    """There is no policy to name: exit status 1."""
    answer = _json(capsys, "explain", "x@none.example", status=1)

    assert answer["policy"] is None
    assert answer["trouble"] == "550 5.1.2 domain none.example does not exist"
    assert answer["why"] == "no policy names the domain, and there are no MX hosts to match"


@pytest.mark.usefixtures("folder")
def test_a_route_comes_before_any_mx(capsys: Printed) -> None:
    """Nobody is asked for MX; the route's own policy holds, or that of the domain."""
    named = _json(capsys, "explain", "x@partner.example")
    unnamed = _json(capsys, "explain", "x@a.corp.example")

    assert (named["policy"], named["route"]) == ("yahoo", ["10.0.0.6:2525"])
    assert named["why"] == "[[route]] at mta.toml:18 comes before any MX; its policy is named at mta.toml:20"
    assert (unnamed["policy"], unnamed["route"]) == ("default", ["10.0.0.5:25"])
    assert str(unnamed["why"]).endswith("it names no policy, and none names the domain")
    assert "mx" not in named


@pytest.mark.usefixtures("folder")
def test_the_tenants_pool_decides_the_sources(capsys: Printed) -> None:
    """And a source may be asked for by name."""
    tenant = _json(capsys, "explain", "x@gmail.com", "--tenant", "shop", "--campaign", "spring")
    source = _json(capsys, "explain", "x@gmail.com", "--source", "out-1")

    for answer, names in ((tenant, ["new-1"]), (source, ["out-1"])):
        groups = answer["sources"]
        assert isinstance(groups, list)
        assert [group["sources"] for group in groups] == [names]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["x@gmail.com", "--source", "out1"], "there is no source out1; did you mean out-1?"),
        (["x@gmail.com", "--tenant", "shp"], "there is no tenant shp; did you mean shop?"),
        (["x@not a domain"], "x@not a domain has no domain that mail could go to"),
        (["x@"], "x@ has no domain that mail could go to"),
        ([""], "an empty address has no domain that mail could go to"),
    ],
)
@pytest.mark.usefixtures("folder")
def test_what_nobody_knows_cannot_be_explained(capsys: Printed, arguments: list[str], message: str) -> None:
    """Exit status 1, and a word why."""
    status = main(["policy", "explain", *arguments])

    assert status == 1
    assert capsys.readouterr().err.strip() == message


@pytest.mark.usefixtures("folder")
def test_the_explanation_is_a_table_to_read(capsys: Printed) -> None:
    """First who and why, then the limits with their lines."""
    status = main(["policy", "explain", "x@gmail.com", "--source", "out-1"])

    lines = capsys.readouterr().out.splitlines()
    assert status == 0
    assert lines[0].split() == ["address", "x@gmail.com"]
    assert "mx       10 gmail-smtp-in.l.google.com, 20 alt1.gmail-smtp-in.l.google.com" in lines
    assert "for source out-1" in lines
    rate = next(line for line in lines if line.startswith("limits.rate"))
    assert rate.split() == ["limits.rate", "7/s", "policies/google.toml:2"]


def test_a_wrong_configuration_is_told_and_not_used(folder: Path, capsys: Printed) -> None:
    """Every problem on standard error; exit status 1."""
    (folder / "mta.toml").write_text("workes = 1\n")

    status = main(["policy", "explain", "x@gmail.com"])

    printed = capsys.readouterr()
    assert status == 1
    assert printed.out == ""
    assert "mta.toml:1: unknown key workes; did you mean workers?" in printed.err


def test_the_resolver_is_the_configured_one(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: Printed) -> None:
    """Nameservers and prohibited networks as the workers have them."""
    made: list[dict[str, object]] = []

    class Recorder(FakeResolver):
        def __init__(self, **settings: object) -> None:
            super().__init__()
            made.append(settings)

    monkeypatch.undo()
    monkeypatch.chdir(folder)
    monkeypatch.setattr(policy_explain, "Resolver", Recorder)
    with (folder / "mta.toml").open("a") as stream:
        stream.write('[dns]\nnameservers = ["127.0.0.1:5353"]\n[delivery]\nprohibited_networks = ["10.0.0.0/8"]\n')

    status = main(["policy", "explain", "x@gmail.com"])

    assert status == 0
    assert "google" in capsys.readouterr().out
    assert [(one["nameservers"], one["prohibited"]) for one in made] == [(["127.0.0.1:5353"], ("10.0.0.0/8",))]


# -- rules and tenants --


@pytest.fixture
def rules(folder: Path) -> Path:
    shop = folder / "policies" / "tenants" / "shop"
    shop.mkdir(parents=True)
    (folder / "policies" / "google.toml").write_text(
        '[[rule]]\nname = "own"\nwhen = { code = "421", text = "rate" }\ntrigger = { count = 2, in = "1h" }\n'
        'then = [{ action = "slow", rate = "1/min", for = "30m", scope = "source" }]\n'
    )
    (shop / "google.toml").write_text(
        '[limits]\nrate = "3/s"\n[retry]\nexpire = "2h"\n[[rule]]\nname = "shops"\nthen = [{ action = "bounce" }]\n'
    )
    return folder


@pytest.mark.usefixtures("rules")
def test_rules_are_shown_in_the_order_in_which_they_are_tried(capsys: Printed) -> None:
    """What they are about, what they do, and their lines; the admin's first, default's last."""
    shown = _json(capsys, "show", "google")["rules"]

    assert isinstance(shown, list)
    assert shown[0] == {
        "name": "own",
        "about": "421, /rate/",
        "does": ["slow source: 1/min, for 30m (after 2 in 1h)"],
        "origin": "policies/google.toml:1",
    }
    assert [row["origin"].partition(":")[0].rpartition("/")[2] for row in shown[1:]] == sorted(
        (row["origin"].partition(":")[0].rpartition("/")[2] for row in shown[1:]), reverse=True
    )


@pytest.mark.usefixtures("rules")
def test_a_tenants_values_and_rules_are_shown_for_it(capsys: Printed) -> None:
    """Its limits beside the others, its retry times instead of them, its rules before them."""
    shown = _json(capsys, "explain", "someone@gmail.com", "--tenant", "shop")

    rows = {row["key"]: row for row in shown["sources"][0]["values"]}  # type: ignore[index]
    assert rows["tenant shop: limits.rate"]["value"] == "3/s"
    assert rows["tenant shop: limits.rate"]["origin"] == "policies/tenants/shop/google.toml:2"
    assert rows["limits.rate"]["value"] == "20/s"
    assert rows["retry.expire"]["value"] == "2h"
    assert [row["name"] for row in shown["rules"]][:2] == ["shops", "own"]  # type: ignore[index]


@pytest.mark.usefixtures("rules")
def test_the_table_has_rules_and_names_who_has_other_values(capsys: Printed) -> None:
    """For people."""
    assert main(["policy", "show", "google"]) == 0

    out = capsys.readouterr().out
    assert "\nrules, in the order in which they are tried\nrule " in out
    assert out.endswith("other values for tenants shop: see --tenant NAME\n")

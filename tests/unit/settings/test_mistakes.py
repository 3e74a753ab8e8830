"""mta.toml: everything that can be wrong with it, and what is warned of."""

from pathlib import Path

import pytest

from mta import config
from mta.config import Config, ConfigError
from mta.testing.config_files import Load, Problems, private_key
from mta_policies.units import Rate

ROOT = Path(__file__).parents[3]


def _warnings(loaded: Config) -> list[tuple[int, str]]:
    return [(warning.line, warning.message) for warning in loaded.warnings]


# -- what is wrong by itself --


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("workes = 2", "1: unknown key workes; did you mean workers?"),
        ("[queue]\ndirectry = 'q'", "2: unknown key directry; did you mean directory?"),
        ("[log]\nrotate = { sise = '1GB' }", "2: unknown key sise; did you mean size?"),
        ("[[listner]]", "1: unknown key listner; did you mean listener?"),
        ("workers = -1", "1: workers: expected at least 0, got -1"),
        ("[queue]\nmessage_size_max = 50", '2: message_size_max: expected a size such as "50MB", got 50'),
        ("[queue]\nmessage_size_max = '50 megs'", '2: message_size_max: not a size: "50 megs"'),
        ("[queue]\nmessage_size_max = '0MB'", "2: message_size_max: nothing would fit"),
        ("[queue]\ndurability = 'async'", '2: durability: expected "fsync" or "os", got "async"'),
        ("[delivery]\nidle_timeout = 60", '2: idle_timeout: expected a duration such as "5m", got 60'),
        ("[delivery]\nport = 0", "2: port: expected at least 1, got 0"),
        ("[delivery]\nprohibited_networks = ['10.0.0.1/8']", '2: prohibited_networks: "10.0.0.1/8" has bits behind'),
        ("[delivery]\nprohibited_networks = ['ten']", '2: prohibited_networks: not a network: "ten"'),
        ("[[listener]]\naddress = 'localhost:25'", '2: address: not an IP address: "localhost"'),
        ("[[listener]]\naddress = '127.0.0.1'", "2: address: the port is missing"),
        ("[[listener]]\naddress = '127.0.0.1:99999'", '2: address: not a port: "99999"'),
        ("[[listener]]\naddress = '::1:25'", "2: address: an IPv6 address goes in brackets"),
        ("[[listener]]\naddress = '[::1'", '2: address: not an address: "[::1"'),
        ("[[listener]]\ntrusted = '127.0.0.1'", "2: trusted: expected a list"),
        ("[dns]\nnameservers = ['ns.example']", '2: nameservers: not an IP address: "ns.example"'),
        ("hostname = 'not a name'", '1: hostname: not a host name: "not a name"'),
        ("[[source]]\nname = 'a'\nipv4 = '::1'", '3: ipv4: not an address: "::1"'),
        ("[[source]]\nname = 'a b'", '2: name: not a name: "a b"'),
        ("[[source]]\nipv4 = '192.0.2.1'", "1: name is missing"),
        ("[[tenant]]\nname = 't'\nsenders = ['shop.example']", '3: senders: not a sender: "shop.example"'),
        ("[[tenant]]\nname = 't'\nsenders = ['a*@shop.example']", '3: senders: not a sender: "a*@shop.example"'),
        ("[[route]]\ndomains = ['a b']\nhosts = ['h:25']", '2: domains: not a domain: "a b"'),
        ("[[route]]\ndomains = ['*']\nhosts = ['h:0']", "3: hosts: port 0 cannot be connected to"),
        ("[[route]]\ndomains = ['*']\nhosts = ['a b']", '3: hosts: not a host: "a b"'),
        ("[[route]]\ndomains = []\nhosts = ['h']", "2: route without domains"),
        ("[[route]]\ndomains = ['*']", "1: hosts is missing"),
        ("[log]\nevents = ''", '2: events: expected a path, or "-" for standard output'),
        ("[queue]\ndirectory = ''", '2: directory: expected a path, got ""'),
        ("[admin]\naddress = 8025", '2: address: expected an address such as "127.0.0.1:8025"'),
        ("listener = []", "1: listener: without a door no mail can come in"),
        ("queue = 5", "1: queue: expected a table, got 5"),
        ("workers = 1\nworkers = 2", "2: not TOML: Cannot overwrite a value"),
        ("[queue\n", "1: not TOML: Expected ']'"),
    ],
)
def test_a_bad_value_is_told_with_its_line(problems: Problems, text: str, problem: str) -> None:
    """What is wrong, where, and what would have been right."""
    found = problems(text)

    assert len(found) == 1
    assert found[0].startswith(f"mta.toml:{problem}")


def test_a_configuration_that_is_not_there_is_a_problem(tmp_path: Path) -> None:
    """Not a traceback."""
    with pytest.raises(ConfigError) as raised:
        config.load(tmp_path / "none.toml")

    assert [problem.message for problem in raised.value.problems] == ["cannot be read: No such file or directory"]


def test_a_file_that_is_not_text_is_a_problem(tmp_path: Path) -> None:
    """Told with the line of the first odd byte."""
    (tmp_path / "mta.toml").write_bytes(b"workers = 1\n# caf\xe9\n")

    with pytest.raises(ConfigError) as raised:
        config.load(tmp_path / "mta.toml")

    assert [(problem.line, problem.message) for problem in raised.value.problems] == [(2, "not UTF-8 text")]


# -- what only shows together --


@pytest.mark.parametrize(
    ("first", "second", "clash"),
    [
        ("127.0.0.1:25", "127.0.0.1:25", True),
        ("0.0.0.0:25", "127.0.0.1:25", True),
        ("127.0.0.1:25", "0.0.0.0:25", True),
        ("[::]:25", "[::1]:25", True),
        ("127.0.0.1:25", "127.0.0.2:25", False),
        ("127.0.0.1:25", "127.0.0.1:26", False),
        ("0.0.0.0:25", "[::]:25", False),
        ("127.0.0.1:0", "127.0.0.1:0", False),
    ],
)
def test_two_listeners_on_one_port(load: Load, problems: Problems, first: str, second: str, clash: bool) -> None:
    """Also where one of them takes every address; port 0 is another one each time."""
    text = f'[[listener]]\naddress = "{first}"\n[[listener]]\naddress = "{second}"\n'

    if clash:
        found = problems(text)
        assert len(found) == 1
        assert found[0].startswith(f"mta.toml:4: address {second} is taken by the listener at ")
    else:
        assert len(load(text).listeners) == 2


@pytest.mark.parametrize("tls", ["starttls", "implicit"])
def test_a_listener_with_tls_is_refused_rather_than_served_in_clear(problems: Problems, tls: str) -> None:
    """Nobody shall believe that there is TLS when there is not."""
    found = problems(f'[[listener]]\ntls = "{tls}"\ncertificate = "c"\nkey = "c"\n', c="pem")

    assert len(found) == 1
    assert found[0].startswith(f'mta.toml:2: tls = "{tls}" has no effect yet, and without it')


def test_a_listener_with_tls_needs_certificate_and_key(problems: Problems) -> None:
    """Both are told, and a file that is not there too."""
    found = problems('[[listener]]\ntls = "starttls"\ncertificate = "none.pem"\n')

    assert 'mta.toml:2: tls = "starttls" needs key = "..."' in found
    assert [one for one in found if one.startswith("mta.toml:3: certificate: there is no file ")]


def test_a_listener_that_requires_auth_is_refused(problems: Problems) -> None:
    """It would take mail from whoever is trusted, unasked."""
    assert problems('[[listener]]\nauth = "required"\n')[0].startswith(
        'mta.toml:2: auth = "required" has no effect yet'
    )


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("[[pool]]\nname = 'p'\nsources = {}", "3: pool p names no source"),
        ("[[pool]]\nname = 'p'\nsources = { out = 1 }", "3: there is no source out; there is none"),
        (
            "[[source]]\nname = 'out-1'\n[[pool]]\nname = 'p'\nsources = { out1 = 1 }",
            "5: there is no source out1; did you mean out-1?",
        ),
        ("[[source]]\nname = 's'\n[[pool]]\nname = 'p'\nsources = { s = 0 }", "5: pool p has no source with a weight"),
        ("[[source]]\nname = 's'\n[[source]]\nname = 's'", "4: source s is already given at "),
        ("[[tenant]]\nname = 't'\n[[tenant]]\nname = 't'", "4: tenant t is already given at "),
        ("[[tenant]]\nname = 't'\npool = 'fast'", "3: there is no pool fast; known: default"),
        (
            "[[tenant]]\nname = 'a'\nsenders = ['*@x.example']\n[[tenant]]\nname = 'b'\nsenders = ['*@X.example']",
            "6: sender *@x.example is already given at ",
        ),
        ("[[listener]]\ntenant = 'shp'\n[[tenant]]\nname = 'shop'", "2: there is no tenant shp; did you mean shop?"),
        (
            "[[route]]\ndomains = ['*']\nhosts = ['h']\npolicy = 'gogle'",
            "4: there is no policy gogle; did you mean",
        ),
        ("[policies]\ndisabled = ['gogle']", "2: there is no shipped policy gogle; did you mean google?"),
        ("[policies]\ndisabled = ['default']", "2: default is under all policies and cannot be disabled"),
        ("[policies]\ndirectory = 'nowhere'", "2: directory: there is no folder "),
        ("[signing]\ndirectory = 'nowhere'", "2: directory: there is no folder "),
        ("[queue]\ndirectory = 'mta.toml'", "2: directory: "),
        ("[[dkim]]\ndomain = 'x.example'\nselector = 's'\nkey = 'none.pem'", "4: key: there is no file "),
        ("[[listener]]\ncertificate = 'none.pem'", "2: certificate: there is no file "),
        ("[[limit]]\nname = 'x'\nrate = '1/s'", "1: per is missing"),
        ("[[limit]]\nper = 'tennant'\nrate = '1/s'", '2: per: expected "campaign" or "sender-domain" or "source" or'),
        ("[[limit]]\nper = 'tenant'\nrate = '1 a second'", '3: rate: not a rate: "1 a second"'),
        ("[[limit]]\nper = 'tenant'", "1: limit: without rate, quota and window nothing is limited"),
        ("[[limit]]\nper = 'tenant'\nname = ''\nrate = '1/s'", "3: name: expected a name"),
        ("[[limit]]\nper = 'tenant'\nquota = { count = 1, zone = 'Tokyo' }", '3: quota: there is no time zone "Tokyo"'),
        ("[[limit]]\nper = 'tenant'\nwindow = '08:00-22:00 Mars'", '3: window: there is no time zone "Mars"'),
        (
            "[[limit]]\nper = 'tenant'\nrate = '1/s'\n[[limit]]\nper = 'tenant'\nrate = '2/s'",
            "4: a limit per tenant named * is already given at ",
        ),
        (
            "[[source]]\nname = 'out-1'\n[[limit]]\nper = 'source'\nname = 'out1'\nrate = '1/s'",
            "5: there is no source out1; did you mean out-1?",
        ),
        ("[[warmup]]\nsource = 'system'", "1: plan is missing"),
        ("[[warmup]]\nsource = 'system'\nplan = []", "3: plan: a plan of no day"),
        ("[[warmup]]\nsource = 'system'\nplan = [0]", "3: plan: expected at least 1, got 0"),
        ("[[warmup]]\nsource = 'out'\nplan = [1]", "2: there is no source out; known: system"),
        ("[[warmup]]\nsource = 'system'\nplan = [1]\nstart = '1.12.2026'", '4: start: not a date: "1.12.2026"; write'),
        ("[[warmup]]\nsource = 'system'\nplan = [1]\nzone = 'Mars'", '4: zone: there is no time zone "Mars"'),
        (
            "[[warmup]]\nsource = 'system'\nplan = [1]\noverflow_pool = 'warm'",
            "4: there is no pool warm; known: default",
        ),
        (
            "[[warmup]]\nsource = 'system'\nplan = [1]\nproviders = { gogle = [1] }",
            "4: there is no policy gogle; did you mean google?",
        ),
        (
            "[[warmup]]\nsource = 'system'\nplan = [1]\n[[warmup]]\nsource = 'system'\nplan = [1]",
            "5: warmup system is already given at ",
        ),
        ("[admin]\naddress = '0.0.0.0:8025'", "2: address: 0.0.0.0:8025 can be reached from elsewhere, so token"),
        ("[admin]\naddress = '[::]:8025'", "2: address: [::]:8025 can be reached from elsewhere, so token"),
    ],
)
def test_what_only_shows_together_is_told(problems: Problems, text: str, problem: str) -> None:
    """Names that nobody defines, names defined twice, files that are not there."""
    found = problems(text)

    assert len(found) == 1
    assert found[0].startswith(f"mta.toml:{problem}")


@pytest.mark.parametrize(
    "admin",
    ['address = "0.0.0.0:8025"\ntoken = "secret"', 'address = "[::1]:8025"', 'address = "unix:admin.sock"'],
)
def test_an_admin_address_that_nobody_else_reaches_needs_no_token(load: Load, admin: str) -> None:
    """Loopback, a Unix socket, and everything else with a token."""
    config = load(f"[admin]\n{admin}\n")

    assert config.admin.address


def test_all_problems_of_configuration_and_policies_come_at_once(problems: Problems) -> None:
    """In the order of files and lines; one mistake is told once."""
    text = (
        "workes = 1\n[[source]]\nname = 's'\nipv4 = 'x'\n[[pool]]\nname = 'p'\nsources = { s = 1, t = 1 }\n"
        "[[listener]]\naddress = 'bad'\n[[listener]]\naddress = 'bad'\n[policies]\ndirectory = 'own'\n"
    )

    found = problems(text, own__google_toml="[limits]\nrate = 5\n")

    assert [one.split(":")[0].split("/")[-1] + ":" + one.split(":")[1] for one in found] == [
        "mta.toml:1", "mta.toml:4", "mta.toml:7", "mta.toml:9", "mta.toml:11", "google.toml:2",
    ]  # fmt: skip


def test_a_mistake_in_a_table_does_not_hide_its_name(problems: Problems) -> None:
    """A pool that names a source with a bad address is not wrong."""
    found = problems("[[source]]\nname = 's'\nipv4 = 'x'\n[[pool]]\nname = 'p'\nsources = { s = 1 }\n")

    assert len(found) == 1


# -- policies --


def test_ones_own_policies_lie_over_the_shipped_ones(load: Load) -> None:
    """From the folder that the configuration names, relative to it."""
    loaded = load("", policies__google_toml='[limits]\nrate = "1/s"\n')

    google = loaded.policy_set.policies["google"]
    assert google.limits.rate == (Rate(1, 1),)
    assert google.limits.messages_per_connection == 50
    assert loaded.policy_set.origin("google", ("limits", "rate")).endswith("policies/google.toml:2")


def test_the_default_folder_need_not_be_there(load: Load) -> None:
    """Also where it is written out, as in the rendered file."""
    assert load('[policies]\ndirectory = "policies"\n').policy_set.policies["google"].limits.connections == 5


# -- warnings --


@pytest.mark.parametrize(
    ("text", "line", "part"),
    [
        ("[signing]\nunsigned = 'refuse'", 2, "all mail is refused"),
        ("[[route]]\ndomains = ['*']\nhosts = ['h']\n[[route]]\ndomains = ['x']\nhosts = ['h']", 4, "never used"),
        ("[[limit]]\nper = 'tenant'\nname = 'shop'\nrate = '1/s'", 3, "there is no tenant shop"),
        ("[[warmup]]\nsource = 'system'\nplan = [2, 1]", 3, "a later day allows less"),
    ],
)
def test_what_is_hardly_meant_is_warned_of(load: Load, text: str, line: int, part: str) -> None:
    """It is no mistake, but the admin is told at its line."""
    found = _warnings(load(text))

    assert [found_line for found_line, _ in found] == [line]
    assert part in found[0][1]


def test_a_key_file_without_a_key_is_refused(problems: Problems) -> None:
    """The admin hears of it when the configuration is checked, not when the first message is to be signed."""
    found = problems('[[dkim]]\ndomain = "x.example"\nselector = "s"\nkey = "k.pem"\n', **{"k.pem": "key"})

    assert len(found) == 1
    assert found[0].startswith("mta.toml:4: key: ")
    assert "k.pem" in found[0]


def test_a_selector_is_given_once(problems: Problems) -> None:
    """Two keys under one name in the DNS cannot both be right."""
    one = '[[dkim]]\ndomain = "x.example"\nselector = "s"\nkey = "k.pem"\n'

    found = problems(one + one, **{"k.pem": private_key()})

    assert found == ["mta.toml:7: dkim s._domainkey.x.example is already given at mta.toml:3"]


def test_a_key_that_everybody_can_read_is_warned_of(load: Load, tmp_path: Path) -> None:
    """It signs all the same, and the admin is told at its line."""
    text = '[[dkim]]\ndomain = "x.example"\nselector = "s"\nkey = "k.pem"\n'
    (tmp_path / "k.pem").write_text(private_key())
    (tmp_path / "k.pem").chmod(0o604)

    (warning,) = _warnings(load(text))

    assert warning == (4, f"key: everybody on this machine can read {tmp_path / 'k.pem'}: chmod 600")


def test_warnings_of_policies_are_among_them(load: Load) -> None:
    """With the policy's file and line."""
    loaded = load("", policies__other_toml='match = { mx = ["*.google.com"] }\n')

    assert [Path(warning.file).name for warning in loaded.warnings] == ["other.toml"]


def test_values_for_a_tenant_that_nobody_has(load: Load) -> None:
    """Told, because a name that is written wrongly would hold for nobody."""
    limits = "[limits]\nconnections = 1\n"
    loaded = load(
        "[[tenant]]\nname = 'shop'\n",
        policies__tenants__shop__google_toml=limits,
        policies__tenants__shpo__google_toml=limits,
    )

    told = [warning for warning in loaded.warnings if "there is no tenant" in warning.message]
    assert [Path(warning.file).name for warning in told] == ["shpo"]


@pytest.mark.parametrize(
    ("name", "text", "config", "told"),
    [
        ("gogle", "[limits]\nconnections = 1\n", "", "policy gogle is for nobody: it has no match"),
        ("google", "[limits]\nconnections = 1\n", "", ""),
        ("mine", 'match = { domains = ["x.example"] }\n', "", ""),
        ("mine", "[limits]\nconnections = 1\n", "[[route]]\ndomains = ['x']\nhosts = ['h']\npolicy = 'mine'\n", ""),
        ("default", "[limits]\nconnections = 1\n", "", ""),
    ],
)
def test_a_policy_that_is_for_nobody(load: Load, name: str, text: str, config: str, told: str) -> None:
    """Told with the nearest shipped name: who meant to change that one would wait for an effect for ever."""
    warnings = load(config, **{f"policies__{name}_toml": text}).warnings

    said = [f"{told}, and no route names it; did you mean google?"] if told else []
    assert [warning.message for warning in warnings] == said


def test_a_value_knows_where_it_was_written(load: Load) -> None:
    """For whoever asks why."""
    loaded = load("[queue]\n\nrecipients_max = 7\n")

    assert loaded.origin("queue", "recipients_max").endswith("mta.toml:3")
    assert loaded.origin("queue", "durability") == "built in"

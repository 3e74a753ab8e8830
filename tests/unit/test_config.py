"""mta.toml: its defaults, its text, what it includes, and everything that can be wrong with it."""

import os
import re
from collections.abc import Callable
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest
from msgspec import inspect

from mta import config
from mta.config import Config, ConfigError
from mta.config.forms import Endpoint
from mta.config.settings import Settings
from mta_policies.reader import keys_of
from mta_policies.units import Rate

ROOT = Path(__file__).parents[2]

Load = Callable[..., Config]
Problems = Callable[..., list[str]]


@pytest.fixture
def load(tmp_path: Path) -> Load:
    def write_and_load(text: str, **files: str) -> Config:
        (tmp_path / "mta.toml").write_text(text)
        for name, content in files.items():
            path = tmp_path / name.replace("__", "/").replace("_toml", ".toml")
            path.parent.mkdir(exist_ok=True)
            path.write_text(content)
        return config.load(tmp_path / "mta.toml")

    return write_and_load


@pytest.fixture
def problems(tmp_path: Path, load: Load) -> Problems:
    def write_and_fail(text: str, **files: str) -> list[str]:
        with pytest.raises(ConfigError) as raised:
            load(text, **files)
        return [str(problem).replace(f"{tmp_path}/", "") for problem in raised.value.problems]

    return write_and_fail


def _warnings(loaded: Config) -> list[tuple[int, str]]:
    return [(warning.line, warning.message) for warning in loaded.warnings]


# -- defaults --


def test_an_empty_file_starts_a_server_for_loopback(load: Load, tmp_path: Path) -> None:
    """It listens on 127.0.0.1:2525 and relays for this machine only."""
    loaded = load("")

    assert [str(listener.address) for listener in loaded.listeners] == ["127.0.0.1:2525"]
    assert loaded.listeners[0].trusted == ("127.0.0.0/8", "::1/128")
    assert (loaded.listeners[0].tls, loaded.listeners[0].auth, loaded.listeners[0].addresses) == (
        "none", "optional", "strict",
    )  # fmt: skip
    assert loaded.queue.directory == tmp_path / "var/queue"
    assert loaded.queue.durability == "fsync"
    assert loaded.queue.message_size_max_bytes == 50_000_000
    assert loaded.queue.recipients_max == 1000
    assert loaded.queue.disk_free_min_bytes == 500_000_000
    assert loaded.queue.memory_max_bytes == 256_000_000
    assert (loaded.delivery.port, loaded.delivery.idle_timeout_s) == (25, 60.0)
    assert loaded.log.events == str(tmp_path / "var/log/events.jsonl")
    assert (loaded.log.rotate.size_bytes, loaded.log.rotate.keep, loaded.log.rotate.compress) == (10**9, 10, True)
    assert loaded.admin.address == "127.0.0.1:8025"
    assert loaded.warnings == ()


def test_what_depends_on_the_machine_is_filled_in(load: Load) -> None:
    """There is a name, a worker, a source and a pool, so that nobody below has to ask."""
    loaded = load("")

    assert loaded.hostname
    assert loaded.worker_count == len(os.sched_getaffinity(0))
    assert [(source.name, source.ehlo) for source in loaded.sources] == [("system", loaded.hostname)]
    assert [(pool.name, pool.sources) for pool in loaded.pools] == [("default", {"system": 1})]
    assert "google" in loaded.policy_set.policies


def test_the_default_pool_has_all_sources(load: Load) -> None:
    """Unless a pool of that name says otherwise; the EHLO name is the hostname where none is given."""
    text = 'hostname = "Mail.Example.com."\n[[source]]\nname = "a"\nehlo = "a.example.com"\n[[source]]\nname = "b"\n'

    loaded = load(text)

    assert [source.ehlo for source in loaded.sources] == ["a.example.com", "mail.example.com"]
    assert [(pool.name, pool.sources) for pool in loaded.pools] == [("default", {"a": 1, "b": 1})]


def test_a_pool_default_of_ones_own_stays(load: Load) -> None:
    """With its weights."""
    loaded = load('[[source]]\nname = "a"\n[[pool]]\nname = "default"\nsources = { a = 3 }\n')

    assert [(pool.name, pool.sources) for pool in loaded.pools] == [("default", {"a": 3})]


def test_workers_may_be_counted_by_hand(load: Load) -> None:
    """Zero is one per CPU core."""
    assert load("workers = 3").worker_count == 3


def test_a_route_without_a_port_takes_that_of_delivery(load: Load) -> None:
    """And one with a port keeps it."""
    loaded = load(
        "[delivery]\nport = 2526\n"
        '[[route]]\ndomains = ["*"]\nhosts = ["10.0.0.5", "[2001:db8::5]:24", "Smart.example"]\n'
    )

    assert loaded.routes[0].hosts == (
        Endpoint("10.0.0.5", 2526), Endpoint("2001:db8::5", 24), Endpoint("smart.example", 2526),
    )  # fmt: skip


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "10.1.2.3",
        "172.31.0.1",
        "192.168.1.1",
        "169.254.169.254",
        "100.64.0.1",
        "0.0.0.0",
        "224.0.0.1",
        "255.255.255.255",
        "192.0.2.1",
        "198.18.0.1",
        "::1",
        "::",
        "fe80::1",
        "fc00::1",
        "ff02::1",
        "2001:db8::1",
    ],
)
def test_special_addresses_are_prohibited_by_default(load: Load, address: str) -> None:
    """An MX that points to the machine itself, its neighbours or nowhere is refused."""
    networks = map(ip_network, load("").delivery.prohibited_networks)

    assert any(ip_address(address) in network for network in networks)


def test_every_key_of_the_contract_is_known(load: Load) -> None:
    """All at once, with values other than the defaults."""
    loaded = load(
        """
        hostname = "mail.example.com"
        [[listener]]
        address = "[::1]:587"
        trusted = ["192.0.2.0/24", "::1"]
        addresses = "japan"
        tenant = "shop"
        long_lines = "pass"
        hide_client = true
        auth = "none"
        [queue]
        directory = "/tmp/q"
        durability = "os"
        message_size_max = "1MiB"
        [dns]
        nameservers = ["127.0.0.1:5353", "192.0.2.53"]
        [[route]]
        domains = ["*.corp.example", "example.net"]
        hosts = ["10.0.0.5:25"]
        policy = "default"
        [[source]]
        name = "out-1"
        ipv4 = "192.0.2.10"
        ipv6 = "2001:DB8::10"
        [[pool]]
        name = "main"
        sources = { out-1 = 3 }
        [[tenant]]
        name = "shop"
        senders = ["*@shop.example", "News@Shop.example"]
        pool = "main"
        [policies]
        disabled = ["yahoo"]
        [log]
        events = "-"
        rotate = { size = "1MB", keep = 0, compress = false }
        """
    )

    assert loaded.warnings == ()
    assert loaded.listeners[0].address == Endpoint("::1", 587)
    assert loaded.listeners[0].trusted == ("192.0.2.0/24", "::1/128")
    assert loaded.listeners[0].hide_client
    assert loaded.queue.directory == Path("/tmp/q")
    assert loaded.queue.message_size_max_bytes == 1_048_576
    assert [str(server) for server in loaded.dns.nameservers] == ["127.0.0.1:5353", "192.0.2.53:53"]
    assert loaded.sources[0].ipv6 == "2001:db8::10"
    assert loaded.tenants[0].senders == ("*@shop.example", "News@shop.example")
    assert "yahoo" not in loaded.policy_set.policies
    assert loaded.log.events == "-"
    assert not loaded.log.rotate.compress


# -- the rendered file --


def test_the_root_file_is_what_the_structs_say() -> None:
    """Written by `mta.config.render()`: neither can change alone."""
    assert (ROOT / "mta.toml").read_text() == config.render()


def test_the_rendered_file_says_the_defaults(load: Load) -> None:
    """It is right, without a warning, and the same as an empty one."""
    rendered, empty = load(config.render()), load("")

    assert rendered.warnings == ()
    for key in keys_of(Settings):
        assert getattr(rendered, key.field_name) == getattr(empty, key.field_name), key.name


def test_the_examples_in_the_rendered_file_are_right(load: Load, tmp_path: Path) -> None:
    """With all of them in force only what has no effect yet is told."""
    text = re.sub(r"(?m)^#(?=\S)", "", config.render())
    text = text.replace("out-1 = 3, out-2 = 1", "out-1 = 3").replace('directory = ""', f'directory = "{tmp_path}"')

    loaded = load(text, **{"keys__example.com.pem": "key"})

    assert loaded.routes
    assert loaded.tenants
    assert loaded.dkim[0].selector == "s2026"
    assert {message.split(" has no")[0] for _, message in _warnings(loaded)} == {
        "dsn",
        "[[dkim]]",
        "[signing]",
        "[admin]",
    }


def test_every_key_has_a_text() -> None:
    """In the file of the root each key is explained where it stands."""

    def missing(kind: inspect.Type, path: str) -> list[str]:
        if isinstance(kind, inspect.VarTupleType):
            return missing(kind.item_type, path)
        if not isinstance(kind, inspect.StructType):
            return []
        found = [f"{path}{key.name}" for key in keys_of(kind.cls) if not key.description]
        return found + [one for key in keys_of(kind.cls) for one in missing(key.kind, f"{path}{key.name}.")]

    assert missing(inspect.type_info(Settings), "") == []


# -- includes --


def test_included_files_add_up(load: Load) -> None:
    """In the order of their names, tables and lists of tables."""
    loaded = load(
        'workers = 2\ninclude = ["conf/*.toml"]\n',
        conf__b_toml='[[source]]\nname = "b"\n[queue]\nrecipients_max = 7\n',
        conf__a_toml='[[source]]\nname = "a"\n[queue]\ndurability = "os"\n',
    )

    assert [source.name for source in loaded.sources] == ["a", "b"]
    assert (loaded.queue.durability, loaded.queue.recipients_max, loaded.workers) == ("os", 7, 2)


def test_the_folder_conf_d_is_included_by_default(load: Load, tmp_path: Path) -> None:
    """Without a word in mta.toml."""
    (tmp_path / "conf.d").mkdir()
    (tmp_path / "conf.d" / "x.toml").write_text("workers = 5\n")

    assert load("").workers == 5


def test_a_value_given_twice_names_both_places(problems: Problems) -> None:
    """Which of the two would count?"""
    found = problems('include = ["more.toml"]\nworkers = 1\n', more_toml="\nworkers = 2\n")

    assert found == ["more.toml:2: workers is already given at mta.toml:2; a value may be given only once"]


def test_relative_paths_are_relative_to_the_file_that_names_them(load: Load, tmp_path: Path) -> None:
    """Also in an included file."""
    loaded = load('include = ["sub/*.toml"]\n', sub__x_toml='[queue]\ndirectory = "q"\n[log]\nevents = "e.jsonl"\n')

    assert loaded.queue.directory == tmp_path / "sub" / "q"
    assert loaded.log.events == str(tmp_path / "sub" / "e.jsonl")


def test_include_is_for_the_first_file_only(problems: Problems) -> None:
    """Nobody follows a trail of files."""
    found = problems('include = ["x.toml"]\n', x_toml='workers = 1\ninclude = ["y.toml"]\n')

    assert len(found) == 1
    assert found[0].startswith("x.toml:2: include is only for ")


def test_a_file_that_is_named_must_be_there(problems: Problems) -> None:
    """A pattern may find none."""
    assert problems('include = ["none.toml", "none/*.toml"]\n')[0].startswith("mta.toml:1: include: there is no ")


def test_a_file_does_not_include_itself(load: Load) -> None:
    """A pattern may well match it."""
    assert load('include = ["*.toml"]\nworkers = 2\n').workers == 2


def test_mistakes_in_included_files_are_told_there(problems: Problems) -> None:
    """With the file that must be mended, after those of the main file."""
    found = problems('include = ["x.toml"]\nworkers = "two"\n', x_toml="[queue]\ndurabilty = 1\n")

    assert found == [
        'mta.toml:2: workers: expected a whole number, got "two"',
        "x.toml:2: unknown key durabilty; did you mean durability?",
    ]


# -- secrets --


def test_a_secret_may_come_from_the_environment(load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that it is in no file; and it does not show where a configuration is printed."""
    monkeypatch.setenv("MTA_TEST_TOKEN", "tell nobody")

    token = load('[admin]\ntoken = { env = "MTA_TEST_TOKEN" }\n').admin.token

    assert token == "tell nobody"
    assert "nobody" not in repr(token)


def test_a_secret_may_come_from_a_file(load: Load) -> None:
    """Its last line end is none of it."""
    assert load('[admin]\ntoken = { file = "token" }\n', token="abc\n").admin.token == "abc"


@pytest.mark.parametrize(
    ("value", "part"),
    [
        ('{ env = "MTA_TEST_NOT_SET" }', "environment variable MTA_TEST_NOT_SET is not set"),
        ('{ file = "nowhere" }', "cannot be read: No such file"),
        ("{ envv = 'X' }", '{ env = "NAME" }'),
        ("5", '{ env = "NAME" }'),
    ],
)
def test_a_secret_that_is_not_there_is_a_problem(problems: Problems, value: str, part: str) -> None:
    """An empty token by mistake would be an open door."""
    found = problems(f"[admin]\ntoken = {value}\n")

    assert len(found) == 1
    assert found[0].startswith("mta.toml:2: token: ")
    assert part in found[0]


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
        ("[[tenant]]\nname = 't'\ndsn = 'never'", 3, "dsn has no effect yet"),
        ("[signing]\nunsigned = 'refuse'", 2, "[signing] has no effect yet"),
        ("[admin]\naddress = '127.0.0.1:9000'", 2, "[admin] has no effect yet"),
        ("[admin]\naddress = 'unix:var/admin.sock'", 2, "[admin] has no effect yet"),
        ("[[route]]\ndomains = ['*']\nhosts = ['h']\n[[route]]\ndomains = ['x']\nhosts = ['h']", 4, "never used"),
    ],
)
def test_what_has_no_effect_is_warned_of(load: Load, text: str, line: int, part: str) -> None:
    """It is no mistake, but the admin is told at its line."""
    found = _warnings(load(text))

    assert [found_line for found_line, _ in found] == [line]
    assert part in found[0][1]


def test_a_dkim_key_is_warned_of(load: Load) -> None:
    """Mail leaves unsigned, and whoever configured a key must know."""
    loaded = load('[[dkim]]\ndomain = "x.example"\nselector = "s"\nkey = "k.pem"\n', **{"k.pem": "key"})

    assert _warnings(loaded) == [(1, "[[dkim]] has no effect yet: mail leaves unsigned")]


def test_warnings_of_policies_are_among_them(load: Load) -> None:
    """Rules and quotas too have no effect yet."""
    loaded = load("", policies__google_toml='[[rule]]\nname = "x"\n')

    assert [(Path(warning.file).name, warning.line) for warning in loaded.warnings] == [("google.toml", 1)]


def test_a_value_knows_where_it_was_written(load: Load) -> None:
    """For whoever asks why."""
    loaded = load("[queue]\n\nrecipients_max = 7\n")

    assert loaded.origin("queue", "recipients_max").endswith("mta.toml:3")
    assert loaded.origin("queue", "durability") == "built in"

"""mta.toml: its defaults, its text, and what it includes."""

import os
import re
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest
from msgspec import inspect

from mta import config
from mta.config import Config
from mta.config.forms import Endpoint
from mta.config.settings import Settings
from mta.testing.config_files import Load, Problems, private_key
from mta_policies.reader import keys_of
from mta_policies.units import Rate
from mta_policies.warmup import Plan

ROOT = Path(__file__).parents[3]


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
        [[limit]]
        per = "tenant"
        rate = ["20/s", "40000/h"]
        quota = { count = 300000, per = "day", zone = "Asia/Tokyo" }
        [[limit]]
        per = "source"
        name = "out-*"
        window = "08:00-22:00 Asia/Tokyo"
        [[warmup]]
        source = "out-1"
        start = 2026-12-01
        plan = [50, 100]
        providers = { google = [20, 40] }
        zone = "Asia/Tokyo"
        overflow_pool = "main"
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
    assert loaded.limits[0].rate == (Rate(20, 1), Rate(40_000, 3600))
    assert (loaded.limits[0].per, loaded.limits[0].name, loaded.limits[1].name) == ("tenant", "*", "out-*")
    assert loaded.warmup_plans == (
        Plan("out-1", (50, 100), {"google": (20, 40)}, 1_796_050_800.0, "Asia/Tokyo", "main"),
    )
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
    """With all of them in force nothing is left to say."""
    text = re.sub(r"(?m)^#(?=\S)", "", config.render())
    text = text.replace("out-1 = 3, out-2 = 1", "out-1 = 3").replace('directory = ""', f'directory = "{tmp_path}"')

    loaded = load(text, **{"keys__example.com.pem": private_key()})

    assert loaded.routes
    assert loaded.tenants
    assert loaded.dkim[0].selector == "s2026"
    assert _warnings(loaded) == []


def test_every_key_has_a_text() -> None:
    """In the file of the root each key is explained where it stands."""

    def missing(kind: inspect.Type, path: str) -> list[str]:
        if isinstance(kind, inspect.VarTupleType):
            return missing(kind.item_type, path)
        if not isinstance(kind, inspect.StructType):
            return []
        found = [f"{path}{key.name}" for key in keys_of(kind.cls) if not key.description]
        tables = [key for key in keys_of(kind.cls) if key.form is None]
        return found + [one for key in tables for one in missing(key.kind, f"{path}{key.name}.")]

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

"""`mta dkim`: keys that are made, shown, and looked for in the DNS."""

import asyncio
import json
import re
import stat
import tomllib
from pathlib import Path

import dns.rdata
import dns.rdtypes.txtbase
import pytest

from mta.cli import main
from mta.cli.dkim import configured_keys, txt_strings, zone_line
from mta.config import load
from mta.signing.keys import SigningKey, load_key
from mta.signing.published import faults, record_name
from mta.testing.signing_keys import ed25519_pem, rsa_pem
from mta.testing.toy_dns import ToyDns

GUIDE = Path(__file__).resolve().parents[3] / "docs" / "guide" / "signing.md"
TOML = re.compile(r"```toml\n(.*?)```", re.DOTALL)
KEY_NAMED = re.compile(r'^key = "(.*)"$', re.MULTILINE)


def configuration(folder: Path, *, dns: str = "", directory: str = "") -> Path:
    """Two keys of shop.test and one that always signs."""
    keys = (("shop.test", "r1", rsa_pem(), "from"), ("shop.test", "e1", ed25519_pem(), "from"))
    text = f'[dns]\nnameservers = ["{dns}"]\n' if dns else ""
    text += f'[signing]\ndirectory = "{directory}"\n' if directory else ""
    for domain, selector, pem, sign in (*keys, ("esp.test", "x1", ed25519_pem(), "always")):
        (folder / f"{selector}.pem").write_bytes(pem)
        text += f'[[dkim]]\ndomain = "{domain}"\nselector = "{selector}"\nkey = "{selector}.pem"\nsign = "{sign}"\n'
    path = folder / "mta.toml"
    path.write_text(text)
    return path


def keys_of(path: Path) -> list[SigningKey]:
    return list(configured_keys(load(path)))


def zone(path: Path) -> dict[str, dict[str, str]]:
    """Every key published as it should be."""
    return {
        record_name(key): {"TXT": " ".join(f'"{string}"' for string in txt_strings(key.public_record()))}
        for key in keys_of(path)
    }


@pytest.mark.parametrize("number", [0, 1])
def test_guide(tmp_path: Path, number: int) -> None:
    """What docs/guide/signing.md says of mta.toml is right where the keys are there."""
    text = TOML.findall(GUIDE.read_text("utf-8"))[number]
    (tmp_path / "mta.toml").write_text(text, "utf-8")
    (tmp_path / "keys" / "customers").mkdir(parents=True)
    for name in KEY_NAMED.findall(text):
        (tmp_path / name).write_bytes(ed25519_pem())

    assert len(keys_of(tmp_path / "mta.toml")) == 1


# -- keygen --


@pytest.mark.parametrize(
    ("options", "algorithm", "line_count"),
    [([], "rsa-sha256", 3), (["--bits", "1024"], "rsa-sha256", 1), (["--algorithm", "ed25519"], "ed25519-sha256", 1)],
)
def test_keygen(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], algorithm: str, line_count: int
) -> None:
    """The key is one that signs, in a file for its owner alone; what to publish is shown."""
    path = tmp_path / "key.pem"

    status = main(["dkim", "keygen", "Shop.TEST", "s2026", "--out", str(path), *options])

    out = capsys.readouterr().out
    key = load_key(path, "shop.test", "s2026")
    assert status == 0
    assert key.algorithm == algorithm
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert zone_line(key) in out
    assert len(zone_line(key).splitlines()) == line_count


def test_keygen_shows_configuration(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The lines for mta.toml that are printed are right as they stand."""
    path = tmp_path / "key.pem"

    main(["dkim", "keygen", "shop.test", "s2026", "--algorithm", "ed25519", "--out", str(path)])

    shown = capsys.readouterr().out.partition("[[dkim]]")[2].partition("\n\n")[0]
    assert tomllib.loads(f"[[dkim]]{shown}") == {
        "dkim": [{"domain": "shop.test", "selector": "s2026", "key": str(path)}]
    }


def test_keygen_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without --out the file's name says whose key it is, in a folder that nobody else can look into."""
    monkeypatch.chdir(tmp_path)

    main(["dkim", "keygen", "shop.test", "s2026", "--algorithm", "ed25519"])

    main(["dkim", "keygen", "shop.test", "s2027", "--algorithm", "ed25519"])

    keys = tmp_path / "keys"
    assert list(tmp_path.iterdir()) == [keys]
    assert stat.S_IMODE(keys.stat().st_mode) == 0o700
    assert sorted(path.name for path in keys.iterdir()) == ["shop.test.s2026.pem", "shop.test.s2027.pem"]
    assert {stat.S_IMODE(path.stat().st_mode) for path in keys.iterdir()} == {0o600}


def test_keygen_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """JSON has the file and the record, but nothing secret."""
    path = tmp_path / "key.pem"

    main(["dkim", "keygen", "shop.test", "s1", "--json", "--out", str(path)])

    said = json.loads(capsys.readouterr().out)
    assert (said["file"], said["name"], said["type"]) == (str(path), "s1._domainkey.shop.test", "TXT")
    assert "".join(said["strings"]) == said["value"] == load_key(path, "shop.test", "s1").public_record()
    assert "PRIVATE" not in str(said)


@pytest.mark.parametrize("kind", ["file", "link", "dangling"])
def test_keygen_never_overwrites(tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str) -> None:
    """A file that is there stays as it is, also where a link leads to it or nowhere."""
    path, other = tmp_path / "key.pem", tmp_path / "other"
    if kind == "file":
        path.write_text("precious")
    else:
        path.symlink_to(other)
        if kind == "link":
            other.write_text("precious")

    status = main(["dkim", "keygen", "shop.test", "s1", "--algorithm", "ed25519", "--out", str(path)])

    assert status == 1
    assert "is there already and is left as it is" in capsys.readouterr().err
    assert other.exists() == (kind == "link")
    assert kind == "dangling" or path.read_text() == "precious"


def test_keygen_without_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A folder that is not there is told."""
    path = tmp_path / "absent" / "key.pem"

    assert main(["dkim", "keygen", "shop.test", "s1", "--algorithm", "ed25519", "--out", str(path)]) == 1
    assert f"{path}: No such file or directory" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [
        ["not a domain", "s1"],
        ["[192.0.2.1]", "s1"],
        ["shop.test", "../s1"],
        ["shop.test", "a..b"],
        ["shop.test", ""],
        ["shop.test", "s1", "--bits", "512"],
        ["shop.test", "s1", "--bits", "16384"],
        ["shop.test", "s1", "--bits", "many"],
        ["shop.test", "s1", "--algorithm", "dsa"],
    ],
)
def test_keygen_wrong_usage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str]) -> None:
    """What cannot be a key's name or size is wrong usage, and no file appears."""
    monkeypatch.chdir(tmp_path)

    with pytest.raises(SystemExit) as end:
        main(["dkim", "keygen", *arguments])

    assert end.value.code == 2
    assert list(tmp_path.iterdir()) == []


def test_keygen_bits_of_ed25519(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An Ed25519 key has one size: asking for another is wrong usage."""
    monkeypatch.chdir(tmp_path)

    assert main(["dkim", "keygen", "shop.test", "s1", "--algorithm", "ed25519", "--bits", "2048"]) == 2
    assert list(tmp_path.iterdir()) == []


# -- txt --


def test_txt_of_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The record of a key file, in the words of a zone file, reads back as the key."""
    (tmp_path / "key.pem").write_bytes(rsa_pem())
    key = load_key(tmp_path / "key.pem", "shop.test", "s1")

    status = main(["dkim", "txt", str(tmp_path / "key.pem"), "--domain", "shop.test", "--selector", "s1"])

    name, _, _, rest = capsys.readouterr().out.split(maxsplit=3)
    record = dns.rdata.from_text("IN", "TXT", rest.strip().removeprefix("(").removesuffix(")").replace("\n", " "))
    assert status == 0
    assert name == "s1._domainkey.shop.test."
    assert isinstance(record, dns.rdtypes.txtbase.TXTBase)
    assert faults(key, [b"".join(record.strings).decode()]) == []


def test_txt_without_a_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Where nobody says whose key it is, the place of its name shows that it is missing."""
    (tmp_path / "key.pem").write_bytes(ed25519_pem())

    main(["dkim", "txt", str(tmp_path / "key.pem")])

    assert capsys.readouterr().out.startswith('SELECTOR._domainkey.DOMAIN. IN TXT "v=DKIM1; k=ed25519; p=')


def test_txt_of_the_configuration(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """All keys of the configuration are shown, those of its directory too."""
    folder = tmp_path / "keys" / "other.test"
    folder.mkdir(parents=True)
    (folder / "d1.pem").write_bytes(ed25519_pem())
    path = configuration(tmp_path, directory="keys")

    status = main(["dkim", "txt", "--config", str(path), "--json"])

    said = json.loads(capsys.readouterr().out)
    assert status == 0
    assert [one["name"].replace("._domainkey.", "@") for one in said] == [
        "r1@shop.test",
        "e1@shop.test",
        "x1@esp.test",
        "d1@other.test",
    ]
    assert all("".join(one["strings"]) == one["value"] and max(map(len, one["strings"])) <= 255 for one in said)


def test_txt_value(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """--value shows each value in one piece."""
    path = configuration(tmp_path)

    main(["dkim", "txt", "--config", str(path), "--value"])

    assert capsys.readouterr().out.splitlines() == [key.public_record() for key in keys_of(path)]


def test_txt_without_keys(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A configuration without keys is told, with how to make one."""
    (tmp_path / "mta.toml").write_text("")

    assert main(["dkim", "txt", "--config", str(tmp_path / "mta.toml")]) == 1
    assert "names no keys; `mta dkim keygen` makes one" in capsys.readouterr().err


def test_txt_of_nonsense(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A file that is no key is told; a name without a file is wrong usage."""
    (tmp_path / "key.pem").write_text("nonsense")

    assert main(["dkim", "txt", str(tmp_path / "key.pem")]) == 1
    assert "key.pem: is not a PEM file" in capsys.readouterr().err
    assert main(["dkim", "txt", "--domain", "shop.test"]) == 2


# -- check --


async def check(path: Path, *arguments: str) -> int:
    return await asyncio.to_thread(main, ["dkim", "check", "--config", str(path), *arguments])


async def test_check_good(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Keys that are published as they should be are good, and the answer is yes."""
    async with ToyDns() as dns:
        path = configuration(tmp_path, dns=dns.address)
        dns.records.update(zone(path))

        status = await check(path)

    assert status == 0
    assert [line.split()[-1] for line in capsys.readouterr().out.splitlines()] == ["good", "good", "good", "needed"]


async def test_check_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each key that is not published as it signs is named with what is wrong, and the answer is no."""
    async with ToyDns() as dns:
        path = configuration(tmp_path, dns=dns.address)
        dns.records.update(zone(path))
        dns.records["e1._domainkey.shop.test"] = {"TXT": '"v=DKIM1; k=ed25519; p="'}
        del dns.records["x1._domainkey.esp.test"]

        status = await check(path)

    assert status == 1
    assert [line.strip() for line in capsys.readouterr().out.splitlines()] == [
        "r1._domainkey.shop.test  rsa-sha256      good",
        "e1._domainkey.shop.test  ed25519-sha256  wrong",
        "the key is revoked: p= is empty",
        "x1._domainkey.esp.test   ed25519-sha256  wrong",
        "there is no TXT record; `mta dkim txt` shows what to publish",
        "3 keys, 2 not published as it signs",
    ]


async def test_check_one_domain(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With a domain only its keys are looked at; a domain without keys is a no."""
    async with ToyDns() as dns:
        path = configuration(tmp_path, dns=dns.address)
        dns.records.update(zone(path))

        assert await check(path, "ESP.test", "--json") == 0
        assert [one["name"] for one in json.loads(capsys.readouterr().out)] == ["x1._domainkey.esp.test"]
        assert await check(path, "third.test") == 1
        assert "names no key for third.test" in capsys.readouterr().err


async def test_check_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """JSON has what was expected and what was found."""
    async with ToyDns() as dns:
        path = configuration(tmp_path, dns=dns.address)
        dns.records.update(zone(path))
        dns.records["r1._domainkey.shop.test"] = {"TXT": ['"one"', '"two"']}

        await check(path, "--json")

    first = json.loads(capsys.readouterr().out)[0]
    assert first["good"] is False
    assert sorted(first["published"]) == ["one", "two"]
    assert first["expected"] == keys_of(path)[0].public_record()
    assert first["faults"] == ["there are 2 TXT records, and receivers may take any of them: leave one"]


async def test_check_by_alias(tmp_path: Path) -> None:
    """A key may be published behind an alias, as providers ask their customers to."""
    async with ToyDns() as dns:
        path = configuration(tmp_path, dns=dns.address)
        dns.records.update(zone(path))
        dns.records["x.provider.test"] = dns.records["x1._domainkey.esp.test"]
        dns.records["x1._domainkey.esp.test"] = {"CNAME": "x.provider.test."}

        assert await check(path, "esp.test") == 0


async def test_check_long_answer(tmp_path: Path) -> None:
    """A record that needs TCP is found."""
    async with ToyDns() as dns:
        path = configuration(tmp_path, dns=dns.address)
        dns.records.update(zone(path))
        dns.behave("truncate")

        assert await check(path, "shop.test") == 0


async def test_check_without_dns(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A nameserver that cannot tell is not the same as a key that is not there."""
    async with ToyDns() as dns:
        path = configuration(tmp_path, dns=dns.address)
        dns.behave("servfail")

        assert await check(path, "esp.test") == 1

    assert "the DNS cannot tell: " in capsys.readouterr().out


async def test_check_hostile_record(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A record with control bytes does not move the cursor."""
    async with ToyDns() as dns:
        path = configuration(tmp_path, dns=dns.address)
        dns.records["x1._domainkey.esp.test"] = {"TXT": '"\\027[2J\\255"'}

        await check(path, "esp.test")

    assert all(line.isprintable() for line in capsys.readouterr().out.splitlines())


def test_check_without_keys(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Without keys there is nothing that could be right."""
    (tmp_path / "mta.toml").write_text("")

    assert main(["dkim", "check", "--config", str(tmp_path / "mta.toml")]) == 1
    assert "names no keys" in capsys.readouterr().err


def test_a_key_that_cannot_be_used(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A damaged key of the directory is told by both commands."""
    folder = tmp_path / "keys" / "other.test"
    folder.mkdir(parents=True)
    (folder / "d1.pem").write_text("nonsense")
    path = configuration(tmp_path, directory="keys")

    assert main(["dkim", "txt", "--config", str(path)]) == 1
    assert main(["dkim", "check", "--config", str(path)]) == 1
    assert capsys.readouterr().err.count("d1.pem: is not a PEM file") == 2

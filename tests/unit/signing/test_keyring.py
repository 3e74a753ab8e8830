"""The key ring: whose keys sign mail from where, and what happens to mail whose key cannot be read."""

import os
from functools import cache
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mta.signing import keyring
from mta.signing.keyring import KEYS_PER_DOMAIN_MAX, KeyPlace, KeyRing
from mta.signing.keys import KeyFileError
from mta.testing.signing_keys import ed25519_pem


@cache
def pem() -> bytes:
    """One key for all places; its name is what counts here."""
    return ed25519_pem()


def place(folder: Path, name: str, *, always: bool = False) -> KeyPlace:
    """`[[dkim]]` for "selector._domainkey.domain" in short: "s1@shop.test"."""
    selector, _, domain = name.partition("@")
    path = folder / f"{selector}.{domain}.pem"
    path.write_bytes(pem())
    return KeyPlace(domain, selector, path, always)


def put(directory: Path, name: str, text: bytes | None = None) -> Path:
    selector, _, domain = name.partition("@")
    path = directory / domain / f"{selector}.pem"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pem() if text is None else text)
    return path


def names(ring: KeyRing, from_domain: str) -> list[str]:
    return [f"{key.selector}@{key.domain}" for key in ring.keys_for(from_domain)]


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    folder = tmp_path / "keys"
    folder.mkdir()
    return folder


def test_nothing_configured() -> None:
    """Without keys nothing is signed, and all mail may be sent."""
    ring = KeyRing([], None, "send")

    assert ring.is_empty
    assert ring.keys_for("shop.test") == ()
    assert ring.may_send("shop.test")
    assert list(ring.every_key()) == []


def test_from_keys(tmp_path: Path) -> None:
    """Mail is signed by all keys of its From domain, in the order of the configuration."""
    ring = KeyRing([place(tmp_path, name) for name in ("b@shop.test", "a@shop.test", "c@other.test")], None, "send")

    assert not ring.is_empty
    assert names(ring, "shop.test") == ["b@shop.test", "a@shop.test"]
    assert names(ring, "third.test") == []
    assert names(ring, "") == []


def test_nearest_parent(tmp_path: Path) -> None:
    """A domain without keys is signed for by the nearest domain above it that has some, and by no other."""
    ring = KeyRing([place(tmp_path, "s@shop.test"), place(tmp_path, "s@mail.shop.test")], None, "send")

    assert names(ring, "a.b.mail.shop.test") == ["s@mail.shop.test"]
    assert names(ring, "mail.shop.test") == ["s@mail.shop.test"]
    assert names(ring, "web.shop.test") == ["s@shop.test"]
    assert names(ring, "myshop.test") == []


def test_top_level(tmp_path: Path, directory: Path) -> None:
    """A key of a top-level domain signs for that domain itself, never for those below it."""
    put(directory, "d@test")
    ring = KeyRing([place(tmp_path, "s@test")], directory, "refuse")

    assert names(ring, "test") == ["s@test", "d@test"]
    assert names(ring, "shop.test") == []
    assert not ring.may_send("shop.test")


def test_always(tmp_path: Path) -> None:
    """A key that always signs comes behind the From domain's, once, whoever the mail is from."""
    places = [place(tmp_path, "esp@esp.test", always=True), place(tmp_path, "s@shop.test")]
    ring = KeyRing(places, None, "send")

    assert names(ring, "shop.test") == ["s@shop.test", "esp@esp.test"]
    assert names(ring, "third.test") == ["esp@esp.test"]
    assert names(ring, "") == ["esp@esp.test"]
    assert names(ring, "esp.test") == ["esp@esp.test"]


def test_same_name_twice(tmp_path: Path, directory: Path) -> None:
    """A key that `[[dkim]]` and the directory both name signs once."""
    put(directory, "s@shop.test")
    put(directory, "t@shop.test")
    places = [place(tmp_path, "s@shop.test"), place(tmp_path, "t@shop.test", always=True)]
    ring = KeyRing(places, directory, "send")

    assert names(ring, "shop.test") == ["s@shop.test", "t@shop.test"]
    assert ring.keys_for("shop.test")[0].pem == pem()
    assert sorted(f"{key.selector}@{key.domain}" for key in ring.every_key()) == ["s@shop.test", "t@shop.test"]


def test_directory(directory: Path) -> None:
    """The directory holds a folder a domain and a file a selector; nothing else in it counts."""
    for name in ("b@shop.test", "a@shop.test", "two.parts@shop.test", ".hidden@shop.test", "s@other.test"):
        put(directory, name)
    (directory / "shop.test" / "README").write_text("text")
    (directory / "file.test").write_text("text")
    ring = KeyRing([], directory, "send")

    assert not ring.is_empty
    assert names(ring, "shop.test") == ["a@shop.test", "b@shop.test", "two.parts@shop.test"]
    assert names(ring, "file.test") == []
    assert [key.domain for key in ring.every_key()] == ["other.test", "shop.test", "shop.test", "shop.test"]


def test_directory_and_configuration(tmp_path: Path, directory: Path) -> None:
    """Of both, the nearest domain counts; at the same domain they sign together."""
    put(directory, "d@mail.shop.test")
    put(directory, "d@other.test")
    ring = KeyRing([place(tmp_path, "s@shop.test"), place(tmp_path, "s@other.test")], directory, "send")

    assert names(ring, "a.mail.shop.test") == ["d@mail.shop.test"]
    assert names(ring, "shop.test") == ["s@shop.test"]
    assert names(ring, "other.test") == ["s@other.test", "d@other.test"]


def test_answers_are_kept(directory: Path) -> None:
    """What the directory said holds until there is a new ring, a no as well."""
    path = put(directory, "s@shop.test")
    ring = KeyRing([], directory, "send")
    before = ring.keys_for("shop.test"), ring.keys_for("late.test")

    path.unlink()
    put(directory, "s@late.test")

    assert (ring.keys_for("shop.test"), ring.keys_for("late.test")) == before
    again = KeyRing([], directory, "send")
    assert (names(again, "shop.test"), names(again, "late.test")) == ([], ["s@late.test"])


def test_answers_are_bounded(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a hundred times more domains than are remembered only the last ones are; what is in use stays."""
    monkeypatch.setattr(keyring, "ANSWERS_KEPT_MAX", 10)
    put(directory, "s@shop.test")
    ring = KeyRing([], directory, "send")
    (key,) = ring.keys_for("shop.test")
    (directory / "shop.test" / "s.pem").unlink()

    for number in range(1000):
        assert ring.keys_for(f"n{number}.other.test") == ()
        assert ring.keys_for("shop.test") == (key,)

    for answers in (ring._answers, ring._folders):
        assert len(answers._young) + len(answers._old) <= 10


def test_a_key_that_cannot_be_used(directory: Path) -> None:
    """Mail whose key is damaged does not go unsigned, nor with a parent's key; put right, it goes."""
    put(directory, "s@shop.test")
    put(directory, "s@mail.shop.test", b"nonsense")
    ring = KeyRing([], directory, "refuse")

    for _ in range(2):
        with pytest.raises(KeyFileError, match=r"mail\.shop\.test/s\.pem: is not a PEM file"):
            ring.keys_for("mail.shop.test")
    assert ring.may_send("mail.shop.test")
    assert names(ring, "shop.test") == ["s@shop.test"]

    put(directory, "s@mail.shop.test")
    assert names(ring, "mail.shop.test") == ["s@mail.shop.test"]


def test_a_folder_that_cannot_be_read(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder that the server may not open stops its domain's mail and is named."""
    ring = KeyRing([], directory, "send")

    def denied(path: object) -> list[str]:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "listdir", denied)
    with pytest.raises(KeyFileError, match=r"shop\.test: cannot be read: Permission denied"):
        ring.keys_for("shop.test")
    with pytest.raises(KeyFileError, match="cannot be read"):
        list(ring.every_key())


def test_a_directory_that_is_gone(directory: Path) -> None:
    """A file system that went away holds mail back instead of letting it out unsigned."""
    ring = KeyRing([], directory, "send")
    directory.rmdir()

    with pytest.raises(KeyFileError, match="the folder is gone"):
        ring.keys_for("shop.test")


def test_no_directory(tmp_path: Path) -> None:
    """A worker that is restarted while the directory is away comes up all the same, and holds mail back."""
    ring = KeyRing([], tmp_path / "absent", "send")

    with pytest.raises(KeyFileError, match="the folder is gone"):
        ring.keys_for("shop.test")


def test_keys_that_were_accepted(tmp_path: Path) -> None:
    """What the configuration read counts, whatever has become of the file since."""
    pem = ed25519_pem()
    ring = KeyRing([KeyPlace("Shop.test", "s", tmp_path / "absent.pem", False, pem)], None, "send")

    (key,) = ring.keys_for("shop.test")
    assert (key.domain, key.selector, key.pem) == ("shop.test", "s", pem)


def test_bad_place(tmp_path: Path) -> None:
    """A key of `[[dkim]]` is read at once: a mistake shows when the server starts."""
    with pytest.raises(KeyFileError, match="there is no such file"):
        KeyRing([KeyPlace("shop.test", "s", tmp_path / "absent.pem", False)], None, "send")


def test_bad_names(directory: Path) -> None:
    """A file whose name cannot be a selector is told, not passed over: somebody believes that it signs."""
    put(directory, "s ü@shop.test")

    with pytest.raises(KeyFileError, match="cannot be a selector"):
        KeyRing([], directory, "send").keys_for("shop.test")


def test_too_many_keys(directory: Path) -> None:
    """A folder of hundreds of keys is a mistake: every one would sign."""
    for number in range(KEYS_PER_DOMAIN_MAX + 1):
        put(directory, f"s{number}@shop.test")

    with pytest.raises(KeyFileError, match=f"leave {KEYS_PER_DOMAIN_MAX} at most"):
        KeyRing([], directory, "send").keys_for("shop.test")


@pytest.mark.parametrize("unsigned", ["send", "refuse"])
def test_may_send(tmp_path: Path, unsigned: keyring.Unsigned) -> None:
    """Refused is mail for whose From domain nobody signs; an ESP's own signature does not make up for that."""
    places = [place(tmp_path, "s@shop.test"), place(tmp_path, "e@esp.test", always=True)]
    ring = KeyRing(places, None, unsigned)
    domains = ("shop.test", "mail.shop.test", "esp.test", "a.esp.test", "third.test", "test", "")

    allowed = [domain for domain in domains if ring.may_send(domain)]

    assert allowed == (
        list(domains) if unsigned == "send" else ["shop.test", "mail.shop.test", "esp.test", "a.esp.test"]
    )


@pytest.mark.parametrize(
    "domain",
    [
        "..",
        "../secret",
        "/",
        "/etc",
        "a/../../secret",
        ".",
        "secret/..",
        "a..test",
        "SHOP.test",
        "\0",
        "x" * 300,
        "ü.test",
    ],
)
def test_paths(directory: Path, domain: str) -> None:
    """A From domain is a stranger's: nothing but a plain name ever becomes part of a path."""
    secret = directory.parent / "secret"
    secret.mkdir()
    for folder in (secret, directory, directory.parent):
        (folder / "s.pem").write_bytes(pem())

    assert KeyRing([], directory, "send").keys_for(domain) == ()


@given(st.text(max_size=40) | st.from_regex(r"[a-z./\\-]{0,30}", fullmatch=True))
def test_any_domain(domain: str) -> None:
    """Whatever stands in From, only names without slash and double dot are looked for in the directory."""
    looked_for: list[object] = []

    def note(path: object) -> list[str]:
        looked_for.append(path)
        return []

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "listdir", note)
        KeyRing([], Path("/"), "send").keys_for(domain)

    assert all(Path(str(path)).parent == Path("/") for path in looked_for)
    assert not any(".." in str(path) for path in looked_for)


def test_upper_case_in_the_configuration(tmp_path: Path) -> None:
    """A domain that the configuration writes in capitals is the same domain."""
    ring = KeyRing([place(tmp_path, "s@Shop.TEST")], None, "send")

    assert names(ring, "shop.test") == ["s@shop.test"]

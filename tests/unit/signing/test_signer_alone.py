"""Signatures that a worker makes itself: what comes alone while no helper is at work for it."""

from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest

from mta.signing.keys import SigningKey
from mta.signing.signature import Prepared
from mta.signing.signer import ALONE_MAX, Signer
from mta.testing.signing_rig import ScriptedHelper, ed25519_key, rsa_key
from mta.testing.swift_loop import SwiftLoop, swiftly

KEY = ed25519_key()
SLOW = rsa_key("slow.test", bits=3072)
BROKEN = SigningKey("shop.test", "broken", "rsa-sha256", b"no PEM", is_quick=True)


class Rig:
    """A signer, and a helper that answers when told."""

    def __init__(self, loop: SwiftLoop, directory: Path) -> None:
        self.loop = loop
        self.helper = ScriptedHelper(directory / "signer-0.sock")
        self.signer = Signer(loop, [self.helper.path])
        self.done: dict[bytes, list[bytes] | None] = {}
        """Signatures by the first digest."""

    def sign(self, *names: bytes, keys: Sequence[SigningKey] = (KEY,)) -> None:
        """A message of each name."""
        for name in names:
            prepared = [Prepared(key, b"", name.ljust(32, b".")) for key in keys]
            self.signer.sign(prepared, lambda signatures, name=name: self._told(name, signatures))

    def _told(self, name: bytes, signatures: list[bytes] | None) -> None:
        assert name not in self.done, "told once"
        self.done[name] = signatures

    async def settled(self) -> None:
        """Until nothing moves any more."""
        told = self.loop.create_future()
        self.loop.call_later(0.2, told.set_result, None)
        await told

    def check(self, *names: bytes, keys: Sequence[SigningKey] = (KEY,)) -> None:
        """All these have good signatures, and nothing waits."""
        for name in names:
            signatures = self.done[name]
            assert signatures is not None
            digest = name.ljust(32, b".")
            assert [key.confirms(each, digest) for key, each in zip(keys, signatures, strict=True)] == [True] * len(
                keys
            )
        assert self.signer.waiting == 0


async def rigged(loop: SwiftLoop, tmp_path: Path, *, is_up: bool = True) -> AsyncIterator[Rig]:
    """A rig that is taken down afterwards."""
    rig = Rig(loop, tmp_path)
    if is_up:
        await rig.helper.start()
    yield rig
    await rig.signer.close()
    rig.helper.die()
    await rig.settled()


@pytest.mark.parametrize("keys", [[KEY], [rsa_key()], [rsa_key(), KEY]], ids=["ed25519", "rsa", "both"])
@pytest.mark.parametrize("is_up", [True, False], ids=["helper", "no helper"])
def test_one_is_signed_here(keys: list[SigningKey], is_up: bool, tmp_path: Path):
    """One message wakes no helper and waits for none; it is told at the end of the turn, with what it cost."""

    @swiftly
    async def main(loop: SwiftLoop) -> None:
        async for rig in rigged(loop, tmp_path, is_up=is_up):
            rig.sign(b"1", keys=keys)
            assert rig.done == {}
            await rig.settled()

            rig.check(b"1", keys=keys)
            assert rig.helper.sizes == []
            assert rig.signer.signatures == len(keys)
            assert rig.signer.signature_cpu_s > 0

    main()


@swiftly
async def test_more_go_to_helpers(loop: SwiftLoop, tmp_path: Path):
    """What two digests are is signed here, turn after turn; three in one turn are a helper's."""
    async for rig in rigged(loop, tmp_path):
        rig.sign(b"1", b"2")
        await rig.settled()
        rig.sign(b"3", b"4")
        await rig.settled()
        rig.check(b"1", b"2", b"3", b"4")
        assert rig.helper.sizes == []

        rig.sign(b"5", b"6", b"7")
        await rig.settled()

        assert ALONE_MAX == 2
        assert rig.helper.sizes == [3]
        assert rig.signer.waiting == 3


@swiftly
async def test_slow_keys_go_to_helpers(loop: SwiftLoop, tmp_path: Path):
    """A key that takes longer would stop the worker; a message that it signs too goes with it."""
    async for rig in rigged(loop, tmp_path):
        rig.sign(b"1", keys=[KEY, SLOW])
        await rig.settled()

        assert rig.helper.sizes == [2]
        rig.helper.answer()
        await rig.settled()
        rig.check(b"1", keys=[KEY, SLOW])


@swiftly
async def test_nothing_is_signed_here_while_a_helper_works(loop: SwiftLoop, tmp_path: Path):
    """Then there is more to do: what comes gathers for the helper, and is alone again when it has answered."""
    async for rig in rigged(loop, tmp_path):
        rig.sign(b"1", b"2", b"3")
        await rig.settled()
        rig.sign(b"4")
        await rig.settled()
        assert rig.done == {}

        rig.helper.answer()
        await rig.settled()

        rig.check(b"1", b"2", b"3", b"4")
        assert list(rig.done) == [b"1", b"2", b"3", b"4"]
        assert rig.helper.sizes == [3]


@swiftly
async def test_key_that_cannot_sign(loop: SwiftLoop, tmp_path: Path):
    """It is told as of a helper, and the message beside it is signed."""
    async for rig in rigged(loop, tmp_path):
        rig.sign(b"1", keys=[BROKEN])
        rig.sign(b"2")
        await rig.settled()

        assert rig.done[b"1"] is None
        rig.check(b"2")
        said = "the key broken._domainkey.shop.test cannot sign: is not a PEM file"
        assert rig.signer.last_error.startswith(said)
        assert rig.helper.sizes == []


@swiftly
async def test_error_in_who_asked(loop: SwiftLoop, tmp_path: Path):
    """Whoever fails when he is told keeps nobody else from his signatures; he may ask for the next one then."""
    async for rig in rigged(loop, tmp_path):

        def fails(signatures: list[bytes] | None, rig: Rig = rig) -> None:
            rig.sign(b"next")
            assert b"next" not in rig.done
            raise ValueError("a bug")

        rig.signer.sign([Prepared(KEY, b"", bytes(32))], fails)
        rig.sign(b"1")
        await rig.settled()

        rig.check(b"1", b"next")
        [problem] = loop.problems
        assert str(problem["exception"]) == "a bug"
        loop.problems.clear()


@swiftly
async def test_close(loop: SwiftLoop, tmp_path: Path):
    """After the end nobody is told anything."""
    async for rig in rigged(loop, tmp_path):
        rig.sign(b"1")
        await rig.signer.close()
        await rig.settled()

        assert rig.done == {}

"""A worker's signer, with helpers that are played by hand."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest

from mta.signing import helper_wire
from mta.signing import signer as signers
from mta.signing import signing_frames as frames
from mta.signing.helper_wire import TRIES_MAX
from mta.signing.keys import SigningKey
from mta.signing.signature import Prepared
from mta.signing.signer import BATCH_MAX, BATCHES_MAX, SECOND_BATCH_MIN, Signer
from mta.signing.signing_frames import REFUSED
from mta.testing.signing_rig import ScriptedHelper, ed25519_key
from mta.testing.swift_loop import SwiftLoop, swiftly

KEY = ed25519_key()


def prepared(number: int = 0, *keys: SigningKey) -> list[Prepared]:
    """What a message's keys have to sign: a digest of its own for each."""
    return [
        Prepared(key, b"", number.to_bytes(16, "big") + at.to_bytes(16, "big")) for at, key in enumerate(keys or (KEY,))
    ]


class Rig:
    """A signer and its helpers, which make all signatures; none is made by the worker."""

    def __init__(
        self, loop: SwiftLoop, directory: Path, helpers: int, *, is_prompt: bool = False, lanes: int = 1
    ) -> None:
        paths = [directory / f"signer-{number}.sock" for number in range(helpers)]
        self.signer = Signer(loop, paths, alone_max=0)
        self.helpers = [ScriptedHelper(path, is_prompt=is_prompt, lanes=lanes) for path in paths]
        self.done: dict[int, list[bytes] | None] = {}
        """Signatures by the number of what was asked for."""
        self.order: list[int] = []

    async def start(self) -> None:
        for helper in self.helpers:
            await helper.start()

    def sign(self, *numbers: int, keys: Sequence[SigningKey] = (), priority: int = 5) -> None:
        for number in numbers:

            def done(signatures: list[bytes] | None, number: int = number) -> None:
                assert number not in self.done, "told once"
                self.done[number] = signatures
                self.order.append(number)

            self.signer.sign(prepared(number, *keys), done, priority)

    async def settled(self) -> None:
        """Until nothing moves any more."""
        await asyncio.sleep(0.2)

    async def stop(self) -> None:
        await self.signer.close()
        for helper in self.helpers:
            helper.die()
        await self.settled()

    def check(self, *numbers: int, keys: Sequence[SigningKey] = ()) -> None:
        """All of these are signed, and right."""
        assert set(self.done) == set(numbers)
        for number in numbers:
            asked = prepared(number, *keys)
            signatures = self.done[number]
            assert signatures is not None
            assert len(signatures) == len(asked)
            for each, signature in zip(asked, signatures, strict=True):
                assert each.key.confirms(signature, each.digest)


async def rigged(
    loop: SwiftLoop, tmp_path: Path, helpers: int = 1, *, is_prompt: bool = False, lanes: int = 1
) -> AsyncIterator[Rig]:
    """A rig that is taken down afterwards."""
    rig = Rig(loop, tmp_path, helpers, is_prompt=is_prompt, lanes=lanes)
    await rig.start()
    yield rig
    await rig.stop()


@swiftly
async def test_one_goes_at_once(loop: SwiftLoop, tmp_path: Path):
    """A single signature is asked for in this turn of the loop, and told when it is there."""
    async for rig in rigged(loop, tmp_path):
        rig.sign(1)
        await rig.settled()

        assert rig.helpers[0].sizes == [1]
        assert rig.signer.waiting == 1
        rig.helpers[0].answer()
        await rig.settled()

        rig.check(1)
        assert rig.signer.waiting == 0
        assert rig.signer.signatures == 1


@swiftly
async def test_what_helpers_tell_of_themselves(loop: SwiftLoop, tmp_path: Path):
    """How many signatures they make at once, and what the signing took."""
    async for rig in rigged(loop, tmp_path, 2, is_prompt=True, lanes=8):
        assert rig.signer.lanes == 0
        rig.helpers[1].lanes = 4
        rig.sign(*range(10))
        await rig.settled()

        assert rig.signer.lanes == 4
        batches = sum(len(helper.sizes) for helper in rig.helpers)
        assert rig.signer.signature_cpu_s == pytest.approx(batches * 250e-6)


@swiftly
async def test_connects_when_needed(loop: SwiftLoop, tmp_path: Path):
    """Where nothing is signed no helper is called."""
    async for rig in rigged(loop, tmp_path):
        await rig.settled()
        assert rig.helpers[0].wires == []

        rig.sign(1)
        await rig.settled()

        assert len(rig.helpers[0].wires) == 1


@swiftly
async def test_batches_form_by_themselves(loop: SwiftLoop, tmp_path: Path):
    """While a helper is at work what comes gathers, until it is a batch worth having or the helper is free."""
    async for rig in rigged(loop, tmp_path):
        helper = rig.helpers[0]
        rig.sign(0)
        await rig.settled()
        for number in range(1, SECOND_BATCH_MIN):
            rig.sign(number)
            await rig.settled()
            assert helper.sizes == [1]
            assert not rig.signer.is_saturated

        for number in range(SECOND_BATCH_MIN, 2 * SECOND_BATCH_MIN + 4):
            rig.sign(number)
            await rig.settled()
        assert helper.sizes == [1, SECOND_BATCH_MIN]
        assert rig.signer.is_saturated

        helper.answer()
        await rig.settled()
        assert helper.sizes == [1, SECOND_BATCH_MIN, 11]
        rig.sign(20)
        helper.answer()
        await rig.settled()
        assert helper.sizes == [1, SECOND_BATCH_MIN, 11]
        helper.answer()
        await rig.settled()
        assert helper.sizes == [1, SECOND_BATCH_MIN, 11, 1]
        helper.answer()
        await rig.settled()
        rig.check(*range(21))
        assert rig.order == list(range(21))


@pytest.mark.parametrize(
    ("messages", "sizes"),
    [(3, [3]), (8, [8]), (10, [8]), (16, [8, 8]), (20, [16]), (30, [16, 14]), (40, [16, 8, 16])],
)
def test_batches_fill_lanes(messages: int, sizes: list[int], tmp_path: Path):
    """An idle helper gets as much as it signs at once, and the next one only what fills its lanes as well; then second
    batches. What is left waits for the first answer."""

    @swiftly
    async def main(loop: SwiftLoop) -> None:
        async for rig in rigged(loop, tmp_path, 2, is_prompt=True, lanes=8):
            rig.sign(0)
            await rig.settled()
            rig.helpers.sort(key=lambda helper: -len(helper.sizes))  # the preferred one first
            for helper in rig.helpers:
                helper.is_prompt = False
                helper.sizes.clear()

            rig.sign(*range(1, 1 + messages))
            await rig.settled()

            assert [size for helper in rig.helpers for size in helper.sizes] == sizes

            while any(helper.batches for helper in rig.helpers):
                for helper in rig.helpers:
                    if helper.batches:
                        helper.answer()
                await rig.settled()
            assert sum(size for helper in rig.helpers for size in helper.sizes) == messages

    main()


@swiftly
async def test_messages_with_several_keys_fill_lanes(loop: SwiftLoop, tmp_path: Path):
    """What counts are digests, not messages; a message stays together."""
    keys = [KEY, ed25519_key("b.test"), ed25519_key("c.test")]
    async for rig in rigged(loop, tmp_path, is_prompt=True, lanes=8):
        rig.sign(0)
        await rig.settled()
        rig.helpers[0].is_prompt = False

        rig.sign(*range(1, 4), keys=keys)
        await rig.settled()
        rig.sign(*range(4, 7), keys=keys)
        await rig.settled()

        assert rig.helpers[0].sizes == [1, 9, 9]


@swiftly
async def test_preference_outlives_a_helper(loop: SwiftLoop, tmp_path: Path):
    """The helper that a worker prefers is preferred again when it is back, so that workers stay apart."""
    async for rig in rigged(loop, tmp_path, 2, is_prompt=True):
        rig.sign(0)
        await rig.settled()
        [preferred] = [helper for helper in rig.helpers if helper.sizes]
        preferred.die()
        await rig.settled()
        await preferred.start()
        await rig.settled()

        rig.sign(1)
        await rig.settled()

        assert preferred.sizes == [1, 1]


@swiftly
async def test_all_helpers_work(loop: SwiftLoop, tmp_path: Path):
    """What one turn of the loop brings is dealt out evenly; nobody gets more than two batches of at most sixteen."""
    async for rig in rigged(loop, tmp_path, 3):
        rig.sign(0)
        await rig.settled()
        for helper in rig.helpers:
            while helper.batches:
                helper.answer()
        await rig.settled()
        for helper in rig.helpers:
            helper.sizes.clear()

        rig.sign(*range(1, 31))
        await rig.settled()

        assert [helper.sizes for helper in rig.helpers] == [[10]] * 3
        rig.sign(*range(31, 500))
        await rig.settled()
        assert [helper.sizes for helper in rig.helpers] == [[10, BATCH_MAX]] * 3
        assert BATCHES_MAX == 2
        assert rig.signer.is_saturated
        for helper in rig.helpers:
            helper.is_prompt = True
            helper.answer()
            helper.answer()
        await rig.settled()
        rig.check(*range(500))
        assert not rig.signer.is_saturated


@swiftly
async def test_urgent_goes_first(loop: SwiftLoop, tmp_path: Path):
    """However much waits for helpers, urgent mail is in the next batch; also what a dead helper had."""
    async for rig in rigged(loop, tmp_path):
        rig.sign(*range(1000))
        await rig.settled()
        rig.sign(2000, priority=9)
        await rig.settled()
        helper = rig.helpers[0]
        helper.die()
        rig.sign(2001, priority=9)
        await helper.start()
        await rig.settled()
        while len(rig.order) < 2 + 2 * BATCH_MAX:
            helper.answer()
            await rig.settled()

        assert rig.order[:3] == [2000, 2001, 0]
        assert sorted(rig.order[2:]) == list(range(len(rig.order) - 2))


@swiftly
async def test_key_is_told_once(loop: SwiftLoop, tmp_path: Path):
    """A helper hears a key before its first use on a connection and not again."""
    async for rig in rigged(loop, tmp_path, is_prompt=True):
        for number in range(5):
            rig.sign(number)
            await rig.settled()

        assert rig.helpers[0].keys_told == 1
        rig.check(*range(5))


@swiftly
async def test_forgotten_key_is_told_again(loop: SwiftLoop, tmp_path: Path):
    """A helper that forgot a key hears it again, and the signature comes all the same."""
    async for rig in rigged(loop, tmp_path, is_prompt=True):
        rig.sign(1)
        await rig.settled()
        rig.helpers[0].keys.clear()

        rig.sign(2, 3)
        await rig.settled()

        rig.check(1, 2, 3)
        assert rig.helpers[0].keys_told == 2


@swiftly
async def test_more_keys_than_are_remembered(loop: SwiftLoop, tmp_path: Path):
    """What a signer remembers of the keys that it told is bounded; what it forgot is told again."""
    keys = [ed25519_key(f"{number}.test") for number in range(5)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(helper_wire, "TOLD_KEYS_MAX", 2)
        async for rig in rigged(loop, tmp_path, is_prompt=True):
            for number in range(10):
                rig.sign(number, keys=[keys[number % 5]])
                await rig.settled()

            assert all(rig.done.values())
            assert rig.helpers[0].keys_told == 10


@swiftly
async def test_several_keys(loop: SwiftLoop, tmp_path: Path):
    """A message with several keys is told when all its signatures are there, in the order of the keys."""
    keys = [KEY, ed25519_key("esp.test"), ed25519_key("other.test")]
    async for rig in rigged(loop, tmp_path, is_prompt=True):
        rig.sign(*range(20), keys=keys)
        await rig.settled()

        rig.check(*range(20), keys=keys)
        assert rig.signer.signatures == 60
        assert max(rig.helpers[0].sizes) <= BATCH_MAX


@swiftly
async def test_more_keys_than_a_batch(loop: SwiftLoop, tmp_path: Path):
    """A message with more keys than a batch has room for is one batch."""
    keys = [ed25519_key(f"{number}.test") for number in range(BATCH_MAX + 4)]
    async for rig in rigged(loop, tmp_path, is_prompt=True):
        rig.sign(1, 2, keys=keys)
        await rig.settled()

        rig.check(1, 2, keys=keys)
        assert rig.helpers[0].sizes == [BATCH_MAX + 4] * 2


@swiftly
async def test_helper_dies(loop: SwiftLoop, tmp_path: Path):
    """What a dead helper had goes to the others before what came later; each is told once."""
    async for rig in rigged(loop, tmp_path, 2):
        rig.sign(*range(100))
        await rig.settled()
        dead, alive = rig.helpers
        had = {entry[1] for _, _, entries in dead.batches for entry in entries}
        assert had

        dead.die()
        await rig.settled()
        alive.answer()
        alive.answer()
        await rig.settled()

        assert {entry[1] for _, _, entries in alive.batches for entry in entries} <= had
        alive.is_prompt = True
        alive.answer()
        alive.answer()
        await rig.settled()
        rig.check(*range(100))


@swiftly
async def test_no_helper(loop: SwiftLoop, tmp_path: Path):
    """With no helper everything waits, nothing is lost, and a successor is found within a moment."""
    async for rig in rigged(loop, tmp_path):
        helper = rig.helpers[0]
        rig.sign(1, 2)
        await rig.settled()
        helper.die()
        rig.sign(3)
        await asyncio.sleep(30.0)
        assert rig.done == {}
        assert rig.signer.waiting == 3
        assert rig.signer.helpers == 0

        helper.is_prompt = True
        await helper.start()
        await rig.settled()

        rig.check(1, 2, 3)
        assert rig.signer.helpers == 1
        assert rig.order == [1, 2, 3]


@swiftly
async def test_folder_that_is_not_there_yet(loop: SwiftLoop, tmp_path: Path):
    """A signer may ask before anybody has made the folder of the sockets."""
    rig = Rig(loop, tmp_path / "links", 1, is_prompt=True)
    rig.sign(1)
    await rig.settled()

    (tmp_path / "links").mkdir()
    await rig.start()
    await rig.settled()

    rig.check(1)
    await rig.stop()


@swiftly
async def test_helper_that_hangs(loop: SwiftLoop, tmp_path: Path):
    """A helper that does not answer is left, its work is done by the others, and it gets none before it greets."""
    async for rig in rigged(loop, tmp_path, 2):
        hangs, works = rig.helpers
        rig.sign(0)
        await rig.settled()
        for helper in rig.helpers:
            while helper.batches:
                helper.answer()
        await rig.settled()
        rig.sign(1, 2)
        await rig.settled()
        assert hangs.batches
        works.is_prompt = True
        while works.batches:
            works.answer()
        hangs.greets = False

        await asyncio.sleep(signers.ANSWER_S + 3 * signers.WATCH_S)

        rig.check(0, 1, 2)
        assert "did not answer" in rig.signer.last_error
        asked = len(hangs.sizes)
        rig.sign(*range(3, 50))
        await rig.settled()
        rig.check(*range(50))
        assert len(hangs.sizes) == asked


@swiftly
async def test_key_that_cannot_sign(loop: SwiftLoop, tmp_path: Path):
    """A refused key is told as None with the reason; the messages beside it are signed."""
    async for rig in rigged(loop, tmp_path):
        rig.sign(1, 2)
        await rig.settled()
        wire, ref, entries = rig.helpers[0].batches[0]
        good = KEY.sign(entries[1][1])

        wire.transport.write(frames.signed(ref, 0, [(REFUSED, b"out of order"), (frames.DONE, good)]))
        await rig.settled()

        assert rig.done == {1: None, 2: [good]}
        assert rig.signer.last_error == "the key ed._domainkey.shop.test cannot sign: out of order"


@swiftly
async def test_key_that_no_helper_keeps(loop: SwiftLoop, tmp_path: Path):
    """A helper that never knows a key is not asked for ever."""
    async for rig in rigged(loop, tmp_path):
        rig.sign(1)
        for _ in range(TRIES_MAX):
            await rig.settled()
            assert rig.done == {}
            rig.helpers[0].keys.clear()
            rig.helpers[0].answer()
        await rig.settled()

        assert rig.done == {1: None}
        assert "does not keep it" in rig.signer.last_error


@pytest.mark.parametrize(
    "said", [b"HTTP/1.1 400\r\n", b"\0\0\0\0\1", frames.sign(1, []), frames.signed(b"\x07\0\0\0", 0, [])]
)
def test_not_a_helper(said: bytes, tmp_path: Path):
    """Something that answers nonsense is left, and what it had is signed elsewhere."""

    @swiftly
    async def main(loop: SwiftLoop) -> None:
        async for rig in rigged(loop, tmp_path):
            rig.sign(1)
            await rig.settled()
            helper = rig.helpers[0]
            helper.is_prompt = True

            helper.batches.popleft()[0].transport.write(said)
            await rig.settled()

            rig.check(1)
            assert rig.signer.last_error.startswith("a signing helper: ")

    main()


@swiftly
async def test_error_in_who_asked(loop: SwiftLoop, tmp_path: Path):
    """Whoever fails when he is told keeps nobody else from his signatures."""
    async for rig in rigged(loop, tmp_path, is_prompt=True):

        def fails(signatures: list[bytes] | None) -> None:
            raise ValueError("a bug")

        rig.signer.sign(prepared(1), fails)
        rig.sign(2)
        await rig.settled()

        rig.check(2)
        assert rig.signer.waiting == 0
        [problem] = loop.problems
        assert str(problem["exception"]) == "a bug"
        loop.problems.clear()


@swiftly
async def test_close(loop: SwiftLoop, tmp_path: Path):
    """After the end nobody is told anything."""
    rig = Rig(loop, tmp_path, 2)
    await rig.start()
    rig.sign(*range(100))
    await rig.settled()

    await rig.signer.close()
    await rig.settled()

    assert rig.done == {}
    assert all(not helper.wires for helper in rig.helpers)
    for helper in rig.helpers:
        helper.die()

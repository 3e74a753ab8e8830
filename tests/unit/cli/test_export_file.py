"""The file of an export: what was written is read back, and nothing damaged is taken for sound."""

import contextlib
import gzip
import tarfile
from pathlib import Path

import pytest

from mta.cli.export_file import FORMAT, ExportFileError, ExportReader, ExportWriter, Header
from mta.model import envelope as envelopes
from mta.model.envelope import Envelope, Recipient
from mta.reporting.moved_mail import MovedItem, MovedRecipient

HEADER = Header(FORMAT, "old.test", 1_750_000_000.0, "--all")


def item(number: int, content: bytes = b"Subject: x\r\n\r\nhello\r\n") -> MovedItem:
    addresses = [f"a{number}@x.test", f'"b c"{number}@x.test']
    envelope = Envelope(
        f"m{number}",
        "news@shop.test",
        [Recipient(address, "x.test") for address in addresses],
        1_749_999_000.5,
        len(content),
        priority=7,
        tenant="shop",
        campaign="spring",
        pool="slow",
        send_at_s=1_749_999_900.0,
        expire_s=3_600.0,
        cause_id="m0",
    )
    recipients = [
        MovedRecipient(addresses[0], "x.test", 1_750_000_300.25, True, 3, "451 later", 0, b"\x93\x00\xff"),
        MovedRecipient(addresses[1], "x.test", part=4),
    ]
    encoded = envelopes.encode(envelope)
    return MovedItem(
        envelope.id, envelope.sender, recipients, envelope.received_s, encoded, len(content), content, 9, 1
    )


def written(path: Path, *items: MovedItem) -> Path:
    with ExportWriter(path) as writer:
        writer.begin(HEADER)
        for each in items:
            writer.add(each)
        writer.finish(1_750_000_001.0)
    return path


def read(path: Path) -> list[MovedItem]:
    reader = ExportReader(path)
    try:
        found = list(reader.items())
        assert reader.is_whole
        assert reader.header == HEADER
        return found
    finally:
        reader.close()


def test_what_was_written_is_read(tmp_path: Path) -> None:
    """All of it: envelope, times, attempts, notes, content of any bytes; also compressed."""
    items = [item(1), item(2, b""), item(3, bytes(range(256)) * 41)]
    path = written(tmp_path / "x.tar", *items)
    packed = tmp_path / "x.tar.gz"
    packed.write_bytes(gzip.compress(path.read_bytes()))

    assert read(path) == items
    assert read(packed) == items
    assert not (tmp_path / "x.tar.part").exists()


def test_any_tar_can_look_into_it(tmp_path: Path) -> None:
    """A message is a file that mail programs open."""
    path = written(tmp_path / "x.tar", item(1))
    with tarfile.open(path) as archive:
        assert archive.getnames() == ["export.json", "000001-m1.json", "000001-m1.eml", "end.json"]
        content = archive.extractfile("000001-m1.eml")
        assert content is not None
        assert content.read() == b"Subject: x\r\n\r\nhello\r\n"


def test_no_flipped_byte_goes_unseen(tmp_path: Path) -> None:
    """Wherever it is: an error, or an item less, never another item than was written."""
    items = [item(1), item(2)]
    path = written(tmp_path / "x.tar", *items)
    sound = path.read_bytes()
    damaged = tmp_path / "damaged.tar"
    for at in range(0, len(sound) - 1024, 61):
        damaged.write_bytes(sound[:at] + bytes([sound[at] ^ 0x20]) + sound[at + 1 :])
        found: list[MovedItem] = []
        with contextlib.suppress(ExportFileError), contextlib.closing(ExportReader(damaged)) as reader:
            for each in reader.items():
                found.append(each)  # noqa: PERF402 - what came before the error counts
        assert found == items[: len(found)], at


@pytest.mark.parametrize("share", [0.0, 0.1, 0.3, 0.5, 0.7, 0.9, 1.0])
def test_a_file_that_was_cut_off_says_so(tmp_path: Path, share: float) -> None:
    """What is whole in it is given, then comes the error."""
    path = written(tmp_path / "x.tar", item(1), item(2))
    data = path.read_bytes()
    path.write_bytes(data[: int(data.rindex(b"end.json") * share)])
    with pytest.raises(ExportFileError):
        read(path)


def test_what_is_no_export_is_refused(tmp_path: Path) -> None:
    """Also what a newer version wrote."""
    path = tmp_path / "x"
    path.write_bytes(b"hello")
    with pytest.raises(ExportFileError, match="no export"):
        ExportReader(path)
    newer = tmp_path / "newer.tar"
    with ExportWriter(newer) as writer:
        writer.begin(Header(FORMAT + 1, "", 0.0, ""))
        writer.finish(0.0)
    with pytest.raises(ExportFileError, match="newer version"):
        ExportReader(newer)


def test_no_file_is_overwritten(tmp_path: Path) -> None:
    """It may be the only copy of somebody's mail."""
    path = written(tmp_path / "x.tar", item(1))
    with pytest.raises(FileExistsError):
        ExportWriter(path)
    assert read(path) == [item(1)]


def test_what_was_broken_off_has_not_its_name(tmp_path: Path) -> None:
    """It lies beside it, for somebody to look at."""
    path = tmp_path / "x.tar"

    def broken_off() -> None:
        with ExportWriter(path) as writer:
            writer.begin(HEADER)
            writer.add(item(1))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        broken_off()
    assert [each.name for each in tmp_path.iterdir()] == ["x.tar.part"]

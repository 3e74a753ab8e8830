"""An export's file: messages that waited, to go on on another server. A tar archive, so that any tool can look into it.

    export.json               what it is, from which server, when
    000001-ID.json            sender, recipients with due time and attempts, the envelope, a checksum of both parts
    000001-ID.eml             the content as it is stored: CRLF, not dot-stuffed
    ...
    end.json                  how many there are; an archive without it was cut off

It is written beside its name and gets it when all of it is on stable storage.
"""

import hashlib
import os
import tarfile
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import msgspec

from mta.model import envelope as envelopes
from mta.model.envelope import Envelope, Recipient
from mta.reporting.moved_mail import MovedItem, MovedRecipient

FORMAT = 1
HEADER_NAME, END_NAME = "export.json", "end.json"
META_BYTES_MAX = 64 << 20  # of one item: a thousand recipients have some hundred kilobytes
_SEAL = b',"sha256":"'
_BLOCK = 512


class ExportFileError(Exception):
    """The file is not what it should be; the text says what is wrong."""


class Header(msgspec.Struct, frozen=True):
    """`export.json`."""

    format: int
    hostname: str
    """Of the server that it is from."""
    created_s: float
    """Unix seconds."""
    selection: str
    about: str = "mail that waited in a queue of mta; see docs/guide/operations.md"


class _End(msgspec.Struct, frozen=True):
    messages: int
    recipients: int
    content_bytes: int


class _Item(msgspec.Struct, frozen=True):
    """`NUMBER-ID.json`, but for its checksum."""

    id: str
    sender: str
    recipients: list[MovedRecipient]
    received_s: float
    size: int
    worker: int
    seq: int
    envelope: dict[str, Any]
    """The other fields of the envelope by their names."""


class ExportWriter:
    """Writes one; as a context manager: where the block fails the unfinished file stays as `NAME.part`."""

    def __init__(self, path: Path) -> None:
        """Raises OSError, FileExistsError where there is such a file."""
        if path.exists():
            raise FileExistsError(17, "it is there already; an export never overwrites a file", str(path))
        self.path = path
        self.part = path.with_name(path.name + ".part")
        self._file = self.part.open("wb")
        self.messages = self.recipients = self.content_bytes = 0

    def begin(self, header: Header) -> None:
        """Say what it is."""
        self._put(HEADER_NAME, msgspec.json.format(msgspec.json.encode(header)) + b"\n", header.created_s)

    def add(self, item: MovedItem) -> None:
        """One item with all of its content."""
        assert len(item.content) == item.size, "in one piece"
        self.messages += 1
        self.recipients += len(item.recipients)
        self.content_bytes += item.size
        name = f"{self.messages:06}-{item.id}"
        self._put(f"{name}.json", _encoded(item), item.received_s)
        self._put(f"{name}.eml", item.content, item.received_s)

    def _put(self, name: str, data: bytes, time_s: float) -> None:
        info = tarfile.TarInfo(name)
        info.size, info.mtime, info.mode = len(data), int(time_s), 0o600
        self._file.write(info.tobuf(tarfile.GNU_FORMAT))
        self._file.write(data)
        self._file.write(bytes(-len(data) % _BLOCK))

    def finish(self, now_s: float) -> None:
        """All of it is on stable storage and has its name. Raises OSError."""
        end = _End(self.messages, self.recipients, self.content_bytes)
        self._put(END_NAME, msgspec.json.encode(end) + b"\n", now_s)
        self._file.write(bytes(2 * _BLOCK))
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        os.link(self.part, self.path)  # not over one that came meanwhile
        self.part.unlink()
        directory = os.open(self.path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)

    def __enter__(self) -> Self:
        os.chmod(self.part, 0o600)  # it is mail
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()


def _encoded(item: MovedItem) -> bytes:
    envelope = envelopes.decode(item.envelope)
    fields = {
        name: msgspec.to_builtins(getattr(envelope, name))
        for name in Envelope.__struct_fields__
        if name not in ("id", "sender", "recipients", "received_s", "size")
    }
    told = _Item(item.id, item.sender, item.recipients, item.received_s, item.size, item.worker, item.seq, fields)
    text = msgspec.json.encode(told)[:-1]
    return text + _SEAL + _digest(text, item.content) + b'"}\n'


def _digest(text: bytes, content: bytes) -> bytes:
    digest = hashlib.sha256(text)
    digest.update(content)
    return digest.hexdigest().encode()


class ExportReader:
    """Reads one from its beginning to its end, also a compressed one. Raises ExportFileError, OSError."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.is_whole = False
        """The end was met, and all was there."""
        self._file = path.open("rb")
        try:
            self._tar = tarfile.open(fileobj=self._file, mode="r|*")  # noqa: SIM115 - closed by `close`
            first = self._tar.next()
            data = self._read(first) if first is not None and first.name == HEADER_NAME else b""
            self.header = msgspec.json.decode(data, type=Header)
        except (tarfile.TarError, EOFError, msgspec.DecodeError) as error:
            self._file.close()
            raise ExportFileError(f"{path} is no export of mta: {error}") from None
        if self.header.format > FORMAT:
            self._file.close()
            raise ExportFileError(f"{path} was written by a newer version of mta")

    def close(self) -> None:
        """Nothing more is read."""
        self._file.close()

    def items(self) -> Iterator[MovedItem]:
        """Item after item; where one is damaged those before it were sound."""
        count = recipients = content_bytes = 0
        try:
            while (info := self._tar.next()) is not None:
                if info.name == END_NAME:
                    end = msgspec.json.decode(self._read(info), type=_End)
                    if end != _End(count, recipients, content_bytes):
                        raise ExportFileError(f"{self.path}: some of its {end.messages} messages are missing")
                    self.is_whole = True
                    return
                text = self._read(info)
                after = self._tar.next()
                if not info.name.endswith(".json") or after is None or after.name != info.name[:-5] + ".eml":
                    raise ExportFileError(f"{self.path}: {info.name} is not followed by its content")
                item = _decoded(text, self._read(after), f"{self.path}: {info.name}")
                count += 1
                recipients += len(item.recipients)
                content_bytes += item.size
                yield item
        except (tarfile.TarError, EOFError, msgspec.DecodeError) as error:
            raise ExportFileError(f"{self.path} is damaged or cut off after {count} messages: {error}") from None
        raise ExportFileError(f"{self.path} is cut off after {count} messages")

    def _read(self, info: tarfile.TarInfo) -> bytes:
        if info.name.endswith(".json") and info.size > META_BYTES_MAX:
            raise ExportFileError(f"{self.path}: {info.name} has {info.size} bytes")
        file = self._tar.extractfile(info)
        data = file.read() if file is not None else b""
        if len(data) != info.size:
            raise EOFError("it ends within a message")
        return data


def _decoded(text: bytes, content: bytes, where: str) -> MovedItem:
    body, found, seal = text.rpartition(_SEAL)
    if not found or _digest(body, content) != seal.rstrip()[:-2]:
        raise ExportFileError(f"{where}: its checksum is wrong")
    try:
        told = msgspec.json.decode(body + b"}", type=_Item)
        recipients = [Recipient(each.address, each.domain) for each in told.recipients]
        known = {name: value for name, value in told.envelope.items() if name in Envelope.__struct_fields__}
        envelope = Envelope(told.id, told.sender, recipients, told.received_s, told.size, **known)
        encoded = envelopes.encode(envelope)
        envelopes.decode(encoded)
    except (msgspec.DecodeError, TypeError) as error:
        raise ExportFileError(f"{where}: it is not understood: {error}") from None
    return MovedItem(
        told.id, told.sender, told.recipients, told.received_s, encoded, told.size, content, told.seq, told.worker
    )

"""Zip archives, member by member while they stream by, within the bounds that hold for every compressed object."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import polars as pl

from tasks.core.detectors.tables import METADATA, SNIFF_BYTES, Batch, Leaf, Source, Unread, format_of
from tasks.core.detectors.unpacking import Expansion, UnpackError, packing_of

MAX_MEMBERS = 10_000
_MAX_DIRECTORY_BYTES = 8 * 1024 * 1024
_END = b"PK\x05\x06"
_END_BYTES = 65_535 + 22
_ENCRYPTED = 1
_INSIDE = ("csv", "jsonl", "json", "text", "pickle", "npy")
"""What is looked into inside an archive: what can be read from its beginning to its end."""

_BROKEN = (zipfile.BadZipFile, zipfile.LargeZipFile, NotImplementedError, ValueError, OSError, EOFError, RuntimeError)


@dataclass(frozen=True)
class Member(Source):
    """One member of an archive; its bytes come from `opened`, each time from the beginning."""

    opened: Callable[[], Iterator[bytes]] = lambda: iter(())

    def pieces(self) -> Iterator[bytes]:
        """Its content. Raises `UnpackError` when it cannot or may not be unpacked."""
        return self.opened()


def members(source: Source) -> Iterator[Member | Batch | Unread]:
    """The members that can be read, a batch with all their names, and what is not looked into."""
    try:
        if _directory_bytes(source) > _MAX_DIRECTORY_BYTES:
            yield Unread(f"a zip archive with a directory of more than {_MAX_DIRECTORY_BYTES // 1024**2} MiB")
            return
        archive = zipfile.ZipFile(source.ranged())
    except _BROKEN as error:
        yield Unread(f"a zip archive that is broken ({type(error).__name__})")
        return
    listed = [info for info in archive.infolist() if not info.is_dir()]
    if len(listed) > MAX_MEMBERS:
        yield Unread(f"a zip archive with more than {MAX_MEMBERS} members", count=len(listed))
        return
    numbered = re.compile(r"[0-9]+\.npy") if source.suffix == ".skops" else None  # Places in memory, as names.
    listed_names = [info.filename for info in listed if not (numbered and numbered.fullmatch(info.filename))]
    notes = [archive.comment.decode(errors="replace")]
    notes += listed_names + [info.comment.decode(errors="replace") for info in listed]
    yield Batch(0, 0, (Leaf(METADATA, pl.Series(METADATA, [note for note in notes if note], dtype=pl.String)),))
    expansion = Expansion(source.entry.size_bytes)
    for info in listed:
        if info.flag_bits & _ENCRYPTED:
            yield Unread("an encrypted member of a zip archive")
            continue
        try:
            member = _member(source, archive, info, expansion)
        except UnpackError as error:
            yield Unread(str(error))
            continue
        kind, why = format_of(member)
        if packing_of(member.head) or kind not in _INSIDE:
            yield Unread(f"{why or kind} inside a zip archive, which is not looked into")
        elif info.file_size:
            yield member


def _member(source: Source, archive: zipfile.ZipFile, info: zipfile.ZipInfo, expansion: Expansion) -> Member:
    def opened() -> Iterator[bytes]:
        try:
            with archive.open(info) as stream:
                yield from expansion.counted(stream)
        except _BROKEN as error:
            raise UnpackError(f"a member of a zip archive that is broken ({type(error).__name__})") from error

    head = next(opened(), b"")[:SNIFF_BYTES]
    # Of another size than its head, so that a reader asks for the pieces.
    entry = replace(source.entry, path=info.filename, size_bytes=max(info.file_size, len(head) + 1))
    return Member(source.store, source.uri, entry, head, opened=opened)


def _directory_bytes(source: Source) -> int:
    """How large the archive says its directory is; what it cannot say is for `zipfile` to refuse."""
    end = source.ranged().at(max(0, source.entry.size_bytes - _END_BYTES), _END_BYTES)
    at = end.rfind(_END)
    return int.from_bytes(end[at + 12 : at + 16], "little") if at >= 0 else 0

"""A full disk ends a move with one sentence that names it and leaves nothing half-written; with room it goes on."""

from __future__ import annotations

import tempfile
from collections import deque
from dataclasses import replace
from pathlib import Path

import pytest

from tasks.core.detectors.ranged import RangedFile
from tasks.core.errors import LintasError, Terminal
from tasks.core.manifest import SCHEMA
from tasks.core.plane.stream import StreamPlane
from tasks.core.rows import Rows, batches_of
from tasks.core.scratch import spooled
from tasks.records import Records
from tests.conformance.stores import MIB, unfinished_uploads
from tests.faults.conftest import MakeTrial, fill, small_disk
from tests.memory_store import MemoryStore


@pytest.mark.parametrize("name", ["onprem", "staging"])
def test_the_disk_of_the_destination(trial: MakeTrial, tmp_path: Path, name: str) -> None:
    move = trial("onprem", "onprem", (100, 3 * MIB, 9 * MIB))
    with small_disk(tmp_path / "disk", 32 * MIB) as disk:
        move.far = replace(move.far, name=name, options={"root": str(disk)})
        _, destination = move.stores()
        destination.create_bucket()
        ballast = fill(disk, leave_bytes=8 * MIB)
        with pytest.raises(Terminal, match=rf"the disk of {name}://.* is full; free or add space"):
            move.move(StreamPlane())

        there = {info.key: info.size_bytes for info in destination.list("out/")}
        assert there.items() <= {move.target.key(path): len(content) for path, content in move.content.items()}.items()
        assert unfinished_uploads(replace(move.far, name="onprem"), move.bucket, "") == []
        ballast.unlink()
        move.move(StreamPlane())

        assert move.differing() == []


@pytest.mark.parametrize("leave_bytes", [0, 8192, 40_960, 131_072])
def test_the_disk_of_the_records(tmp_path: Path, leave_bytes: int) -> None:
    with small_disk(tmp_path / "disk", 4 * MIB) as disk:
        ballast = fill(disk, leave_bytes=leave_bytes)
        with pytest.raises(LintasError, match="the disk is full; free some space"):
            _begin_uploads(disk, 400)

        ballast.unlink()
        _begin_uploads(disk, 1)


def test_the_disk_for_temporary_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with small_disk(tmp_path / "disk", 2 * MIB) as disk:
        monkeypatch.setattr(tempfile, "tempdir", str(disk))
        with pytest.raises(Terminal, match=f"the disk of {disk} is full; free or add space"):
            _spool(disk, pieces=100)
        with pytest.raises(Terminal, match=f"the disk of {disk} is full; free or add space"):
            # What was written is in the interpreter's own buffer until it is looked at.
            _spool(disk, pieces=1, full=True)


def test_the_disk_that_listings_and_scans_spill_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = MemoryStore()
    info = store.put("large", [bytes(40 * MIB)], size_bytes=40 * MIB)
    batches = batches_of(SCHEMA, ((f"{at:0100}", at, "ab" * 32, "v", None, None) for at in range(20_000)))
    with small_disk(tmp_path / "disk", 2 * MIB) as disk:
        monkeypatch.setattr(tempfile, "tempdir", str(disk))
        with pytest.raises(Terminal, match=f"the disk of {disk} is full; free or add space"):
            RangedFile(store, info.key, info.version, info.size_bytes).hold(0, 8 * MIB)
        rows = Rows(SCHEMA, in_memory_rows=0)
        with pytest.raises(Terminal, match=f"the disk of {disk} is full; free or add space"):
            deque(map(rows.append, batches), maxlen=0)


def _spool(disk: Path, *, pieces: int, full: bool = False) -> None:
    with spooled(in_memory_bytes=10) as file:
        file.write(b"x" * 11)
        if full:
            fill(disk, leave_bytes=0)
        for _ in range(pieces):
            file.write(b"x" * 100_000)
        file.seek(0)


def _begin_uploads(disk: Path, count: int) -> None:
    with Records(disk / "records.sqlite") as records:
        for number in range(count):
            records.uploads.begun("aws", "bucket", f"key-{number}", f"upload-{number}" * 50, "content")

"""The journal of uploads in parts: what was begun and not ended, with what has arrived."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import cast

import pytest

from tasks.core.dataset import PULLS_PREFIX, DatasetURI
from tasks.core.plane.parts import resumable
from tasks.core.ports import Direct, SentPart
from tasks.records import Records
from tasks.uploads import NotedUploads
from tests.memory_store import MemoryStore

ONE = SentPart(1, 8, "tag-1", "proof-1", "d" * 64)
TWO = SentPart(2, 3, "tag-2", "proof-2", "e" * 64)
PLACE = ("aws", "raw", "lake/a")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "records.sqlite"


def test_an_upload_is_known_with_its_parts_until_it_has_ended(path: Path) -> None:
    with Records(path) as records:
        records.uploads.begun(*PLACE, "u1", "content")
        records.uploads.part_sent(*PLACE, "u1", TWO)
        records.uploads.part_sent(*PLACE, "u1", ONE)
    with Records(path) as records:
        (upload,) = records.uploads.open("aws", "raw", "lake/")
        assert (upload.key, upload.upload_id, upload.content, upload.parts) == ("lake/a", "u1", "content", (ONE, TWO))
        records.uploads.ended(*PLACE, "u1")
        assert records.uploads.open("aws", "raw", "") == []


def test_the_folder_of_a_pulling_job_is_no_upload_that_another_plane_gives_up(path: Path) -> None:
    class Signer:
        """Any request to the store would fail here."""

    store, root = MemoryStore("aws", "lake"), f"{PULLS_PREFIX}0123/"
    with Records(path) as records:
        records.uploads.begun("aws", "lake", "flights/a.csv", root, "")

        assert resumable((), cast("Direct", Signer()), store, records.uploads, "flights/") == {}
        assert [upload.upload_id for upload in records.uploads.open("aws", "lake", "flights/")] == [root]


def test_a_prefix_is_compared_letter_by_letter(path: Path) -> None:
    with Records(path) as records:
        for key in ("lake_/a", "lakeX/a", "lake%/a"):
            records.uploads.begun("aws", "raw", key, "u", "c")
        assert [upload.key for upload in records.uploads.open("aws", "raw", "lake_/")] == ["lake_/a"]
        assert records.uploads.open("google", "raw", "") == []


def test_a_records_file_of_before_gets_the_tables(path: Path) -> None:
    Records(path).close()
    with sqlite3.connect(path) as connection:
        connection.executescript("DROP TABLE uploads; DROP TABLE upload_parts")
    with Records(path) as records:
        records.uploads.begun(*PLACE, "u1", "content")
        assert len(records.uploads.open("aws", "raw", "")) == 1


def test_another_machine_knows_what_a_lost_one_had_begun(tmp_path: Path) -> None:
    store, uri = MemoryStore("aws", "raw"), DatasetURI("aws", "raw", "lake")
    with Records(tmp_path / "one.sqlite") as one, Records(tmp_path / "two.sqlite") as two:
        lost, other = (NotedUploads(records.uploads, store, uri) for records in (one, two))
        lost.begun(*PLACE, "u1", "content")
        lost.part_sent(*PLACE, "u1", ONE)
        (mine,), (found,) = (each.open("aws", "raw", "lake/") for each in (lost, other))
        assert (mine.parts, found.parts) == ((ONE,), ())
        assert (found.key, found.upload_id, found.content) == ("lake/a", "u1", "content")
        other.ended(*PLACE, "u1")
        assert other.open("aws", "raw", "lake/") == []
        assert store.objects == {}

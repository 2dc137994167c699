"""What a scoring host takes in: the model that was named, whole, and nothing outside of its directory."""

from __future__ import annotations

import asyncio
import errno
import io
import tarfile
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from tasks.core.errors import IntegrityError, Invalid, Terminal
from tasks.core.evaluation import model_digest
from tasks.providers._dialects.scoring import plain_reason
from tasks.providers.onprem.scoring.models import Models

CANARY = "budi.santoso@example.com"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    directory = tmp_path / "model"
    (directory / "data").mkdir(parents=True)
    (directory / "MLmodel").write_text("flavors: {}")
    (directory / "data" / "weights").write_bytes(b"w" * 5000)
    return directory


@pytest.fixture
def models(tmp_path: Path) -> Models:
    return Models(tmp_path / "kept", limit_bytes=50_000)


def archive(fill: Callable[[tarfile.TarFile], None], mode: str = "w") -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as tar:
        fill(tar)
    return buffer.getvalue()


def of(directory: Path) -> bytes:
    return archive(lambda tar: tar.add(directory, arcname="."))


def member(name: str, *, kind: bytes = tarfile.REGTYPE, target: str = "", size: int = 0) -> bytes:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size = kind, target, size
    return archive(lambda tar: tar.addfile(info, io.BytesIO(b"x" * size)))


def receive(models: Models, digest: str, body: bytes, piece_bytes: int = 1000) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for start in range(0, len(body), piece_bytes):
            yield body[start : start + piece_bytes]

    asyncio.run(models.receive(digest, pieces()))


def left_in(directory: Path) -> list[str]:
    return sorted(path.relative_to(directory).as_posix() for path in directory.rglob("*") if path.is_file())


def test_a_model_is_kept_under_its_digest(models, model):
    digest = model_digest(model)
    assert not models.holds(digest)
    receive(models, digest, of(model))
    assert models.holds(digest)
    assert model_digest(models.path(digest)) == digest


def test_the_same_model_twice_is_one(models, model, tmp_path):
    digest = model_digest(model)
    receive(models, digest, of(model))
    receive(models, digest, of(model))
    assert [path.name for path in (tmp_path / "kept").iterdir()] == [digest]


def test_a_model_with_another_digest_than_stated_is_not_kept(models, model, tmp_path):
    with pytest.raises(IntegrityError, match="another digest"):
        receive(models, "a" * 64, of(model))
    assert list((tmp_path / "kept").iterdir()) == []


@pytest.mark.parametrize(
    ("body", "complaint"),
    [
        (member("../outside"), "outside of its directory"),
        (member("/tmp/outside"), "outside of its directory"),
        (member("a/../../outside"), "outside of its directory"),
        (member("link", kind=tarfile.SYMTYPE, target="/etc/passwd"), "link or a device"),
        (member("link", kind=tarfile.LNKTYPE, target="../outside"), "link or a device"),
        (member("pipe", kind=tarfile.FIFOTYPE), "link or a device"),
        (member("device", kind=tarfile.CHRTYPE), "link or a device"),
        (b"not a tar at all" * 100, "plain tar"),
        # It holds the time it was made, which is no name for a test.
        pytest.param(archive(lambda tar: tar.addfile(tarfile.TarInfo("a")), mode="w:gz"), "plain tar", id="gzip"),
        (member("big", size=60_000), "larger than this host takes"),
    ],
)
def test_a_hostile_or_broken_archive_is_refused_and_leaves_nothing(models, tmp_path, body, complaint):
    with pytest.raises(Invalid, match=complaint):
        receive(models, "a" * 64, body)
    assert left_in(tmp_path) == []


def test_an_archive_that_is_cut_off_is_refused(models, model, tmp_path):
    with pytest.raises((Invalid, IntegrityError)):
        receive(models, model_digest(model), of(model)[:3000])
    assert left_in(tmp_path / "kept") == []


def test_a_full_disk_is_said_to_be_full(models, model, monkeypatch):
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(tarfile.TarFile, "extractall", full)
    with pytest.raises(Terminal, match="disk of the scoring host is full"):
        receive(models, model_digest(model), of(model))


@pytest.mark.parametrize("digest", ["", "..", "../../etc", "A" * 64, "a" * 63])
def test_a_digest_that_is_none_names_no_place(models, digest):
    with pytest.raises(Invalid, match="64 hexadecimal"):
        models.path(digest)


def test_what_is_not_needed_and_what_was_never_finished_goes_when_a_host_starts(models, model, tmp_path):
    digest = model_digest(model)
    receive(models, digest, of(model))
    (tmp_path / "kept" / ".incoming-x").mkdir()
    again = Models(tmp_path / "kept", limit_bytes=50_000)
    assert [path.name for path in (tmp_path / "kept").iterdir()] == [digest]
    again.keep_only({digest})
    assert again.holds(digest)
    again.keep_only(set())
    assert not again.holds(digest)


@pytest.mark.parametrize(
    ("said", "told"),
    [
        (f"Failed to predict data '{CANARY}'. \nError: Model is missing inputs ['a', 'b'].", "['a', 'b']"),
        (f"Can not safely convert `str` to `int` for value `{CANARY}`", "does not fit the model's signature"),
        (f"Invalid input. Failed to convert column a to type 'float64'. Error: '{CANARY}'", "column a to type"),
        (f"Ensure that input is a valid JSON formatted string. Input: \n{CANARY}", "not JSON"),
        (CANARY, "does not fit the model's signature"),
    ],
)
def test_a_reason_names_the_signature_and_no_value(said, told):
    assert told in plain_reason(said)
    assert CANARY not in plain_reason(said)
    assert "\n" not in plain_reason(said)

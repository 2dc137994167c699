"""What is particular about a directory as an object store: links, full disks, killed writers, other programs."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import textwrap
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tasks.core.cloud import CloudConfig
from tasks.core.errors import Invalid, NotFound, PreconditionFailed
from tasks.core.ports import Store
from tasks.providers.onprem.store import open_store


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "root"
    root.mkdir()
    return root


@pytest.fixture
def store(root: Path) -> Store:
    store = open_store(CloudConfig("site", "onprem", options={"root": str(root)}), "raw")
    store.create_bucket()
    return store


def put(store: Store, key: str, content: bytes, **conditions: str | bool) -> str:
    return store.put(key, [content], size_bytes=len(content), **conditions).version  # type: ignore[arg-type]


def read(store: Store, key: str) -> bytes:
    return b"".join(store.get(key))


def test_an_object_is_a_plain_file_and_a_plain_file_is_an_object(store: Store, root: Path) -> None:
    put(store, "a/b.txt", b"ours")
    (root / "raw/a/c.txt").write_bytes(b"theirs")

    assert (root / "raw/a/b.txt").read_bytes() == b"ours"
    assert read(store, "a/c.txt") == b"theirs"
    assert sorted(info.key for info in store.list("a/")) == ["a/b.txt", "a/c.txt"]


@pytest.mark.parametrize(
    "key",
    ["../outside", "a/../../outside", "..", "/etc/passwd", "a//b", "./a", "a/", "", "nul\0", ".lintas-partial/lock"],
)
def test_a_key_that_is_no_path_inside_the_bucket_is_refused(store: Store, root: Path, key: str) -> None:
    for call in (
        lambda: put(store, key, b"x"),
        lambda: read(store, key),
        lambda: store.head(key),
        lambda: store.delete(key),
    ):
        with pytest.raises(Invalid):
            call()
    assert not (root / "outside").exists()


def test_a_symbolic_link_is_never_followed(store: Store, root: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_bytes(b"secret")
    (root / "raw/directory").symlink_to(outside)
    (root / "raw/file").symlink_to(outside / "secret")

    for call in (
        lambda: read(store, "directory/secret"),
        lambda: read(store, "file"),
        lambda: put(store, "directory/new", b"x"),
        lambda: put(store, "file", b"x"),
        lambda: list(store.list("")),
        lambda: list(store.list("directory/")),
    ):
        with pytest.raises(Invalid, match="symbolic link"):
            call()
    assert (outside / "secret").read_bytes() == b"secret"
    assert [path.name for path in outside.iterdir()] == ["secret"]


def test_a_bucket_that_is_a_symbolic_link_is_refused(store: Store, root: Path, tmp_path: Path) -> None:
    (root / "linked").symlink_to(tmp_path)
    linked = open_store(CloudConfig("site", "onprem", options={"root": str(root)}), "linked")

    with pytest.raises(Invalid, match="symbolic link"):
        list(linked.list(""))


def test_a_key_below_an_object_or_above_one_is_refused(store: Store) -> None:
    put(store, "a", b"x")
    put(store, "b/c", b"x")

    with pytest.raises(Invalid, match="both an object and objects below its key"):
        put(store, "a/below", b"x")
    with pytest.raises(Invalid, match="both an object and objects below its key"):
        put(store, "b", b"x")
    with pytest.raises(Invalid, match="both an object and objects below its key"):
        put(store, "b", b"x", if_absent=True)
    with pytest.raises(NotFound):
        store.head("b")


def test_a_directory_goes_with_its_last_object(store: Store, root: Path) -> None:
    put(store, "a/b/c", b"x")
    put(store, "a/d", b"x")

    store.delete("a/b/c")
    assert [path.name for path in (root / "raw/a").iterdir()] == ["d"]
    store.delete("a/d")
    put(store, "a", b"now an object")

    assert read(store, "a") == b"now an object"


def test_every_write_has_a_version_of_its_own(store: Store) -> None:
    versions = [put(store, "k", b"same size") for _ in range(200)]

    assert len(set(versions)) == len(versions)


def test_of_the_writers_over_a_version_one_wins_round_after_round(store: Store) -> None:
    rounds, writers = 100, 4
    start = threading.Barrier(writers)
    versions = [put(store, f"{number}", b"before") for number in range(rounds)]

    def win(_: int) -> int:
        won = 0
        for number, version in enumerate(versions):
            start.wait()
            with contextlib.suppress(PreconditionFailed):
                put(store, f"{number}", b"after!", if_version=version)
                won += 1
        return won

    with ThreadPoolExecutor(writers) as pool:
        assert sum(pool.map(win, range(writers))) == rounds


def test_a_file_that_another_program_writes_into_while_it_is_read_is_not_passed_off_as_whole(
    store: Store, root: Path
) -> None:
    put(store, "k", b"1" * 3_000_000)
    pieces = store.get("k")
    next(pieces)
    with (root / "raw/k").open("r+b") as file:
        file.write(b"2" * 3_000_000)

    with pytest.raises(PreconditionFailed):
        list(pieces)


def test_a_root_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    store = open_store(CloudConfig("site", "onprem", options={"root": str(tmp_path / "mount")}), "raw")

    with pytest.raises(NotFound, match=r"mount it, or correct clouds\.site\.options\.root"):
        store.create_bucket()


def test_what_a_killed_writer_leaves_behind_is_invisible_and_removed_by_the_next_one(store: Store, root: Path) -> None:
    writer = run_python(
        f"""
        import sys, time
        from tasks.core.cloud import CloudConfig
        from tasks.providers.onprem.store import open_store
        def body():
            yield b"x" * 1000
            print("writing", flush=True)
            time.sleep(60)
        store = open_store(CloudConfig("site", "onprem", options={{"root": {str(root)!r}}}), "raw")
        store.put("k", body(), size_bytes=2000)
        """
    )
    assert writer.stdout is not None
    assert writer.stdout.readline() == b"writing\n"
    partials = root / "raw/.lintas-partial"

    put(store, "while-it-writes", b"x")
    assert len(list(partials.iterdir())) == 2  # The lock and what is being written.
    os.kill(writer.pid, signal.SIGKILL)
    writer.wait()
    assert [info.key for info in store.list("")] == ["while-it-writes"]
    successor = open_store(CloudConfig("site", "onprem", options={"root": str(root)}), "raw")
    put(successor, "after", b"x")

    assert [path.name for path in partials.iterdir()] == ["lock"]


def test_a_full_disk_says_which_and_leaves_nothing(tmp_path: Path) -> None:
    """A disk of two MiB in a mount namespace of its own, where the system lets an ordinary user have one."""
    disk = tmp_path / "disk"
    disk.mkdir()
    code = f"""
        from tasks.core.cloud import CloudConfig
        from tasks.core.errors import Terminal
        from tasks.providers.onprem.store import open_store
        store = open_store(CloudConfig("site", "onprem", options={{"root": {str(disk)!r}}}), "raw")
        store.create_bucket()
        try:
            store.put("large", [b"x" * 1_000_000] * 4, size_bytes=4_000_000)
        except Terminal as error:
            print(error)
        print([info.key for info in store.list("")])
        store.put("small", [b"x" * 1_000_000], size_bytes=1_000_000)
        """
    mount = f"mount -t tmpfs -o size=2m tmpfs {disk} && exec "
    process = run_python(code, before=("unshare", "-Urm", "sh", "-c", mount + '"$@"', "sh"))
    output, errors = process.communicate(timeout=60)
    if b"unshare" in errors or b"mount:" in errors:
        pytest.skip("this system lets nobody have a mount namespace")

    assert process.returncode == 0, errors.decode()
    message, listing = output.decode().splitlines()
    assert message == f"the disk of site://raw ({disk}) is full; free or add space, then run it again."
    assert listing == "[]"


def run_python(code: str, before: tuple[str, ...] = ()) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    command = [*before, sys.executable, "-c", textwrap.dedent(code)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)

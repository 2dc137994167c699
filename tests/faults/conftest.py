"""What the trials of the mover share: two real stores, a dataset, a gate that clears it, and an independent reader."""

from __future__ import annotations

import hashlib
import os
import subprocess
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import pytest

from deployments.local.object_stores import console_script
from tasks.core.cloud import CloudConfig
from tasks.core.dataset import DatasetURI
from tasks.core.errors import LintasError
from tasks.core.listing import read_manifest
from tasks.core.plane import Plane
from tasks.core.planning import plan_transfer
from tasks.core.ports import Journal, Store
from tasks.core.privacy import Cleared, VerdictKey
from tasks.core.transfer import Receipt, copy
from tests.conformance.stores import MIB, open_store, pointed_at, put, random_bytes, unfinished_uploads
from tests.memory_store import MemoryJournal
from tests.servers import ObjectClouds, rclone_environment

KEY = VerdictKey("test", b"k" * 32)


@dataclass
class Trial:
    """A move of one dataset from one cloud to another, as often as it takes."""

    near: CloudConfig
    far: CloudConfig
    bucket: str
    content: dict[str, bytes]
    journal: Journal = field(default_factory=MemoryJournal)
    failed_runs: int = 0

    @property
    def source(self) -> DatasetURI:
        return DatasetURI(self.near.name, self.bucket, "in")

    @property
    def target(self) -> DatasetURI:
        return DatasetURI(self.far.name, self.bucket, "out")

    def stores(self) -> tuple[Store, Store]:
        return open_store(self.near, self.bucket), open_store(self.far, self.bucket)

    def prepare(self) -> Trial:
        near, far = self.stores()
        for store in (near, far):
            store.create_bucket()
        for path, content in self.content.items():
            put(near, self.source.key(path), content)
        return self

    def move(self, plane: Plane, near: CloudConfig | None = None, far: CloudConfig | None = None) -> Receipt:
        """One run, through other ways to the same clouds if told."""
        source = open_store(near or self.near, self.bucket)
        destination = open_store(far or self.far, self.bucket)
        honest, far_honest = self.stores()
        manifest = read_manifest(honest, self.source, self.journal)
        present = read_manifest(far_honest, self.target, self.journal, trust_labels=True)
        plan = plan_transfer(self.source, manifest, self.target, present)
        verdict = KEY.sign(
            Cleared(
                manifest.digest,
                manifest.digest,
                "p" * 64,
                self.target,
                "EU",
                (),
                0,
                len(manifest),
                datetime.now(UTC),
                keeps_labels=True,
            )
        )
        return copy(plan, verdict, KEY, source, destination, self.journal, plane=plane)

    def move_until_done(self, plane: Callable[[], Plane], attempts: int = 4, **ways: CloudConfig) -> Receipt:
        """Run again as long as a run fails for a reason that Lintas names."""
        for _ in range(attempts - 1):
            try:
                return self.move(plane(), **ways)
            except LintasError:
                self.failed_runs += 1
        return self.move(plane())

    def digests_by_rclone(self, cloud: CloudConfig, prefix: str) -> dict[str, str]:
        """SHA-256 of every object below the prefix, as an independent client reads them."""
        name = cloud.name
        environment = {**rclone_environment(cloud), f"RCLONE_CONFIG_{name.upper()}_ENCODING": "None"}
        command = [console_script("rclone"), "hashsum", "sha256", "--download"]
        command += ["--exclude", ".lintas/**", f"{name}:{self.bucket}/{prefix}"]
        done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True, timeout=120)
        return {path: digest for digest, path in (line.split("  ", 1) for line in done.stdout.splitlines())}

    def digest(self, path: str) -> str:
        """SHA-256 of an object as it must be; '' where there must be none."""
        return hashlib.sha256(self.content[path]).hexdigest() if path in self.content else ""

    def differing(self) -> list[str]:
        """The paths that the far side lacks, has with other bytes, or should not have."""
        there = self.digests_by_rclone(self.far, "out")
        return [path for path in sorted(there.keys() | self.content) if there.get(path) != self.digest(path)]

    def require_identical(self) -> None:
        """The far side is the near side, byte for byte, and nothing else."""
        assert self.differing() == []

    def require_clean(self) -> None:
        """No upload is under way, and no part of one lies about."""
        assert unfinished_uploads(self.far, self.bucket, "") == []
        if self.far.name == "google":
            assert [info.key for info in open_store(self.far, self.bucket).list(".lintas/uploads/")] == []


@contextmanager
def small_disk(folder: Path, size_bytes: int) -> Iterator[Path]:
    """A file system of its own and of this size. Skips the test where nobody may mount one."""
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size_bytes}", "tmpfs", str(folder)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("only root may mount a small file system")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(disk: Path, *, leave_bytes: int) -> Path:
    """A file that leaves so many bytes on a disk, rounded down to whole pages."""
    ballast = disk / "ballast"
    facts = os.statvfs(disk)
    with ballast.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, max(1, facts.f_bavail * facts.f_frsize - leave_bytes))
    return ballast


MakeTrial = Callable[..., Trial]


@pytest.fixture
def trial(object_clouds: ObjectClouds) -> MakeTrial:
    """Makes a trial between two clouds, with a dataset of small and large objects unless told another."""

    def make(near: str, far: str, sizes_bytes: Sequence[int] = (0, 1, 300_000, 8 * MIB, 20 * MIB + 1)) -> Trial:
        content = {f"a/{number:04}-größe {size}": random_bytes(size) for number, size in enumerate(sizes_bytes)}
        bucket = f"mover-{uuid.uuid4().hex[:8]}"
        return Trial(object_clouds[near], object_clouds[far], bucket, content).prepare()

    return make


__all__ = ["KEY", "MakeTrial", "Trial", "fill", "pointed_at", "small_disk"]

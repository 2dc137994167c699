"""The stub stores: compiled once, one process an end of a pair."""

from __future__ import annotations

import base64
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from awscrt import checksums

from deployments.local.ports import free_ports
from deployments.local.processes import HOST, Process, port_ready
from tasks.core.cloud import CloudConfig, Secret
from tasks.core.dataset import ContentHasher

SOURCE = Path(__file__).with_name("stub.c")
_ZEROS = bytes(1024 * 1024)
_AZURE_KEY = base64.b64encode(b"k" * 64).decode()


@dataclass(frozen=True, slots=True)
class Content:
    """The objects of a source: so many of so many zero bytes each."""

    count: int
    size_bytes: int

    def pieces(self) -> Iterator[bytes]:
        """One object's content."""
        left = self.size_bytes
        while left:
            piece = _ZEROS[: min(left, len(_ZEROS))]
            left -= len(piece)
            yield piece

    def digest(self) -> str:
        """One object's content digest."""
        hasher = ContentHasher()
        for piece in self.pieces():
            hasher.update(piece)
        return hasher.hexdigest()

    def crc32c(self) -> str:
        """One object's CRC32C, as Cloud Storage writes it."""
        value = 0
        for piece in self.pieces():
            value = checksums.crc32c(piece, value)
        return base64.b64encode(value.to_bytes(4, "big")).decode()


def compiled(build: Path) -> Path:
    """The program, made anew when its source is newer."""
    program = build / "mover-stub"
    if not program.exists() or program.stat().st_mtime < SOURCE.stat().st_mtime:
        build.mkdir(exist_ok=True)
        subprocess.run(["cc", "-O2", "-pthread", "-o", program, SOURCE], check=True)  # noqa: S607
    return program


@contextmanager
def stub(program: Path, dialect: str, content: Content, log: Path) -> Iterator[CloudConfig]:
    """A running stub, as the cloud that it stands for."""
    (port,) = free_ports(1)
    probe = base64.b64encode(checksums.crc64nvme(b"?").to_bytes(8, "little")).decode()
    arguments = [dialect, str(port), str(content.count), str(content.size_bytes), content.crc32c(), probe]
    process = Process(f"stub-{dialect}", [str(program), *arguments], ready=port_ready(port), log=log, port=port)
    process.start()
    try:
        process.wait_ready()
        yield cloud(dialect, f"http://{HOST}:{port}")
    finally:
        process.stop()


def cloud(dialect: str, url: str) -> CloudConfig:
    """The configuration of a cloud of this dialect at this address."""
    if dialect == "s3":
        secrets = {"access_key_id": "bench", "secret_access_key": "bench-secret"}
        return CloudConfig("aws", "aws", "us-east-1", "US", {"objects": url}, _secrets(secrets), {"addressing": "path"})
    if dialect == "gcs":
        return CloudConfig(
            "google", "google", "EU", "EU", {"objects": url}, _secrets({"token": "t"}), {"project": "bench"}
        )
    return CloudConfig(
        "azure", "azure", "SG", "SG", {"objects": f"{url}/bench"}, _secrets({"account_key": _AZURE_KEY}),
        {"account": "bench"},
    )  # fmt: skip


def _secrets(values: dict[str, str]) -> dict[str, Secret]:
    return {name: Secret(f"bench:{name}", lambda _, value=value: value) for name, value in values.items()}

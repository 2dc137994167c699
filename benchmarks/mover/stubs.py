"""The stub stores: compiled once, one process an end of a pair."""

from __future__ import annotations

import base64
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from awscrt import checksums
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

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


@dataclass(frozen=True, slots=True)
class Program:
    """The compiled stub.

    Args:
        path: The executable.
        certificate: What it presents, with its key, when it speaks TLS; it is its own authority. None for plain HTTP.
    """

    path: Path
    certificate: Path | None

    @property
    def scheme(self) -> str:
        """Of its URLs."""
        return "http" if self.certificate is None else "https"


def compiled(build: Path, *, tls: bool) -> Program:
    """The program, made anew when its source is newer; for TLS OpenSSL's headers are needed."""
    path = build / ("mover-stub-tls" if tls else "mover-stub")
    if not path.exists() or path.stat().st_mtime < SOURCE.stat().st_mtime:
        build.mkdir(exist_ok=True)
        extra = ["-DTLS", "-lssl", "-lcrypto"] if tls else []
        subprocess.run(["cc", "-O2", "-pthread", "-o", path, SOURCE, *extra], check=True)  # noqa: S607
    return Program(path, certificate(build) if tls else None)


def certificate(build: Path) -> Path:
    """A certificate for this machine alone, signed by itself, with its key in the same file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "mover benchmark")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=7))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address(HOST))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = build / "mover-stub.pem"
    path.touch(mode=0o600)
    path.write_bytes(
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()) + made.public_bytes(Encoding.PEM)
    )
    return path


@contextmanager
def stub(program: Program, dialect: str, content: Content, log: Path, delay_ms: int = 0) -> Iterator[CloudConfig]:
    """A running stub, as the cloud that it stands for; every request waits `delay_ms` there."""
    (port,) = free_ports(1)
    probe = base64.b64encode(checksums.crc64nvme(b"?").to_bytes(8, "little")).decode()
    arguments = [
        dialect,
        str(port),
        str(content.count),
        str(content.size_bytes),
        content.crc32c(),
        probe,
        str(delay_ms),
    ]
    if program.certificate is not None:
        arguments.append(str(program.certificate))
    process = Process(f"stub-{dialect}", [str(program.path), *arguments], ready=port_ready(port), log=log, port=port)
    process.start()
    try:
        process.wait_ready()
        yield cloud(dialect, f"{program.scheme}://{HOST}:{port}")
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

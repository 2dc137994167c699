"""Credentials of the local twin: random, others for each cloud, each secret in a file that only its owner reads."""

from __future__ import annotations

import base64
import json
import os
import secrets
from collections.abc import Callable
from pathlib import Path


def access_key_id() -> str:
    """An access key id of the S3 dialect: 20 characters."""
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"
    return "AKIA" + "".join(secrets.choice(alphabet) for _ in range(16))


def token() -> str:
    """A secret of 256 bits, safe in headers and URLs."""
    return secrets.token_urlsafe(32)


def fernet_key() -> str:
    """A key of Fernet: 32 random bytes in URL-safe base64."""
    return base64.urlsafe_b64encode(secrets.token_bytes(32)).decode()


def account_key() -> str:
    """A storage account key of Azure: 64 random bytes in base64."""
    return base64.b64encode(secrets.token_bytes(64)).decode()


def account_name() -> str:
    """A storage account name of Azure: lower-case letters and digits, at most 24."""
    return "lintas" + secrets.token_hex(4)


Make = Callable[[], str]


class SecretFiles:
    """A directory of secrets, one file each with mode 0600, made when first asked for and kept from then on.

    Args:
        directory: Where they lie; created with mode 0700.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)

    def path(self, name: str, make: Make) -> Path:
        """The file that holds the secret; `make` supplies it the first time."""
        path = self.directory / name
        if not path.exists():
            self.write(name, make())
        return path

    def text(self, name: str, make: Make) -> str:
        """The secret itself."""
        return self.path(name, make).read_text()

    def write(self, name: str, content: str) -> Path:
        """Put `content` into the file `name`, replacing it as a whole."""
        unfinished = self.directory / f".{name}.new"
        descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(content)
        return unfinished.replace(self.directory / name)

    def s3_identities(self, name: str, access_key: str, secret_key: str) -> Path:
        """SeaweedFS's `-s3.config`: one administrator, so that every other key is refused."""
        identity = {
            "name": name,
            "credentials": [{"accessKey": access_key, "secretKey": secret_key}],
            "actions": ["Admin", "Read", "Write", "List", "Tagging"],
        }
        return self.write(f"{name}_identities.json", json.dumps({"identities": [identity]}))

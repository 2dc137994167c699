"""Sessions of Amazon's SDK, which read its descriptions of services once a process."""

from __future__ import annotations

import functools
import gzip
import json
from pathlib import Path
from typing import Any

import boto3
import botocore.session
from botocore.loaders import JSONFileLoader, Loader

from tasks.core.cloud import CloudConfig


def core_session() -> botocore.session.Session:
    """What a session of the SDK is built on; for those who change something about it before."""
    core = botocore.session.get_session()
    core.register_component("data_loader", _service_models())
    return core


def session_of(config: CloudConfig, core: botocore.session.Session | None = None) -> boto3.Session:
    """A session with the credentials and the region of a cloud.

    Args:
        config: The cloud; without credentials in it the SDK looks for some in its own places.
        core: A `core_session` that was changed; None: a new one.

    Raises:
        Denied: A credential's reference leads nowhere.
    """
    secrets = {name: secret.reveal() for name, secret in config.credentials.items()}
    return boto3.Session(
        botocore_session=core or core_session(),
        aws_access_key_id=secrets.get("access_key_id"),
        aws_secret_access_key=secrets.get("secret_access_key"),
        aws_session_token=secrets.get("session_token"),
        region_name=config.region or None,
    )


@functools.cache
def _service_models() -> Loader:
    """To read a service's description takes a fifth of a second, more than all else about a client: not once each."""
    return Loader(file_loader=_Descriptions())


class _Descriptions(JSONFileLoader):
    """Reads descriptions as plain dictionaries: the SDK's own kind takes several megabytes more for that of S3."""

    def load_file(self, file_path: str) -> Any:
        """The content of a file that is named without its ending; None when there is none."""
        for path, opened in ((Path(f"{file_path}.json"), open), (Path(f"{file_path}.json.gz"), gzip.open)):
            if path.is_file():
                with opened(path, "rb") as file:
                    return json.load(file)
        return None

"""Who Lintas is to Google Cloud, for every service of it."""

from __future__ import annotations

import json
from collections.abc import Sequence

import google.auth
from google.auth.credentials import Credentials
from google.oauth2 import credentials as oauth2
from google.oauth2 import service_account

from tasks.core.cloud import CloudConfig
from tasks.core.errors import Invalid


def google_credentials(config: CloudConfig, scopes: Sequence[str]) -> Credentials:
    """The credentials that a cloud's configuration describes; `tasks.providers.google` says how.

    Args:
        config: The cloud.
        scopes: What a service account's token shall be good for; a token that was given is what it is.

    Raises:
        Invalid: The service account's key cannot be read.
        Denied: A credential's reference leads nowhere.
        google.auth.exceptions.DefaultCredentialsError: There are none in the environment; callers translate it.
    """
    if "token" in config.credentials:
        return oauth2.Credentials(token=config.credentials["token"].reveal().strip())
    if "service_account_file" in config.credentials:
        key = config.credentials["service_account_file"].reveal().strip()
        try:
            if key.startswith("{"):
                return service_account.Credentials.from_service_account_info(json.loads(key), scopes=scopes)
            return service_account.Credentials.from_service_account_file(key, scopes=scopes)
        except (OSError, ValueError) as error:
            raise Invalid(
                f"clouds.{config.name}.credentials.service_account_file is not a service account's key",
                "point it at the key file that Google Cloud made",
            ) from error
    credentials, _project = google.auth.default(scopes=scopes)
    return credentials

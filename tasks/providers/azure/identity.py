"""Who Lintas is to Azure: to a storage account by its key or a signature, and to everything by Microsoft Entra."""

from __future__ import annotations

import time
from typing import Any

from azure.core.credentials import AccessToken, AzureNamedKeyCredential, AzureSasCredential, TokenCredential

from tasks.core.cloud import CloudConfig
from tasks.core.errors import Invalid

_PRINCIPAL = ("tenant_id", "client_id", "client_secret")
_TOKEN_LIFE_S = 300

StorageCredential = AzureNamedKeyCredential | AzureSasCredential | TokenCredential


def storage_credential(config: CloudConfig, endpoint: str, role: str) -> StorageCredential:
    """The credential for a storage account: its key, a shared access signature, or an Entra identity.

    Args:
        config: The cloud.
        endpoint: Where it will be used.
        role: The endpoint's role in `lintas.yaml`.

    Raises:
        Invalid: A token would travel in the clear, or what `entra_credential` raises.
        Denied: A credential's reference leads nowhere.
    """
    if "account_key" in config.credentials:
        return AzureNamedKeyCredential(config.option("account"), config.credentials["account_key"].reveal().strip())
    if "sas_token" in config.credentials:
        return AzureSasCredential(config.credentials["sas_token"].reveal().strip())
    credential = entra_credential(config)
    if not endpoint.startswith("https://"):
        raise Invalid(
            f"clouds.{config.name}.endpoints.{role} would carry a token over the network in the clear",
            "write it with https, or set an account_key",
        )
    return credential


def entra_credential(config: CloudConfig) -> TokenCredential:
    """The credential that a cloud's configuration describes.

    `credentials`: `token` (one that was fetched already), or `tenant_id`, `client_id` and `client_secret` of a service
    principal; without either, `azure.identity`'s default: environment, workload or managed identity, Azure CLI.

    Raises:
        Invalid: `azure-identity` is needed and not installed, or a service principal is described in part.
        Denied: A credential's reference leads nowhere.
    """
    if "token" in config.credentials:
        return _GivenToken(config.credentials["token"].reveal().strip())
    given = [name for name in _PRINCIPAL if name in config.credentials]
    if given and len(given) < len(_PRINCIPAL):
        absent = next(name for name in _PRINCIPAL if name not in given)
        raise Invalid(f"clouds.{config.name}.credentials.{absent} is missing", "set all three of a service principal")
    try:
        from azure import identity  # pyright: ignore[reportAttributeAccessIssue]
    except ImportError as error:
        raise Invalid(
            f"{config.name} has no credentials that need no further package",
            f"set account_key (objects) and token (Azure ML) under clouds.{config.name}.credentials, "
            "or install azure-identity",
        ) from error
    if given:
        return identity.ClientSecretCredential(*(config.credentials[name].reveal().strip() for name in _PRINCIPAL))
    return identity.DefaultAzureCredential()


class _GivenToken:
    """A token that somebody else fetched; whoever fetched it sees to it that it is valid."""

    def __init__(self, token: str) -> None:
        self._token = token

    def get_token(self, *scopes: str, **_: Any) -> AccessToken:
        """The token, whatever the scopes; asked for again after five minutes."""
        del scopes
        return AccessToken(self._token, int(time.time()) + _TOKEN_LIFE_S)

    def __repr__(self) -> str:
        return "<a token>"

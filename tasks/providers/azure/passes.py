"""What lets requests to one container through.

With an account's key the SDK signs the container for an hour at a time (a shared access signature); otherwise requests
carry the configured signature or a token.
"""

from __future__ import annotations

import threading
import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from azure.core.credentials import AzureNamedKeyCredential, AzureSasCredential
from azure.storage.blob import ContainerSasPermissions, generate_container_sas

from tasks.providers._dialects.objects import Pass, Place
from tasks.providers.azure.errors import translated
from tasks.providers.azure.identity import StorageCredential

if TYPE_CHECKING:
    from azure.core.credentials import TokenCredential

_SIGNED_FOR_S = 3600
_SCOPE = "https://storage.azure.com/.default"


class Passes:
    """Passes for a container, made anew before they expire. Safe to use from several threads.

    Args:
        credential: Who asks.
        place: The container.
    """

    def __init__(self, credential: StorageCredential, place: Place) -> None:
        self._credential = credential
        self._place = place
        self._signature = ("", 0.0)
        self._signing = threading.Lock()

    def __call__(self) -> Pass:
        """The pass of the next request. Raises `Denied` where no token is to be had."""
        if isinstance(self._credential, (AzureNamedKeyCredential, AzureSasCredential)):
            return Pass(self._shared_signature(self._credential))
        return Pass(headers={"Authorization": f"Bearer {self._token(self._credential)}"})

    def _shared_signature(self, credential: AzureNamedKeyCredential | AzureSasCredential) -> str:
        if isinstance(credential, AzureSasCredential):
            return credential.signature.lstrip("?")
        signature, renewed_at = self._signature
        if time.monotonic() < renewed_at:
            return signature
        with self._signing:
            signature = generate_container_sas(
                str(credential.named_key.name),
                self._place.bucket,
                account_key=credential.named_key.key,
                permission=ContainerSasPermissions(read=True, write=True, create=True, tag=True, list=True),
                # Clocks differ by minutes.
                start=datetime.now(UTC) - timedelta(minutes=15),
                expiry=datetime.now(UTC) + timedelta(seconds=_SIGNED_FOR_S),
            )
            self._signature = (signature, time.monotonic() + _SIGNED_FOR_S / 2)
        return signature

    def _token(self, credential: TokenCredential) -> str:
        text, renewed_at = self._signature
        if time.monotonic() < renewed_at:
            return text
        with self._signing, translated(self._place):
            token = credential.get_token(_SCOPE)
            self._signature = (token.token, time.monotonic() + max(0.0, (token.expires_on - time.time()) / 2))
        return token.token

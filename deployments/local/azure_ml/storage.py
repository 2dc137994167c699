"""Where a workspace's URIs lead: the containers of its one storage account."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

from azure.core.exceptions import AzureError

from deployments.local.azure_ml.refusals import Refused, invalid
from deployments.local.object_access import BlobAccess, download_tree, upload_tree

_WASBS = re.compile(r"wasbs://([^@/]+)@([^./]+)\.blob\.core\.windows\.net/(.*)")
_DATASTORE = re.compile(r"azureml://(?:.+/)?datastores/([^/]+)/paths/(.*)")


class Storage:
    """Brings folders to the machine and back.

    Args:
        access: The account.
        account: Its name.
        default_container: Container of the datastore `workspaceblobstore`.
    """

    def __init__(self, access: BlobAccess, account: str, default_container: str) -> None:
        self._access, self.account, self.default_container = access, account, default_container

    def locate(self, uri: str) -> tuple[str, str]:
        """Container and prefix of a folder's URI, the prefix with a slash at its end. Raises `Refused`."""
        if found := _WASBS.fullmatch(uri):
            container, account, prefix = found.groups()
            if account != self.account:
                raise invalid(f"DataAccessError(NotFound): the storage account '{account}' does not exist.")
        elif found := _DATASTORE.fullmatch(uri):
            datastore, prefix = found.groups()
            if datastore != "workspaceblobstore":
                raise invalid(f"The datastore '{datastore}' was not found.")
            container = self.default_container
        else:
            raise invalid(f"'{uri}' is not a supported path.")
        return container, f"{prefix.strip('/')}/" if prefix.strip("/") else ""

    async def download(self, uri: str, into: Path, *, may_be_empty: bool = False) -> None:
        """Bring a folder into a directory. Raises `Refused` when there is nothing there, or it cannot be read."""
        container, prefix = self.locate(uri)
        try:
            count = await asyncio.to_thread(download_tree, self._access, container, prefix, into)
        except AzureError as error:
            raise Refused(400, "UserError", f"DataAccessError({type(error).__name__}): {uri}") from error
        if not count and not may_be_empty:
            raise Refused(400, "UserError", f"DataAccessError(NotFound): {uri}")

    async def upload(self, source: Path, uri: str) -> None:
        """Write a directory's files to a folder. Raises `Refused` when it cannot be written."""
        container, prefix = self.locate(uri)
        try:
            await asyncio.to_thread(upload_tree, self._access, source, container, prefix)
        except AzureError as error:
            raise Refused(400, "UserError", f"DataAccessError({type(error).__name__}): {uri}") from error

"""Vertex AI over REST: where it is, and what a job wrote.

https://cloud.google.com/vertex-ai/docs/reference/rest
"""

from __future__ import annotations

from collections.abc import Iterator

from tasks.core.cloud import CloudConfig
from tasks.core.errors import Invalid
from tasks.providers.google.rest import Json, Rest, page_token


class Vertex(Rest):
    """The API of one project in one region. Safe to use from several threads.

    Args:
        config: The cloud: `region` and `options.project` name the place, `endpoints.ROLE` another address.
        role: `training` or `serving`.

    Raises:
        Invalid: The region or the project is missing, or `options.request_timeout_s` is wrong.
        Denied: There are no credentials.
    """

    def __init__(self, config: CloudConfig, role: str) -> None:
        if not config.region:
            raise Invalid(f"clouds.{config.name}.region is missing", "set it to a region of Vertex AI in lintas.yaml")
        self.project = config.option("project")
        self.parent = f"projects/{self.project}/locations/{config.region}"
        public = f"https://{config.region}-aiplatform.googleapis.com"
        super().__init__(config, role, public=public, service="Vertex AI", api="aiplatform.googleapis.com")
        self._logging = (config.endpoint_or_public("logs") or "https://logging.googleapis.com").rstrip("/")

    def log_entries(self, query: str, what: str) -> Iterator[Json]:
        """The entries of Cloud Logging that a filter lets through, oldest first."""
        token = ""
        while True:
            body = {
                "resourceNames": [f"projects/{self.project}"],
                "filter": query,
                "orderBy": "timestamp asc",
                "pageSize": 1000,
                **page_token(token),
            }
            page = self.read(self.send("POST", f"{self._logging}/v2/entries:list", what, json=body))
            yield from page.get("entries", ())
            token = page.get("nextPageToken", "")
            if not token:
                return

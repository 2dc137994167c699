"""Types of flow parameters: they make the forms of the Prefect UI refuse what could not be meant."""

from typing import Annotated, Literal

from pydantic import Field

Dataset = Annotated[str, Field(pattern=r"^[a-z][a-z0-9+.-]*://[^/]+(/.*)?$")]
"""A dataset's URI: cloud://bucket/prefix."""

Clouds = Annotated[list[str], Field(min_length=1)]
"""Names of clouds of lintas.yaml; at least one."""

Words = Annotated[str, Field(min_length=1, pattern=r"\S")]
"""A text that says something."""

Seconds = Annotated[float, Field(gt=0, le=86_400)]
"""A duration in seconds, at most a day."""

Compare = Literal["digest", "listing"]
"""How a move finds out what is at its destination already."""

Compress = Literal["", "zstd"]
"""How a move compresses what is not compressed yet; nothing to leave it."""

Format = Literal["", "parquet"]
"""What a move makes of CSV and JSON lines; nothing to leave them."""

MbPerS = Annotated[float, Field(ge=0)]
"""A limit in 10^6 bytes a second; 0 for what lintas.yaml says."""

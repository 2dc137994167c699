"""What people see in the Prefect UI: tables and links of a run. Outside a flow run these do nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tasks.steps import in_flow


def show_table(key: str, rows: Sequence[Mapping[str, Any]], description: str) -> None:
    """A table artifact.

    Args:
        key: Lower-case letters, digits and dashes; later tables of the same key are its newer versions.
        rows: One mapping a row; nothing personal.
        description: Its headline.
    """
    if in_flow():
        from prefect.artifacts import create_table_artifact

        create_table_artifact(table=[dict(row) for row in rows], key=key, description=description)


def show_markdown(key: str, text: str) -> None:
    """A markdown artifact."""
    if in_flow():
        from prefect.artifacts import create_markdown_artifact

        create_markdown_artifact(markdown=text, key=key)


def show_link(key: str, url: str, text: str) -> None:
    """A link artifact."""
    if in_flow():
        from prefect.artifacts import create_link_artifact

        create_link_artifact(link=url, link_text=text, key=key)

"""How the suite is shared between processes (`pytest -n 2`): tests that need the same servers stay together.

A file's tests run in one process, and all that need the whole twin count as one file, so that it starts once. What
takes longest begins first.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

_WHOLE_TWIN = ("flows", "browser")
_SLOWEST_FIRST = (*_WHOLE_TWIN, "twin", "conformance", "faults", "properties", "unit")


def _folder(nodeid: str) -> str:
    parts = Path(nodeid.split("::", 1)[0]).parts
    return parts[1] if len(parts) > 2 else ""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    order = {name: place for place, name in enumerate(_SLOWEST_FIRST)}
    end_of_the_twin = len(_WHOLE_TWIN) - 0.5

    def place(item: pytest.Item) -> float:
        return end_of_the_twin if item.get_closest_marker("last") else order.get(_folder(item.nodeid), len(order))

    items.sort(key=place)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    from xdist.scheduler import LoadScopeScheduling

    class TogetherByServers(LoadScopeScheduling):
        """Hands out files, and the whole twin's folders as one."""

        def _split_scope(self, nodeid: str) -> str:
            folder = _folder(nodeid)
            return "the whole twin" if folder in _WHOLE_TWIN else nodeid.split("::", 1)[0]

    return TogetherByServers(config, log)

"""How the suite is shared between processes (`pytest -n 3`): tests that need the same servers stay together.

A file's tests run in one process. All that need the whole twin count as one file, so that it starts once; so do all
that need clouds that compute, whose doubles, and the models that they serve, take long to start. What takes longest
begins first, and the twin, which is never idle, ends with the last test that needs it.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import pytest

_WHOLE_TWIN = ("flows", "browser")
_SLOWEST_FIRST = (*_WHOLE_TWIN, "twin", "conformance", "faults", "properties", "unit")


def _folder(nodeid: str) -> str:
    parts = Path(nodeid.split("::", 1)[0]).parts
    return parts[1] if len(parts) > 2 else ""


@cache
def _computes(file: Path) -> bool:
    return "compute_clouds" in file.read_text()


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
        """Hands out files; those of the whole twin, and those of the clouds that compute, as one each."""

        def _split_scope(self, nodeid: str) -> str:
            file = nodeid.split("::", 1)[0]
            if _folder(nodeid) in _WHOLE_TWIN:
                return "the whole twin"
            return "clouds that compute" if _computes(config.rootpath / file) else file

    return TogetherByServers(config, log)

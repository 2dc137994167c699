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
_SLOWEST_FIRST = ("the whole twin", "clouds that compute")
_FILES_SLOWEST_FIRST = ("faults", "conformance", "twin", "properties", "unit")


def _folder(nodeid: str) -> str:
    parts = Path(nodeid.split("::", 1)[0]).parts
    return parts[1] if len(parts) > 2 else ""


@cache
def _computes(file: Path) -> bool:
    return "compute_clouds" in file.read_text()


def _unit(nodeid: str, root: Path) -> str:
    """What a test is handed out with: one of `_SLOWEST_FIRST`, or its file."""
    file = nodeid.split("::", 1)[0]
    if _folder(nodeid) in _WHOLE_TWIN:
        return "the whole twin"
    return "clouds that compute" if _computes(root / file) else file


def _place(item: pytest.Item) -> tuple[int, bool, int]:
    unit, last = _unit(item.nodeid, item.config.rootpath), item.get_closest_marker("last") is not None
    folders = [*_WHOLE_TWIN, *_FILES_SLOWEST_FIRST, _folder(item.nodeid)]
    within = folders.index(_folder(item.nodeid))
    return _SLOWEST_FIRST.index(unit) if unit in _SLOWEST_FIRST else len(_SLOWEST_FIRST), last, within


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=_place)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    from xdist.scheduler import LoadScopeScheduling

    class TogetherByServers(LoadScopeScheduling):
        """Hands out files; those of the whole twin, and those of the clouds that compute, as one each."""

        def _split_scope(self, nodeid: str) -> str:
            return _unit(nodeid, config.rootpath)

    return TogetherByServers(config, log)

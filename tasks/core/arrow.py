"""pyarrow for code that is checked strictly: it ships no type information, so its modules are `Any` here.

When Arrow first gets something that is not Arrow, a list or a text to compare with, it imports pandas to see whether it
may be of pandas: 34 to 50 MB and 0.4 s of a process that has no other use for it. It asks but once, so it is asked here
while pandas cannot be found, and asked again as soon as somebody else has loaded pandas.

What reads and writes files of tables is loaded by who imports it from here: a move has no use for it.
"""

from __future__ import annotations

import sys
import threading
from importlib import import_module
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import TYPE_CHECKING, Any

pa: Any = import_module("pyarrow")
compute: Any = import_module("pyarrow.compute")
json: Any = import_module("pyarrow.json")
ipc: Any = import_module("pyarrow.ipc")
if TYPE_CHECKING:
    csv: Any
    parquet: Any


def __getattr__(name: str) -> Any:
    if name in ("csv", "parquet"):
        return import_module(f"pyarrow.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


class _Pandas:
    """Hides pandas from a thread, then has Arrow know of it when it is loaded; a finder as `sys.meta_path` has them."""

    def __init__(self) -> None:
        self.hidden_from: int | None = threading.get_ident()

    def find_spec(self, name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        """Finds nothing but pandas; see the class."""
        del path, target
        if name != "pandas":
            return None
        if threading.get_ident() == self.hidden_from:
            raise ModuleNotFoundError("pandas is not needed here", name=name)
        spec = PathFinder.find_spec(name)
        loader: Any = spec and spec.loader
        if loader is not None:
            load = loader.exec_module

            def load_and_tell(module: ModuleType) -> None:
                load(module)
                # Arrow looks again for what it cannot do without.
                pa.nulls(0).to_pandas()

            loader.exec_module = load_and_tell
        return spec


def _know_no_pandas() -> None:
    pandas = _Pandas()
    sys.meta_path.insert(0, pandas)
    pa.array([None])
    pandas.hidden_from = None


if "pandas" not in sys.modules:
    _know_no_pandas()

"""pyarrow for code that is checked strictly: it ships no type information, so its modules are `Any` here."""

from __future__ import annotations

from importlib import import_module
from typing import Any

pa: Any = import_module("pyarrow")
compute: Any = import_module("pyarrow.compute")
csv: Any = import_module("pyarrow.csv")
json: Any = import_module("pyarrow.json")
parquet: Any = import_module("pyarrow.parquet")
ipc: Any = import_module("pyarrow.ipc")

"""What is particular to Azure ML, from `catalog.yaml`: its limits and timeouts."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any


@functools.cache
def quirks() -> Mapping[str, Any]:
    """The catalogue's part `quirks`."""
    import yaml

    return yaml.safe_load(Path(__file__).with_name("catalog.yaml").read_text())["quirks"]

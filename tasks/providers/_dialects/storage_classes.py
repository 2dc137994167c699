"""Storage classes: what each of a store's own means, by the table in its provider's `catalog.yaml`."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.core.attributes import HOT

if TYPE_CHECKING:
    from tasks.core.cloud import BucketConfig


@dataclass(frozen=True, slots=True)
class StorageClasses:
    """The classes of one bucket.

    Args:
        tiers: Tier by class.
        written: Class by tier, as it is asked for; what is hot is left to the bucket's own default unless
            `lintas.yaml` says otherwise.
        unreadable: Classes whose objects must be restored before they can be read.
    """

    tiers: Mapping[str, str]
    written: Mapping[str, str]
    unreadable: frozenset[str]

    def tier(self, storage_class: str | None) -> str:
        """The tier of a class; empty for one that the table does not name."""
        return self.tiers.get(storage_class or "", "")

    def class_of(self, tier: str) -> str:
        """The class to ask for; empty to ask for none."""
        return self.written.get(tier, "")


def storage_classes(catalog: Path, bucket: BucketConfig) -> StorageClasses:
    """The classes of a bucket.

    Args:
        catalog: The provider's `catalog.yaml`; `storage_classes` lists classes by tier, the first of each is what is
            written, and `unreadable_classes` those that cannot be read as they are.
        bucket: What `lintas.yaml` says of the bucket.
    """
    table = _table(catalog)
    listed: Mapping[str, list[str]] = table.get("storage_classes", {})
    written = {tier: classes[0] for tier, classes in listed.items() if tier != HOT}
    return StorageClasses(
        tiers={name: tier for tier, classes in listed.items() for name in classes},
        written={**written, **bucket.storage_classes},
        unreadable=frozenset(table.get("unreadable_classes", ())),
    )


@functools.cache
def _table(catalog: Path) -> Mapping[str, Any]:
    import yaml

    return yaml.safe_load(catalog.read_text())

"""What services that pull by jobs have in common: from where they may, and why one stays closed to a source."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tasks.core.cloud import CloudConfig
    from tasks.core.ports import Origin, Store

_FROM = "pull_from_"


def pulled_from(config: CloudConfig) -> list[str]:
    """The clouds that a cloud's service may fetch from by jobs, as its options name them; none while pulls are off."""
    if config.options.get("pulls", "").lower() != "true":
        return []
    return sorted(name.removeprefix(_FROM) for name in config.options if name.startswith(_FROM))


def closed_anyway(config: CloudConfig, bucket: str, source: Store, origin: Origin) -> str:
    """A reason that every such service has, in words; empty for none.

    Args:
        config: The cloud whose service pulls.
        bucket: Where it would write.
        source, origin: Where it would read, and how the service would name that.
    """
    if origin.elsewhere and "transfers" not in config.endpoints:
        return f"{source.cloud} is not where the service would look for it"
    particular = config.bucket(bucket)
    if particular.encryption_key or particular.requester_pays:
        return "the service writes with the bucket's own key and on the bucket's own bill alone"
    return ""

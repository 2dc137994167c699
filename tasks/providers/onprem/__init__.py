"""The hybrid case: a directory (a disk, a mount of the data centre's storage) as an object store.

`options.root` is the directory that holds the buckets; `options.watch` names those whose new files are events. No
credentials: the file system's permissions decide.
"""

from __future__ import annotations

from pathlib import Path

from tasks.core.cloud import Provider, lazily

PROVIDER = Provider(
    name="onprem",
    open_store=lazily("tasks.providers.onprem.store:open_store"),
    open_trainer=lazily("tasks.providers.onprem.trainer:open_trainer"),
    open_server=lazily("tasks.providers.onprem.server:open_server"),
    open_events=lazily("tasks.providers.onprem.events:open_events"),
    events_need=("watch",),
    catalog=Path(__file__).with_name("catalog.yaml"),
)

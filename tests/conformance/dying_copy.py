"""A process that is killed while its store copies an object in parts; its arguments come as JSON on standard input."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

from tasks.core.dataset import Entry
from tasks.core.plane import Load
from tasks.core.plane.server_side import ServerSidePlane
from tasks.providers._dialects.s3 import S3Store
from tasks.records import Records
from tests.conformance.stores import MIB, open_store
from tests.faults.mover_process import cloud_of


def main() -> None:
    work: dict[str, Any] = json.load(sys.stdin)
    source, store = (open_store(cloud_of(work["cloud"]), work[role]) for role in ("from", "to"))
    assert isinstance(store, S3Store)
    store.server_side.most_at_once_bytes = store.server_side.part_bytes = 5 * MIB

    def die(**_: object) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    store._client.meta.events.register("before-send.s3.UploadPartCopy", die)
    load = Load(Entry(*work["entry"]), work["source_key"], work["key"], None)
    with Records(Path(work["records"])) as records:
        plane = ServerSidePlane(uploads=records.uploads, key_prefix=work["prefix"])
        plane.carry([load], source, store, lambda _load, _item: None)


if __name__ == "__main__":
    main()

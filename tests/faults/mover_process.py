"""A process that moves one dataset and may be killed at any moment; its arguments come as JSON on standard input.

It prints one JSON line: the bytes that its receipt says were sent.
"""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tasks.core.cloud import CloudConfig, Secret
from tasks.core.dataset import CHUNK_BYTES, DatasetURI
from tasks.core.listing import read_manifest
from tasks.core.plane import Plane
from tasks.core.plane.direct import DirectPlane
from tasks.core.plane.routes import route_between
from tasks.core.plane.stream import StreamPlane
from tasks.core.planning import plan_transfer
from tasks.core.privacy import Cleared, VerdictKey
from tasks.core.transfer import copy
from tasks.records import Records
from tasks.registry import providers


def cloud_of(facts: dict[str, Any]) -> CloudConfig:
    secrets = {name: Secret(f"test:{name}", lambda _, value=value: value) for name, value in facts["secrets"].items()}
    return CloudConfig(
        facts["name"], facts["name"], facts["region"], "EU", facts["endpoints"], secrets, facts["options"]
    )


def facts_of(cloud: CloudConfig) -> dict[str, Any]:
    """The inverse of `cloud_of`, for the parent."""
    return {
        "name": cloud.name,
        "region": cloud.region,
        "endpoints": dict(cloud.endpoints),
        "secrets": {name: secret.reveal() for name, secret in cloud.credentials.items()},
        "options": dict(cloud.options),
    }


def main() -> None:
    work = json.load(sys.stdin)
    near, far = cloud_of(work["near"]), cloud_of(work["far"])
    way = cloud_of(work.get("near_way", work["near"]))
    source = DatasetURI(near.name, work["bucket"], "in")
    target = DatasetURI(far.name, work["bucket"], "out")
    key = VerdictKey("test", b"k" * 32)
    near_store, way_store, far_store = (
        providers()[cloud.provider].open_store(cloud, work["bucket"]) for cloud in (near, way, far)
    )
    with Records(Path(work["records"])) as records:
        manifest = read_manifest(near_store, source, records.journal)
        present = read_manifest(far_store, target, records.journal, trust_labels=True)
        plan = plan_transfer(source, manifest, target, present)
        digest = manifest.digest
        verdict = key.sign(Cleared(digest, digest, "p" * 64, target, "EU", (), 0, len(manifest), datetime.now(UTC)))
        print("copying", flush=True)
        plane: Plane
        if route_between(way_store, far_store) == "stream":
            plane = StreamPlane(uploads=records.uploads, key_prefix=target.key_prefix, in_flight=work["parts"])
        else:
            plane = DirectPlane(
                uploads=records.uploads,
                key_prefix=target.key_prefix,
                processes=work["processes"],
                budget_bytes=work["parts"] * CHUNK_BYTES,
            )
        receipt = copy(plan, verdict, key, way_store, far_store, records.journal, plane=plane)
    print(json.dumps({"bytes_sent": receipt.bytes_sent}), flush=True)


if __name__ == "__main__":
    main()

"""`python -m benchmarks.mover.sizes`: the peak memory of a move against the size of its dataset.

Prints a table in Markdown and writes build/bench-mover-sizes.json. The listing is held by Arrow, the objects go in
shards, as in a move; the measured process has the SDKs of both ends loaded. Peaks are sums over all of its processes.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from benchmarks.mover.__main__ import BUILD, MIB, Task, fresh, keep, run_ours
from benchmarks.mover.stubs import Content, compiled, stub

DATASETS = [
    Content(10, MIB),
    Content(8, 16 * MIB),
    Content(8, 128 * MIB),
    Content(160, 128 * MIB),
    Content(10, 1024),
    Content(1_000, 1024),
    Content(20_000, 1024),
    Content(200_000, 1024),
]
BUDGET_BYTES = 48 * MIB


def main() -> None:
    """Measure, print, write."""
    program = compiled(BUILD, tls=False)
    results: list[dict[str, Any]] = []
    print("| objects | of bytes | in all MB | s | peak MB |\n| --- | --- | --- | --- | --- |", flush=True)
    for content in DATASETS:
        with (
            tempfile.TemporaryDirectory() as logs,
            stub(program, "s3", content, Path(logs) / "near.log") as near,
            stub(program, "s3", content, Path(logs) / "far.log") as far,
        ):
            run = run_ours(near, far, fresh(), Task("sizes", content, 64, 64, []), BUDGET_BYTES)
        if run["objects"] != content.count:
            raise SystemExit(f"{run['objects']} of {content.count} objects arrived")
        total_mb = content.count * content.size_bytes / 1e6
        results.append({"objects": content.count, "size_bytes": content.size_bytes, **run})
        row = (f"{content.count:,}", f"{content.size_bytes:,}", f"{total_mb:,.1f}", f"{run['elapsed_s']:.1f}")
        print(f"| {' | '.join(row)} | {run['peak_bytes'] / 1e6:.0f} |", flush=True)
    keep("bench-mover-sizes", results)


if __name__ == "__main__":
    main()

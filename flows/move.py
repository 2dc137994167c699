"""Move a dataset between clouds: plan it, let the gate judge what will leave, copy, verify, receipt."""

import time

from prefect import flow

from flows.forms import Compare, Compress, Dataset, Format, MbPerS
from flows.moving import Moved, moved, options_of, prepare
from tasks.core.conversion import Conversion
from tasks.staging import staged_copies
from tasks.storage import copy_cleared


@flow(name="move", flow_run_name="move {source} -> {destination}")
def move(
    source: Dataset,
    destination: Dataset,
    policy: str = "",
    delete: bool = False,
    delete_limit: str = "10%",
    include: list[str] = [],
    exclude: list[str] = [],
    compare: Compare = "digest",
    compress: Compress = "",
    format: Format = "",
    limit_mb_per_s: MbPerS = 0,
) -> Moved:
    """Move a dataset from one cloud to another after the privacy gate has cleared it.

    Args:
        source: Where the dataset is, as cloud://bucket/prefix with a cloud of lintas.yaml.
        destination: Where it should be, in the same form. A missing bucket is created.
        policy: Name of a policy under policies_dir, or the path of a YAML file; empty for gate.policy of lintas.yaml.
        delete: Remove objects that only the destination has. Without it their presence refuses the move.
        delete_limit: How many of them at most: a number, or a share of what the destination holds.
        include: Only objects that match one of these patterns, such as *.parquet or raw/**; all without any.
        exclude: No objects that match one of these patterns.
        compare: By content digest; or by listing, which takes an object of the destination that nothing is known of
            for the same when it has the same size and was written no earlier. Those are named as assumed.
        compress: Compress what is not compressed yet on the way.
        format: What CSV and JSON lines become on the way.
        limit_mb_per_s: The most that may pass through the worker; 0 for what lintas.yaml says.
    """
    started = time.monotonic()
    conversion = Conversion.of(compress, format)
    options = options_of(delete, delete_limit, include, exclude, compare)
    with staged_copies():
        ready = prepare(source, destination, policy, options, conversion)
        receipt = copy_cleared(ready.plan, ready.verdict, limit_mb_per_s=limit_mb_per_s)
    return moved(ready, receipt, conversion, started)

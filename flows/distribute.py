"""Bring one dataset to several clouds at once, from one read of it."""

from typing import Annotated

from prefect import flow
from pydantic import Field

from flows.forms import Compare, Compress, Dataset, Format, MbPerS
from flows.moving import Moved, move_to_all, options_of
from tasks.core.conversion import Conversion
from tasks.core.errors import LintasError
from tasks.steps import say


@flow(name="distribute", flow_run_name="distribute {source}")
def distribute(
    source: Dataset,
    destinations: Annotated[list[Dataset], Field(min_length=1)],
    policy: str = "",
    delete: bool = False,
    delete_limit: str = "10%",
    include: list[str] = [],
    exclude: list[str] = [],
    compare: Compare = "digest",
    compress: Compress = "",
    format: Format = "",
    limit_mb_per_s: MbPerS = 0,
) -> list[Moved]:
    """Move a dataset to several destinations; each has its own verdict, lease and receipt, and fails alone.

    When one fails the others still get the dataset; the run then fails with the first one's reason, and the log names
    the rest. Run again, it moves only what is missing.

    Args:
        source: Where the dataset is, as cloud://bucket/prefix with a cloud of lintas.yaml.
        destinations: Where it should be, in the same form. Missing buckets are created.
        policy: Name of a policy under policies_dir, or the path of a YAML file; empty for gate.policy of lintas.yaml.
        delete: Remove objects that only a destination has. Without it their presence refuses the move there.
        delete_limit: How many of them at most: a number, or a share of what the destination holds.
        include: Only objects that match one of these patterns, such as *.parquet or raw/**; all without any.
        exclude: No objects that match one of these patterns.
        compare: By content digest, or by listing; see the flow `move`.
        compress: Compress what is not compressed yet on the way.
        format: What CSV and JSON lines become on the way.
        limit_mb_per_s: The most that may pass through the worker; 0 for what lintas.yaml says.
    """
    options = options_of(delete, delete_limit, include, exclude, compare)
    outcomes = move_to_all(source, destinations, policy, options, Conversion.of(compress, format), limit_mb_per_s)
    failed: list[LintasError] = []
    for destination, outcome in zip(destinations, outcomes, strict=True):
        if isinstance(outcome, LintasError):
            failed.append(outcome)
            say(f"{destination}: {outcome}")
    if failed:
        raise failed[0]
    return [outcome for outcome in outcomes if isinstance(outcome, Moved)]

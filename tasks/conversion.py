"""The conversion step: compress what leaves, or make Parquet of it, before the gate judges it."""

from __future__ import annotations

from dataclasses import replace

from tasks.core.conversion import Conversion
from tasks.core.policy import Policy
from tasks.privacy import Outgoing
from tasks.registry import installation
from tasks.staging import scan_copy, stage
from tasks.steps import say, step


@step(name="convert", retries=1, run_name="convert {outgoing.uri} to {conversion.label}")
def convert_outgoing(outgoing: Outgoing, conversion: Conversion, policy: Policy) -> Outgoing:
    """What would leave, converted on this side and scanned as it would leave; see `tasks.core.converters.convert`.

    Args:
        outgoing: What would leave as it is; a refusal stays one.
        conversion: What to make of it; nothing leaves it alone.
        policy: What is looked for in what comes of it, and how thoroughly.
    """
    if not conversion.label or outgoing.report is None:
        return outgoing
    from tasks.core.converters import convert

    here = installation()
    staged, store = stage("converted", f"{conversion.label}/{outgoing.manifest.digest[:32]}")
    made = convert(here.store_of(outgoing.uri), outgoing.uri, outgoing.manifest, conversion, store, staged)
    say(
        f"{outgoing.uri}: {outgoing.manifest.size_bytes:,} bytes became {made.size_bytes:,} bytes of {conversion.label}"
    )
    report = scan_copy(store, staged, made, policy)
    return replace(outgoing, uri=staged, manifest=made, report=report)

"""The conversion step: compress what leaves, or make Parquet of it, before the gate judges it."""

from __future__ import annotations

from dataclasses import replace

from tasks.core.conversion import Conversion, convert
from tasks.core.dataset import DatasetURI
from tasks.core.detectors.scan import scan
from tasks.privacy import Outgoing
from tasks.registry import STAGING, installation
from tasks.steps import say, step


@step(name="convert", retries=1, run_name="convert {outgoing.uri} to {conversion.label}")
def convert_outgoing(outgoing: Outgoing, conversion: Conversion) -> Outgoing:
    """What would leave, converted on this side and scanned as it would leave; see `tasks.core.conversion.convert`.

    Args:
        outgoing: What would leave as it is; a refusal stays one.
        conversion: What to make of it; nothing leaves it alone.
    """
    if not conversion.label or outgoing.report is None:
        return outgoing
    here = installation()
    staged = DatasetURI(STAGING, "converted", f"{conversion.label}/{outgoing.manifest.digest[:32]}")
    store = here.store_of(staged)
    store.create_bucket()
    made = convert(here.store_of(outgoing.uri), outgoing.uri, outgoing.manifest, conversion, store, staged)
    say(
        f"{outgoing.uri}: {outgoing.manifest.size_bytes:,} bytes became {made.size_bytes:,} bytes of {conversion.label}"
    )
    report = scan(store, staged, made, detection=outgoing.report.detection)
    return replace(outgoing, uri=staged, manifest=made, report=report)

"""The step that makes what leaves coarser until a policy's limits on anonymity hold, before the gate judges it."""

from __future__ import annotations

from dataclasses import replace

from tasks.artifacts import show_table
from tasks.core.policy import Policy
from tasks.privacy import Outgoing
from tasks.registry import installation
from tasks.staging import scan_copy, stage
from tasks.steps import say, step


@step(name="anonymise", retries=1, run_name="anonymise {outgoing.uri}")
def coarsen_outgoing(outgoing: Outgoing, policy: Policy) -> Outgoing:
    """What would leave, as coarse as the limits ask for, and scanned so; see `tasks.core.coarsening.coarsen`.

    Args:
        outgoing: What would leave as it is; a refusal stays one.
        policy: Without hierarchies in its `anonymity` nothing is done.
    """
    if outgoing.report is None or not any(rule.is_sought for rule in policy.anonymity):
        return outgoing
    from tasks.core.coarsening import coarsen

    here = installation()
    staged, store = stage("anonymised", f"{policy.digest[:16]}/{outgoing.manifest.digest[:32]}")
    made, done = coarsen(policy, here.store_of(outgoing.uri), outgoing.uri, outgoing.manifest, store, staged)
    if not done:
        return outgoing
    for each in done:
        levels = ", ".join(f"{name} {each.describe(name)}" for name in each.levels)
        say(f"{each.path}: {levels or 'as it is'}; {each.suppressed:,} of {each.rows:,} rows left out")
    facts = tuple(each.as_dict() for each in done)
    show_table("anonymity", facts, f"How coarse {outgoing.uri} becomes, and what is left out, so that its limits hold")
    report = scan_copy(store, staged, made, policy)
    return replace(outgoing, uri=staged, manifest=made, report=report, coarsened=facts)

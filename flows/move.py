"""Move a dataset between clouds: plan it, let the gate judge what will leave, copy, verify, receipt."""

import time
from dataclasses import dataclass

from prefect import flow

from tasks.core.errors import PolicyViolation
from tasks.core.privacy import Cleared, Refused
from tasks.core.transfer import Receipt
from tasks.privacy import judge, scan_dataset, treat
from tasks.registry import installation
from tasks.storage import copy_cleared, manifest_of, plan_move


@dataclass(frozen=True)
class Moved:
    """What a move did.

    Args:
        source_digest: The source's digest.
        receipt: What was sent; its digest is that of the destination, equal to the source's unless the policy
            made a pseudonymised copy.
        verdict: The clearance it travelled under.
        cost_usd: The plan's estimate of egress and requests.
        elapsed_s: Of the whole, with scan and verdict.
    """

    source_digest: str
    receipt: Receipt
    verdict: Cleared
    cost_usd: float
    elapsed_s: float


@flow(name="move", flow_run_name="move {source} -> {destination}")
def move(source: str, destination: str, policy: str = "flights", delete: bool = False) -> Moved:
    """Move a dataset from one cloud to another after the privacy gate has cleared it.

    Args:
        source: Where the dataset is, as cloud://bucket/prefix with a cloud of lintas.yaml.
        destination: Where it should be, in the same form. A missing bucket is created.
        policy: Name of a policy under policies_dir, or the path of a YAML file.
        delete: Remove objects that only the destination has. Without it their presence refuses the move.
    """
    started = time.monotonic()
    here = installation()
    origin, target, rules = here.parse(source), here.parse(destination), here.policy(policy)

    manifest = manifest_of(origin)
    report = scan_dataset(origin, manifest)
    outgoing = treat(origin, manifest, report, rules, target)
    verdict = judge(outgoing, rules, target)
    if isinstance(verdict, Refused):
        raise PolicyViolation(
            f"the policy '{policy}' refuses {origin} to {target}: {verdict.reasons[0]}",
            "change the data, the destination or the policy",
            reasons=verdict.reasons,
        )
    plan = plan_move(outgoing.uri, outgoing.manifest, target, charged_as=origin.cloud, delete=delete)
    receipt = copy_cleared(plan, verdict)
    return Moved(manifest.digest, receipt, verdict, plan.cost_usd, time.monotonic() - started)

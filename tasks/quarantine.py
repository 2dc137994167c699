"""Quarantine steps: keep back what a policy quarantines, list it, and release it for a reason that somebody types."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from tasks.artifacts import show_table
from tasks.core.audit import AuditKind
from tasks.core.dataset import DatasetURI
from tasks.core.errors import Invalid, NotFound
from tasks.core.findings import ScanReport
from tasks.core.held import Held, Listed
from tasks.core.policy import Policy
from tasks.registry import installation
from tasks.steps import flow_run_id, say, step

if TYPE_CHECKING:
    from tasks.core.manifest import Manifest
    from tasks.core.quarantine import Sifted

_NAMED = 100
"""How many objects an audit record names; it counts them all."""


@step(name="quarantine", retries=2, run_name="quarantine of {uri} for {destination}")
def set_apart(
    uri: DatasetURI, manifest: Manifest, report: ScanReport, policy: Policy, destination: DatasetURI
) -> Sifted:
    """Keep back the objects that the policy quarantines; see `tasks.core.quarantine.sift`.

    What stays is listed with its reasons until its content, the policy or a person's release changes that.
    """
    from tasks.core.quarantine import sift

    here = installation()
    released = here.records.quarantine.released(str(uri), policy.digest, str(destination))
    sifted = sift(
        policy,
        report,
        here.store_of(uri),
        uri,
        manifest,
        destination=destination,
        place=here.place(destination.cloud, source=uri),
        is_released=lambda item: item.entry in released,
    )
    new = here.records.quarantine.renew(uri, destination, sifted.held, manifest.selection)
    if new:
        facts = {"decision": "held", "policy": policy.digest, **_facts(new)}
        here.records.audit.append(AuditKind.QUARANTINE, f"{uri} -> {destination}", facts)
    if sifted.held:
        say(f"{len(sifted.held)} of {len(manifest)} objects stay in quarantine: 'lintas quarantine list' says why")
        show_table(
            f"quarantine-{destination.cloud}",
            [
                {"object": item.path, "why": "; ".join(map(str, item.reasons)), "digest": item.digest[:16]}
                for item in sifted.held
            ],
            f"What stays of {uri} and does not go to {destination}. 'release-quarantined' releases it.",
        )
    return sifted


def listed(dataset: str | None = None, destination: str | None = None) -> list[Listed]:
    """The quarantine list, of one dataset or for one destination if told."""
    here = installation()
    about = [str(here.parse(text)) if text else None for text in (dataset, destination)]
    return here.records.quarantine.entries(*about)


@step(name="release from quarantine", run_name="release of {dataset} for {destination}")
def release_held(dataset: str, destination: str, reason: str, by: str, paths: Sequence[str] = ()) -> list[Listed]:
    """Let what is held of a dataset go with the next move to a destination.

    A release is for the bytes and the policy that it was held for; when one of them changes it is held anew.

    Args:
        dataset, destination: URIs, as the list has them.
        reason: Why; the audit log keeps it.
        by: Who says so.
        paths: Only objects whose path is one of these or matches one as a glob; all that is held without any.

    Returns:
        What was released.

    Raises:
        Invalid: Reason or name is empty, or the reason holds what looks like somebody's data.
        NotFound: Nothing of it is held.
    """
    from tasks.core.quarantine import require_reason

    said = require_reason(reason)
    who = by.strip()
    if not who:
        raise Invalid("nobody is named who releases it", "say who does; the audit log keeps it")
    held = [item for item in listed(dataset, destination) if not item.released]
    chosen = [item for item in held if not paths or any(_is(item.held.path, path) for path in paths)]
    if not chosen:
        raise NotFound(
            f"nothing {'like that ' if held else ''}of {dataset} is held for {destination}",
            "see 'lintas quarantine list'",
        )
    here = installation()
    facts = {"decision": "released", "by": who, "reason": said, "flow_run": flow_run_id() or ""}
    for policy in sorted({item.held.policy for item in chosen}):
        items = [item.held for item in chosen if item.held.policy == policy]
        subject = f"{items[0].dataset} -> {items[0].destination}"
        here.records.audit.append(AuditKind.QUARANTINE, subject, {**facts, "policy": policy, **_facts(items)})
    here.records.quarantine.release([item.held.entry for item in chosen], reason=said, by=who)
    say(f"{len(chosen)} objects of {dataset} go to {destination} with the next move")
    return chosen


def _is(path: str, asked: str) -> bool:
    return path == asked or fnmatchcase(path, asked)


def _facts(items: Sequence[Held]) -> dict[str, object]:
    named = [{"entry": item.entry, "path": item.path, "object": item.digest} for item in items[:_NAMED]]
    return {"count": len(items), "objects": named}

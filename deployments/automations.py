"""What prefect.yaml cannot say: automations of Lintas' own. `python -m deployments.automations` applies them.

A process or machine that dies leaves its run as `Running` or `Pending`, and a run in these states holds the slot of its
deployment's concurrency limit, so that no later run would ever start. Both automations end such runs as crashed.
See https://docs.prefect.io/v3/advanced/detect-zombie-flows (read November 2026).
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from prefect.automations import AutomationCore
    from prefect.client.orchestration import SyncPrefectClient

_SILENT_S = 600
"""Three of Prefect's heartbeats (PREFECT_FLOWS_HEARTBEAT_FREQUENCY, 180 s unless set), and a little."""
_AT_REST = ("Completed", "Failed", "Cancelled", "Crashed", "Paused", "Suspended", "AwaitingRetry", "Scheduled")
"""States in which nobody waits for a sign of life."""
_PENDING_S = 900
"""Longer than any worker needs from taking a run to starting it."""


def automations() -> list[AutomationCore]:
    """The automations as they should be on the server."""
    from prefect.automations import AutomationCore
    from prefect.events.actions import ChangeFlowRunState
    from prefect.events.schemas.automations import EventTrigger, Posture
    from prefect.events.schemas.events import ResourceSpecification
    from prefect.states import StateType

    def crash(name: str, why: str, *, after: str, expect: set[str], within_s: int) -> AutomationCore:
        return AutomationCore(
            name=name,
            description=why,
            trigger=EventTrigger(
                after={after},
                expect=expect | {f"prefect.flow-run.{state}" for state in _AT_REST},
                match=ResourceSpecification({"prefect.resource.id": ["prefect.flow-run.*"]}),
                for_each={"prefect.resource.id"},
                posture=Posture.Proactive,
                threshold=1,
                within=timedelta(seconds=within_s),
            ),
            actions=[ChangeFlowRunState(state=StateType.CRASHED, name=None, message=why, force=False)],
        )

    heartbeat = "prefect.flow-run.heartbeat"
    return [
        crash(
            "lintas: a run that fell silent has crashed",
            f"Nothing was heard of this run for {_SILENT_S} seconds.",
            after=heartbeat,
            expect={heartbeat},
            within_s=_SILENT_S,
        ),
        crash(
            "lintas: a run that never began has crashed",
            f"A worker took this run and did not start it within {_PENDING_S} seconds.",
            after="prefect.flow-run.Pending",
            expect={f"prefect.flow-run.{state}" for state in ("Running", "AwaitingConcurrencySlot")},
            within_s=_PENDING_S,
        ),
    ]


def apply_automations(client: SyncPrefectClient) -> None:
    """Create the automations, or bring those of the same names up to date."""
    for automation in automations():
        there = client.read_automations_by_name(automation.name)
        if there:
            client.update_automation(there[0].id, automation)
        else:
            client.create_automation(automation)


def crash_abandoned_runs(client: SyncPrefectClient, pool: str) -> int:
    """End the runs that a work pool's only worker left behind when it died; call it before the next one starts.

    Args:
        client: A client of the Prefect server.
        pool: The work pool; no worker of it may be at work.

    Returns:
        How many there were.
    """
    from prefect.client.schemas.filters import (
        FlowRunFilter,
        FlowRunFilterState,
        FlowRunFilterStateType,
        WorkPoolFilter,
        WorkPoolFilterName,
    )
    from prefect.states import Crashed, StateType

    held = [StateType.PENDING, StateType.RUNNING, StateType.CANCELLING]
    runs = client.read_flow_runs(
        flow_run_filter=FlowRunFilter(state=FlowRunFilterState(type=FlowRunFilterStateType(any_=held))),
        work_pool_filter=WorkPoolFilter(name=WorkPoolFilterName(any_=[pool])),
    )
    for run in runs:
        client.set_flow_run_state(run.id, Crashed(message="Its worker ended before it did."), force=True)
    return len(runs)


def main() -> None:
    """Apply the automations to the server that PREFECT_API_URL names."""
    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as client:
        apply_automations(client)
    print("\n".join(automation.name for automation in automations()))


if __name__ == "__main__":
    main()

"""A worker that dies leaves its runs behind; neither they nor their slots may stand in the way of later ones."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import pytest
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.states import Pending, Running

from deployments.automations import apply_automations, automations, crash_abandoned_runs
from tests.whole_stack import WholeStack


@pytest.fixture
def client(whole_stack: WholeStack) -> Iterator[SyncPrefectClient]:
    url = {PREFECT_API_URL: whole_stack.prefect_api_url}
    with temporary_settings(url), get_client(sync_client=True) as opened:
        yield opened


@pytest.mark.parametrize("reached", ["PENDING", "RUNNING"])
def test_a_run_whose_worker_died_is_crashed_and_its_slot_is_free_again(client: SyncPrefectClient, reached: str) -> None:
    pool = f"left-behind-{uuid.uuid4().hex[:8]}"
    client.create_work_pool(WorkPoolCreate(name=pool, type="process"))
    flow = client.create_flow_from_name(pool)
    deployment = client.create_deployment(flow, pool, work_pool_name=pool, concurrency_limit=1)
    left, waiting = (client.create_flow_run_from_deployment(deployment).id for _ in range(2))
    client.set_flow_run_state(left, Pending())
    if reached == "RUNNING":
        client.set_flow_run_state(left, Running())
    refused = client.set_flow_run_state(waiting, Pending())
    assert refused.state is not None
    assert refused.state.name == "AwaitingConcurrencySlot"

    assert crash_abandoned_runs(client, pool) == 1

    ended = client.read_flow_run(left)
    assert ended.state_type is not None
    assert ended.state_type.value == "CRASHED"
    taken = client.set_flow_run_state(waiting, Pending())
    assert taken.state is not None
    assert taken.state.type.value == "PENDING"


def test_applying_the_automations_again_makes_no_second_ones(client: SyncPrefectClient) -> None:
    apply_automations(client)
    apply_automations(client)
    for automation in automations():
        assert len(client.read_automations_by_name(automation.name)) == 1

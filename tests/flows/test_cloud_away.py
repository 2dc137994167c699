"""A whole cloud of the twin goes away at a word, and comes back: every port says so, and works again afterwards."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable

import pytest

from tasks.core.errors import Retryable
from tests.flows.test_command import lintas
from tests.whole_stack import WholeStack

ROLES = {
    "aws": {"objects", "events", "training, serving, identity"},
    "google": {"objects", "events", "training, serving, logs, identity"},
    "azure": {"objects", "events", "training, serving"},
    "coreweave": {"objects", "training, serving"},
}


@pytest.mark.parametrize("cloud", ROLES)
def test_a_cloud_that_is_lost_is_unreachable_at_every_port_and_then_back(whole_stack: WholeStack, cloud: str) -> None:
    here, bucket = whole_stack.installation, f"away-{uuid.uuid4().hex[:8]}"
    here.store(cloud, bucket).create_bucket()
    calls: dict[str, Callable[[], object]] = {
        "store": lambda: list(here.store(cloud, bucket).list("")),
        "server": lambda: here.server(cloud).describe("nobody"),
        "trainer": lambda: here.trainer(cloud).poll("1234567890"),
        "events": lambda: here.event_source(cloud).receive(wait_s=0.2),
    }
    told = lintas(whole_stack, "twin", "faults", "set", cloud, "lost", "--role", "all", "--json")
    try:
        assert told.returncode == 0, told.stderr
        assert set(json.loads(told.stdout)) == ROLES[cloud]
        for port, call in calls.items():
            with pytest.raises(Retryable, match=r"unreachable|does not answer"):
                raise AssertionError(f"{port} of {cloud} answered {call()}")
    finally:
        cleared = lintas(whole_stack, "twin", "faults", "clear", cloud, "--role", "all")
    assert cleared.returncode == 0, cleared.stderr
    assert calls["store"]() == []
    assert calls["server"]() is None


def test_a_cloud_without_services_has_none_that_could_misbehave(whole_stack: WholeStack) -> None:
    told = lintas(whole_stack, "twin", "faults", "set", "onprem", "preempt", "--role", "objects")
    assert told.returncode == 2, told.stdout
    assert "clouds.onprem.endpoints.objects is missing" in told.stderr

"""Training and serving on each of the four clouds in turn, and one release on all of them at once: `make clouds`.

The same script, the same data, the same model: what differs is the cloud that ran it, and what it cost there.
"""

from __future__ import annotations

import json
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from deployments.demo import REPOSITORY, example_row
from deployments.local.object_stores import console_script
from tests.flows.conftest import Landed

CLOUDS = ("aws", "google", "azure", "coreweave")
SPEC = str(REPOSITORY / "examples" / "flights" / "training.yaml")
FIGURES = Path("build/clouds.json")

pytestmark = [pytest.mark.campaign, pytest.mark.timeout(600)]


def lintas(landed: Landed, *arguments: str) -> dict[str, Any]:
    done = subprocess.run(
        [console_script("lintas"), *arguments, "--json"],
        env=landed.stack.environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=500,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)


def answers(landed: Landed, promoted: dict[str, Any]) -> dict[str, list[float]]:
    row = example_row(landed.folder)
    here = landed.stack.installation
    found: dict[str, list[float]] = {}
    for endpoint in promoted["endpoints"]:
        (release,) = [
            r for r in here.records.releases.list(promoted["model"]) if r.release_id == promoted["release_id"]
        ]
        name = next(each.name for each in release.endpoints if each.cloud == endpoint["provider"])
        answer = json.loads(here.server(endpoint["provider"]).predict(name, row))
        found[endpoint["provider"]] = answer["predictions"][0]
    return found


def note(**figures: Any) -> None:
    FIGURES.parent.mkdir(exist_ok=True)
    kept = json.loads(FIGURES.read_text()) if FIGURES.exists() else {}
    FIGURES.write_text(json.dumps(kept | figures, indent=1))


@pytest.mark.parametrize("cloud", CLOUDS)
def test_the_lifecycle_on_one_cloud(landed: Landed, cloud: str) -> None:
    began = time.monotonic()
    trained = lintas(landed, "train", SPEC, "--data", "google://lake/flights", "--on", cloud)
    trained_s = time.monotonic() - began
    assert (trained["provider"], trained["state"], trained["passed"]) == (cloud, "succeeded", True)
    began = time.monotonic()
    promoted = lintas(landed, "promote", trained["model"], trained["version"], "--to", cloud)
    served_s = time.monotonic() - began
    (endpoint,) = promoted["endpoints"]
    assert (promoted["state"], endpoint["healthy"], endpoint["digest"]) == ("live", True, trained["digest"])
    assert len(answers(landed, promoted)[cloud]) == 2
    # Serving there ends what the cloud before served: one release governs a model.
    note(**{cloud: {"train_s": trained_s, "promote_s": served_s, "cost_usd": trained["cost_usd"]}})


def test_one_release_on_all_clouds_at_once(landed: Landed) -> None:
    model, version = landed.report["trained"]["model"], landed.report["trained"]["version"]
    began = time.monotonic()
    promoted = lintas(landed, "promote", model, version, "--to", ",".join((*CLOUDS, "onprem")))
    seconds = time.monotonic() - began
    assert promoted["state"] == "live"
    assert {endpoint["digest"] for endpoint in promoted["endpoints"]} == {landed.report["trained"]["digest"]}
    assert sum(endpoint["weight"] for endpoint in promoted["endpoints"]) == 100
    said = answers(landed, promoted)
    assert set(said) == {*CLOUDS, "onprem"}
    for answer in said.values():
        assert answer == pytest.approx(said["onprem"])
    note(all_at_once={"promote_s": seconds})


def test_another_version_gets_copies_of_the_requests_where_a_cloud_can_do_that(landed: Landed) -> None:
    model, live = landed.report["trained"]["model"], landed.report["trained"]["version"]
    other = lintas(landed, "train", SPEC, "--data", "google://lake/flights", "--on", "azure")["version"]
    mirrored = lintas(landed, "promote", model, other, "--to", "aws,azure", "--mirror", "50")
    assert (mirrored["state"], mirrored["live_version"]) == ("mirrored", live)
    for endpoint in mirrored["endpoints"]:
        assert (endpoint["mirror_version"], endpoint["mirror_percent"], endpoint["healthy"]) == (other, 50, True)
        assert endpoint["digest"] == landed.report["trained"]["digest"]
    ended = lintas(landed, "promote", model, other, "--to", "aws,azure", "--mirror", "0")
    assert [endpoint["mirror_version"] for endpoint in ended["endpoints"]] == ["", ""]


def test_a_stock_out_leads_to_the_next_offer(landed: Landed) -> None:
    from deployments.local.faults import put_faults

    aws = landed.stack.installation.cloud("aws").endpoint("training")
    put_faults(aws, [{"kind": "stockout"}])
    try:
        trained = lintas(landed, "train", SPEC, "--data", "google://lake/flights", "--on", "aws,coreweave")
    finally:
        put_faults(aws, [])
    assert [tried["provider"] for tried in trained["attempts"]] == ["aws", "coreweave"]
    assert (trained["provider"], trained["passed"]) == ("coreweave", True)

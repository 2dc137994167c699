"""Every fault of every double, through the provider's own client: what comes out is a class that says what to do."""

from __future__ import annotations

import urllib.error
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from deployments.local.faults import KINDS
from deployments.local.knobs import app as knobs_app
from deployments.local.knobs.process import Front, knobs
from deployments.local.ports import free_ports
from deployments.local.processes import HOST
from tasks.providers.google.quirks import quirks
from tests.compute_clouds import SERVING_CLOUDS, TRAINING_CLOUDS, ComputeClouds
from tests.conformance import test_server, test_trainer
from tests.conformance.event_places import Aws, Azure, EventPlace, Google
from tests.conformance.stores import open_store, pointed_at
from tests.conformance.test_server import models  # noqa: F401 - a fixture
from tests.faults import serving_trials, storage_trials, training_trials
from tests.faults.outcomes import FaultOutcomes
from tests.faults.serving_trials import Serving
from tests.faults.storage_trials import Listening, Storing, through
from tests.faults.training_trials import Training, first_job
from tests.servers import ObjectClouds

QUICK = {"Trainer": ("stockout", "quota", "cut"), "Server": (), "Store": ("deny", "lost"), "EventSource": ("lost",)}
"""What runs by default; the rest belongs to the campaign of `make faults`."""

STORES = {"aws": "s3", "coreweave": "s3", "google": "cloud-storage", "azure": "azure-storage"}
QUEUES = {"aws": "sqs", "google": "google-api", "azure": "azure-storage"}
"""How the services behind the knobs refuse."""


def kinds(port: str, trials: Mapping[str, object]) -> list[Any]:
    assert set(trials) <= set(KINDS)
    return [kind if kind in QUICK[port] else pytest.param(kind, marks=pytest.mark.campaign) for kind in trials]


@pytest.fixture(scope="module")
def outcomes() -> Iterator[FaultOutcomes]:
    seen = FaultOutcomes(TRAINING_CLOUDS)
    yield seen
    seen.write()


@pytest.fixture(scope="module")
def done_jobs() -> dict[str, str]:
    return {}


@pytest.fixture(params=TRAINING_CLOUDS)
def training(
    request: pytest.FixtureRequest, compute_clouds: ComputeClouds, done_jobs: dict[str, str], tmp_path: Path
) -> Iterator[Training]:
    site = test_trainer.cloud_site(compute_clouds[request.param], tmp_path)
    if request.param not in done_jobs:
        done_jobs[request.param] = first_job(site)
    under_faults = Training(site, done_jobs[request.param])
    yield under_faults
    under_faults.calm()
    for job_id in site.submitted:
        site.trainer.cancel(job_id)


@pytest.fixture(params=SERVING_CLOUDS)
def serving(
    request: pytest.FixtureRequest,
    compute_clouds: ComputeClouds,
    models: Any,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Serving]:
    # For a minute Vertex AI is not bothered with a version that has just failed.
    monkeypatch.setitem(quirks(), "retry_deploy_s", 0.0)
    site = test_server.cloud_site(compute_clouds[request.param], models)
    under_faults = Serving(site)
    under_faults.calm()
    yield under_faults
    under_faults.calm()
    for name in site.deployed:
        site.delete(name)


@pytest.fixture(scope="module")
def in_front(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str, str], str]]:
    """Puts knobs in front of the server at a URL and answers their address."""
    addresses: dict[str, str] = {}
    with ExitStack() as running:

        def front(url: str, dialect: str) -> str:
            server = "/".join(url.split("/", 3)[:3])
            if server not in addresses:
                (port,) = free_ports(1)
                log = tmp_path_factory.mktemp("knobs") / "knobs.log"
                process = knobs(log, [Front(port, dialect, server)]).start()
                running.callback(process.stop)
                process.wait_ready()
                addresses[server] = f"http://{HOST}:{port}"
            return addresses[server]

        yield front


@pytest.fixture(params=STORES)
def storing(
    request: pytest.FixtureRequest, object_clouds: ObjectClouds, in_front: Callable[[str, str], str]
) -> Iterator[Storing]:
    cloud = object_clouds[request.param]
    front = in_front(cloud.endpoint("objects"), STORES[request.param])
    bucket = f"knobs-{uuid.uuid4().hex[:8]}"
    honest = open_store(cloud, bucket)
    honest.create_bucket()
    under_faults = Storing(front, open_store(pointed_at(cloud, int(front.rsplit(":", 1)[1])), bucket), honest)
    yield under_faults
    under_faults.calm()


@pytest.fixture(params=QUEUES)
def listening(
    request: pytest.FixtureRequest, object_clouds: ObjectClouds, in_front: Callable[[str, str], str], tmp_path: Path
) -> Iterator[Listening]:
    name: str = request.param
    places: dict[str, Callable[[], EventPlace]] = {
        "aws": lambda: Aws(request.getfixturevalue("sqs_server"), tmp_path),
        "google": lambda: Google(object_clouds["google"], tmp_path),
        "azure": lambda: Azure(object_clouds["azure"], tmp_path),
    }
    place = places[name]()
    place.begin()
    front = in_front(place.config.endpoint("events"), QUEUES[name])
    under_faults = Listening(front, place, through(place, front))
    yield under_faults
    under_faults.calm()


@pytest.mark.parametrize("kind", kinds("Trainer", training_trials.TRIALS))
def test_training_under_a_fault(training: Training, outcomes: FaultOutcomes, kind: str) -> None:
    observed = training_trials.TRIALS[kind](training)
    with outcomes.cell("Trainer", kind, training.site.cloud.name) as cell:
        cell.require(observed, training_trials.PROMISED[kind])


@pytest.mark.parametrize("kind", kinds("Server", serving_trials.TRIALS))
def test_serving_under_a_fault(serving: Serving, outcomes: FaultOutcomes, kind: str) -> None:
    observed = serving_trials.TRIALS[kind](serving)
    with outcomes.cell("Server", kind, serving.site.cloud.name) as cell:
        cell.require(observed, serving_trials.PROMISED[kind])


@pytest.mark.parametrize("kind", kinds("Store", storage_trials.STORE_TRIALS))
def test_storing_under_a_fault(storing: Storing, outcomes: FaultOutcomes, kind: str) -> None:
    with outcomes.cell("Store", kind, storing.store.cloud) as cell:
        cell.require(storage_trials.STORE_TRIALS[kind](storing), storage_trials.PROMISED[kind])


@pytest.mark.parametrize("kind", kinds("EventSource", storage_trials.EVENT_TRIALS))
def test_listening_under_a_fault(listening: Listening, outcomes: FaultOutcomes, kind: str) -> None:
    with outcomes.cell("EventSource", kind, listening.place.config.name) as cell:
        cell.require(storage_trials.EVENT_TRIALS[kind](listening), storage_trials.PROMISED[kind])


def test_knobs_refuse_faults_that_a_store_cannot_meet(storing: Storing) -> None:
    with pytest.raises(urllib.error.HTTPError) as refused:
        storing.meet("preempt")
    assert "'preempt' cannot happen here; use one of throttle, deny, error" in refused.value.read().decode()


def test_no_kind_of_fault_is_left_out() -> None:
    assert set(storage_trials.STORE_TRIALS) == set(knobs_app.KINDS)
    assert set(training_trials.TRIALS) | set(serving_trials.TRIALS) == set(KINDS)

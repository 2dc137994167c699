"""Copies of an endpoint's requests for a version that serves nobody: one suite for every provider that can."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest

from tasks.core.errors import Invalid, NotFound
from tasks.core.evaluation import model_digest
from tasks.core.ports import MirroringServer
from tasks.core.release import Endpoint, EndpointSpec
from tasks.registry import providers
from tests.compute_clouds import SERVING_CLOUDS, ComputeClouds
from tests.conformance.test_server import (
    ROWS,
    Site,
    cloud_site,
    insisted,
    models,  # noqa: F401 - a fixture
)

MIRRORING_CLOUDS = [name for name in SERVING_CLOUDS if providers()[name].open_mirror is not None]

_COUNTING = """
import mlflow

class Counting(mlflow.pyfunc.PythonModel):
    def predict(self, context, model_input, params=None):
        with open({asked!r}, "a") as file:
            file.write("." * len(model_input))
        return [0.0] * len(model_input)

mlflow.models.set_model(Counting())
"""


@dataclass(frozen=True)
class Counting:
    """A version that counts the rows it is asked for."""

    spec: EndpointSpec
    asked: Path

    def rows(self) -> int:
        return len(self.asked.read_bytes()) if self.asked.exists() else 0


@pytest.fixture(scope="session")
def counting(tmp_path_factory: pytest.TempPathFactory) -> Counting:
    import mlflow.pyfunc
    import pandas as pd
    from mlflow.models import infer_signature

    home = tmp_path_factory.mktemp("counting")
    frame = pd.DataFrame(ROWS, columns=["delay", "distance"])
    (home / "model.py").write_text(_COUNTING.format(asked=str(home / "asked")))
    mlflow.pyfunc.save_model(
        home / "model",
        python_model=str(home / "model.py"),
        signature=infer_signature(frame, [0.0] * len(frame)),
        input_example=frame.head(1),
        pip_requirements=["mlflow"],
    )
    digest = model_digest(home / "model")
    return Counting(EndpointSpec("flights", "flights", "counting", digest, str(home / "model")), home / "asked")


@dataclass
class Mirroring:
    """An endpoint that serves version 1, and the means to mirror its requests."""

    site: Site
    server: MirroringServer

    def mirror(self, spec: EndpointSpec, percent: int, timeout_s: float = 120) -> Endpoint:
        """Ask until it is so, as `tasks.core.mirroring` does."""
        wanted = (spec.version, percent) if percent else ("", 0)
        deadline = time.monotonic() + timeout_s
        while True:
            seen = insisted(lambda: self.server.mirror(spec, percent))
            if (seen.mirror_version, seen.mirror_percent) == wanted:
                return seen
            assert time.monotonic() < deadline, seen
            time.sleep(0.05)


@pytest.fixture(params=MIRRORING_CLOUDS)
def mirroring(
    request: pytest.FixtureRequest,
    compute_clouds: ComputeClouds,
    models,  # noqa: F811
) -> Iterator[Mirroring]:
    compute = compute_clouds[request.param]
    open_mirror = providers()[compute.config.provider].open_mirror
    assert open_mirror is not None
    site, mirror = cloud_site(compute, models), open_mirror(compute.config)
    yield Mirroring(site, mirror)
    for name in site.deployed:
        # What it was asked for it rolls out by itself, and would bring the endpoint back.
        insisted(partial(mirror.delete, name))
        site.delete(name)


def eventually(condition: Callable[[], bool], within_s: float = 60.0) -> bool:
    deadline = time.monotonic() + within_s
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.02)
    return condition()


def test_copies_reach_the_other_version_and_answers_come_from_the_one_that_serves(
    mirroring: Mirroring, counting: Counting
) -> None:
    site = mirroring.site
    site.serve("1")
    seen = mirroring.mirror(counting.spec, 50)
    assert (seen.healthy, seen.version, seen.digest) == (True, "1", site.specs["1"].digest)
    assert mirroring.mirror(counting.spec, 50) == seen
    before, rows = counting.rows(), len(ROWS)
    for _ in range(40):
        assert site.predict() == pytest.approx(site.answers["1"])
    # Copies are sent on the side; 40 requests of which none is copied come once in a million million.
    assert eventually(lambda: counting.rows() > before)
    assert counting.rows() - before <= 40 * rows

    ended = mirroring.mirror(counting.spec, 0)
    assert (ended.healthy, ended.version) == (True, "1")
    assert site.predict() == pytest.approx(site.answers["1"])


def test_the_version_that_was_rehearsed_is_served_when_it_is_deployed(mirroring: Mirroring) -> None:
    site = mirroring.site
    site.serve("1")
    mirroring.mirror(site.specs["2"], 10)
    seen = site.serve("2")
    site.wait(lambda seen: (seen.mirror_version, seen.mirror_percent) == ("", 0))
    assert seen.version == "2"
    assert site.predict() == pytest.approx(site.answers["2"])


def test_a_version_that_does_not_come_up_gets_no_copies_and_what_serves_goes_on(mirroring: Mirroring) -> None:
    site = mirroring.site
    site.serve("1")
    insisted(lambda: mirroring.server.mirror(site.specs["broken"], 10))

    def told(seen: Endpoint | None) -> bool:
        return seen is not None and "does not start" in seen.detail

    assert eventually(lambda: told(mirroring.server.describe("flights")))
    seen = site.server.describe("flights")
    assert seen is not None
    assert (seen.healthy, seen.version, seen.mirror_version) == (True, "1", "")
    assert site.predict() == pytest.approx(site.answers["1"])


def test_without_an_endpoint_there_is_nothing_to_mirror(mirroring: Mirroring) -> None:
    with pytest.raises(NotFound, match="no endpoint 'flights' serves"):
        mirroring.server.mirror(mirroring.site.specs["1"], 10)
    assert mirroring.server.describe("flights") is None


def test_a_percentage_that_the_service_does_not_mirror_is_refused_at_once(mirroring: Mirroring) -> None:
    if mirroring.site.cloud.provider != "azure":
        pytest.skip("mirrors any percentage")
    mirroring.site.serve("1")
    with pytest.raises(Invalid, match="50 percent"):
        mirroring.server.mirror(mirroring.site.specs["2"], 51)

"""Serving under each kind of fault: what a call ends in or an endpoint looks like, and that all is well without it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import pytest

from deployments.local.faults import put_faults
from tasks.core.errors import LintasError, Stockout, Terminal
from tasks.core.ports import Server
from tasks.core.release import Endpoint
from tests.conformance.test_server import ROWS, Site, insisted, request_of
from tests.faults.outcomes import class_of, outcome_of

SEED = 20
_NAME = "flights"
_REQUEST = request_of(ROWS)
_DONE_ALL_THE_SAME = ("cut", "hang")
"""Faults of the answer: the request itself is carried out, now or later."""


@dataclass
class Serving:
    """The serving service of one cloud, and its faults."""

    site: Site

    def meet(self, kind: str, *, seed: int = SEED, **how: Any) -> None:
        """From now on this fault and no other comes about."""
        put_faults(self.site.cloud.endpoint("serving"), [{"kind": kind, **how}], seed)

    def calm(self) -> None:
        """No fault any more."""
        put_faults(self.site.cloud.endpoint("serving"), [])

    def reopened(self, **options: str) -> Server:
        """The same service, by a client that remembers nothing."""
        cloud = self.site.cloud
        return self.site.open_server(replace(cloud, options={**cloud.options, **options}))

    def require_service(self, version: str = "1") -> None:
        """The version is served now, however its deployment ended before, and predicts as it should."""
        self.calm()
        deadline = time.monotonic() + 60
        while True:
            try:
                self.site.serve(version)
                break
            except (Stockout, Terminal):
                # What became of the deployment under the fault is told once, to whoever asks for it again.
                assert time.monotonic() < deadline
        assert self.site.predict() == pytest.approx(self.site.answers[version])


def does_not_come_up(kind: str, options: Mapping[str, str] | None = None) -> Trial:
    """Faults that keep a deployment from becoming an endpoint."""

    def trial(serving: Serving) -> Iterator[str]:
        serving.meet(kind)
        yield from _end_of_deployment(serving, serving.reopened(**(options or {})))
        serving.require_service()

    return trial


def _end_of_deployment(serving: Serving, server: Server) -> Iterator[str]:
    """A refusal at once or later, or an endpoint that is not healthy and says why."""
    spec = serving.site.specs["1"]
    serving.site.deployed.add(_NAME)
    try:
        insisted(lambda: server.deploy(spec))
        deadline = time.monotonic() + 120
        while (seen := server.describe(_NAME)) is None or not seen.detail or _under_way(seen):
            assert time.monotonic() < deadline, seen
            time.sleep(0.05)
        assert (seen.healthy, seen.digest) == (False, "")
        yield "not healthy, with the reason"
        insisted(lambda: server.deploy(spec))
    except LintasError as error:
        yield class_of(error)


def _under_way(seen: Endpoint) -> bool:
    words = (
        "is starting",
        "being deployed",
        "being created",
        "is creating",
        "is updating",
        "no deployment has traffic",
    )
    return any(each in seen.detail for each in words)


def slow_start(serving: Serving) -> Iterator[str]:
    serving.meet("slow_start", delay_s=1.0)
    began = time.monotonic()
    assert not serving.site.deploy("1").healthy
    serving.site.serve("1")
    assert time.monotonic() - began >= 1.0
    yield "healthy"
    serving.require_service()


def refused_or_cut_off(kind: str, options: Mapping[str, str] | None = None, **how: Any) -> Trial:
    """Faults that any call may meet."""

    def trial(serving: Serving) -> Iterator[str]:
        serving.require_service()
        serving.meet(kind, **how)
        server = serving.reopened(**(options or {}))
        yield outcome_of(lambda: server.describe(_NAME))
        yield outcome_of(lambda: server.deploy(serving.site.specs["2"]))
        if kind != "hang":
            # A prediction may take as long as the service grants it, which is longer than a test may.
            yield outcome_of(lambda: serving.site.server.predict(_NAME, _REQUEST))
        if kind not in _DONE_ALL_THE_SAME:
            yield outcome_of(lambda: server.delete(_NAME))
        serving.calm()
        assert serving.site.wait(lambda seen: seen.healthy).version == "1"
        if kind == "cut":
            serving.meet(kind, **how)
            yield outcome_of(lambda: server.delete(_NAME))
            serving.calm()
            serving.site.delete()
            assert serving.site.server.describe(_NAME) is None
        serving.require_service("1")
        serving.require_service("2")

    return trial


def wrong_bytes(damages: int) -> Trial:
    """One byte of every answer is another: an endpoint is not taken for another version, nor for none."""

    def trial(serving: Serving) -> Iterator[str]:
        serving.require_service()
        other = serving.site.specs["2"].digest
        for seed in range(damages):
            serving.meet("wrong_bytes", seed=seed)
            try:
                seen = serving.reopened().describe(_NAME)
                assert seen is not None, f"seed {seed}"
                assert seen.digest != other, f"seed {seed}"
                if not seen.healthy:
                    assert seen.detail, f"seed {seed}"
                    yield "not healthy, with the reason"
            except LintasError as error:
                yield class_of(error)
        serving.require_service()

    return trial


Trial = Callable[[Serving], Iterator[str]]
"""Yields what comes out, one after the other; raises `AssertionError` when something else is not as promised."""

TRIALS: Mapping[str, Trial] = {
    "stockout": does_not_come_up("stockout"),
    "quota": does_not_come_up("quota"),
    "deny": refused_or_cut_off("deny"),
    "throttle": refused_or_cut_off("throttle"),
    "error": refused_or_cut_off("error", status=503),
    "slow_start": slow_start,
    "unhealthy": does_not_come_up("unhealthy", {"start_timeout_s": "1"}),
    "hang": refused_or_cut_off("hang", {"request_timeout_s": "0.3"}, delay_s=2.0),
    "wrong_bytes": wrong_bytes(12),
    "cut": refused_or_cut_off("cut"),
    "lost": refused_or_cut_off("lost"),
}

_NO_ROOM = frozenset({"Stockout", "not healthy, with the reason"})
_AGAIN = frozenset({"Retryable"})
PROMISED: Mapping[str, frozenset[str]] = {
    "stockout": _NO_ROOM,
    "quota": _NO_ROOM,
    "throttle": _AGAIN,
    "deny": frozenset({"Denied"}),
    "error": _AGAIN,
    "slow_start": frozenset({"healthy"}),
    "unhealthy": frozenset({"Terminal", "not healthy, with the reason"}),
    "hang": _AGAIN,
    "wrong_bytes": frozenset(
        {"Retryable", "Terminal", "NotFound", "Invalid", "Denied", "not healthy, with the reason"}
    ),
    # An answer that has no body has no middle.
    "cut": frozenset({"Retryable", "ok"}),
    "lost": _AGAIN,
}

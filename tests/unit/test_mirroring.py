"""Rehearsals beside a live release: what they need, when they are done, and that they change no record."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tasks.core.errors import Invalid, LintasError, NotFound, Retryable, Stockout, Terminal
from tasks.core.mirroring import mirror_until, release_to_mirror
from tasks.core.release import Endpoint, EndpointSpec, ReleaseState, request_release
from tasks.records import Records
from tasks.registry import Installation
from tasks.settings import CloudSettings, GateSettings, Settings

NOW = datetime(2026, 11, 25, tzinfo=UTC)
SPEC = EndpointSpec("late", "late", "2", "b" * 64, "/nowhere")


class Scripted:
    """A server that says one thing after the other, the last one for ever."""

    def __init__(self, *says: tuple[str, int] | LintasError) -> None:
        self.says, self.asked = list(says), 0

    def mirror(self, spec: EndpointSpec, percent: int) -> Endpoint:
        said = self.says[min(self.asked, len(self.says) - 1)]
        self.asked += 1
        if isinstance(said, LintasError):
            raise said
        return Endpoint("there", spec.name, "", 0, "a" * 64, "1", True, "is starting", *said)


def mirror(percent: int, **servers: Scripted) -> tuple[Endpoint, ...]:
    moment = [NOW]

    def sleep(seconds: float) -> None:
        moment[0] += timedelta(seconds=seconds)

    return mirror_until(SPEC, percent, servers, clock=lambda: moment[0], sleep=sleep, deadline_s=5)  # type: ignore[arg-type]


def test_it_is_done_when_every_cloud_says_so() -> None:
    quick, slow = Scripted(("2", 10)), Scripted(Retryable("busy", ""), ("", 0), ("2", 5), ("2", 10))
    assert [seen.mirror_percent for seen in mirror(10, quick=quick, slow=slow)] == [10, 10]
    assert (quick.asked, slow.asked) == (1, 4)


def test_it_has_ended_when_no_version_gets_copies() -> None:
    assert mirror(0, there=Scripted(("2", 10), ("", 0)))[0].mirror_version == ""


def test_what_waiting_mends_is_waited_for_and_what_it_does_not_is_raised() -> None:
    for error in (Retryable("busy", ""), Stockout("full", "")):
        with pytest.raises(Terminal, match=r"not mirrored after 5 s: there: (busy|full)"):
            mirror(10, there=Scripted(error))
    with pytest.raises(Invalid, match="never"):
        mirror(10, there=Scripted(Invalid("never", "")))
    with pytest.raises(Terminal, match="there: is starting"):
        mirror(10, there=Scripted(("", 0)))


@pytest.fixture
def records(tmp_path: Path) -> Records:
    return Records(tmp_path / "records.sqlite")


def go_live(records: Records, digest: str) -> None:
    from dataclasses import replace

    book = records.releases
    release = request_release(book, "late", "1", digest, (("aws", 100),), now=NOW)
    book.write(replace(release, state=ReleaseState.LIVE, live_since=NOW), read_generation=release.generation)


def test_only_what_is_live_has_requests_to_mirror(records: Records) -> None:
    with pytest.raises(NotFound, match="nothing of 'late' is live on 'aws'"):
        release_to_mirror(records.releases, "late", SPEC.digest, ("aws",), 10)
    request_release(records.releases, "late", "1", "a" * 64, (("aws", 100),), now=NOW)
    with pytest.raises(NotFound, match="nothing of 'late' is live on 'aws'"):
        release_to_mirror(records.releases, "late", SPEC.digest, ("aws",), 10)
    go_live(records, "a" * 64)
    assert release_to_mirror(records.releases, "late", SPEC.digest, ("aws",), 10).version == "1"
    with pytest.raises(NotFound, match="live on 'azure'"):
        release_to_mirror(records.releases, "late", SPEC.digest, ("aws", "azure"), 10)


@pytest.mark.parametrize("percent", [-1, 101])
def test_a_share_is_a_percentage(records: Records, percent: int) -> None:
    go_live(records, "a" * 64)
    with pytest.raises(Invalid, match=f"{percent} percent"):
        release_to_mirror(records.releases, "late", SPEC.digest, ("aws",), percent)


def test_a_live_version_is_not_mirrored_to_itself_but_its_mirror_can_be_ended(records: Records) -> None:
    go_live(records, SPEC.digest)
    with pytest.raises(Invalid, match="live already"):
        release_to_mirror(records.releases, "late", SPEC.digest, ("aws",), 10)
    release_to_mirror(records.releases, "late", SPEC.digest, ("aws",), 0)


@pytest.mark.parametrize("provider", ["google", "coreweave", "onprem"])
def test_a_cloud_that_cannot_mirror_is_refused_by_name(provider: str) -> None:
    gate = GateSettings(signing_key="env:UNUSED", pseudonym_key="env:UNUSED")
    clouds = {"here": CloudSettings(provider=provider), "amazon": CloudSettings(provider="aws")}
    with pytest.raises(Invalid, match="'here' cannot mirror requests; mirror on one of amazon"):
        Installation(Settings.model_construct(clouds=clouds, gate=gate)).mirroring_server("here")

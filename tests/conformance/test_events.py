"""One suite for the events of all clouds: told until acknowledged, each write once, whatever gets among them."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable
from pathlib import Path

import pytest

from deployments.local.ports import free_ports
from tasks.core.cloud import Secret
from tasks.core.errors import Denied, Invalid, LintasError, NotFound, Retryable
from tasks.core.events import OBJECT_CREATED
from tasks.core.ports import CloudEvent, EventSource
from tests.conformance.event_places import Aws, Azure, Coreweave, EventPlace, Google, Onprem
from tests.servers import OBJECT_CLOUDS, ObjectClouds

KEY = "flights/März 2013+part=1/_SUCCESS"
QUEUES = ("aws", "google", "azure")

Received = list[tuple[CloudEvent, str]]


@pytest.fixture(params=OBJECT_CLOUDS)
def place(request: pytest.FixtureRequest, object_clouds: ObjectClouds, tmp_path: Path) -> EventPlace:
    name: str = request.param
    kinds: dict[str, Callable[[], EventPlace]] = {
        "aws": lambda: Aws(request.getfixturevalue("sqs_server"), tmp_path),
        "google": lambda: Google(object_clouds["google"], tmp_path),
        "azure": lambda: Azure(object_clouds["azure"], tmp_path),
        "coreweave": lambda: Coreweave(object_clouds["coreweave"], tmp_path),
        "onprem": lambda: Onprem(object_clouds["onprem"], tmp_path),
    }
    place = kinds[name]()
    place.begin()
    return place


def received(source: EventSource, place: EventPlace, count: int = 1) -> Received:
    """The next events, in several batches if need be."""
    found: dict[str, tuple[CloudEvent, str]] = {}
    for _ in range(10):
        found |= {event.id: (event, receipt) for event, receipt in source.receive(wait_s=5)}
        if len(found) >= count:
            break
    assert len(found) == count, [event.id for event, _ in found.values()]
    return list(found.values())


def nothing_more(source: EventSource, place: EventPlace) -> bool:
    place.pass_time()
    return source.receive(wait_s=1.2) == []


def test_a_new_object_is_told_with_its_place_and_size(place: EventPlace) -> None:
    source = place.source()
    place.write(KEY, b"content")
    ((event, receipt),) = received(source, place)
    source.acknowledge(receipt)
    name = place.config.name
    assert (event.type, event.source, event.subject) == (OBJECT_CREATED, f"{name}://{place.bucket}", KEY)
    assert event.id.startswith(f"{name}://{place.bucket}/{KEY}#")
    assert (event.data["bucket"], event.data["key"], event.data["size_bytes"]) == (place.bucket, KEY, 7)
    assert event.time.tzinfo is not None


def test_an_event_comes_again_and_is_the_same_until_it_is_acknowledged(place: EventPlace) -> None:
    source = place.source()
    place.write(KEY)
    ((first, _),) = received(source, place)
    place.pass_time()
    ((again, receipt),) = received(source, place)
    assert first == again
    source.acknowledge(receipt)
    assert nothing_more(source, place)


def test_an_event_that_was_not_acknowledged_outlives_the_process_and_is_the_same(place: EventPlace) -> None:
    source = place.source()
    place.write(KEY)
    ((first, _),) = received(source, place)
    del source
    place.pass_time()
    ((again, _),) = received(place.source(), place)
    assert first == again


def test_an_acknowledged_event_does_not_come_to_the_next_process(place: EventPlace) -> None:
    source = place.source()
    place.write(KEY)
    ((_, receipt),) = received(source, place)
    source.acknowledge(receipt)
    assert nothing_more(place.source(), place)


def test_acknowledging_twice_is_silent(place: EventPlace) -> None:
    source = place.source()
    place.write(KEY)
    ((_, receipt),) = received(source, place)
    source.acknowledge(receipt)
    source.acknowledge(receipt)


def test_what_happens_while_nobody_listens_is_told_afterwards(place: EventPlace) -> None:
    source = place.source()
    del source
    place.write("a/_SUCCESS")
    place.write("b/_SUCCESS")
    found = received(place.source(), place, 2)
    assert {event.subject for event, _ in found} == {"a/_SUCCESS", "b/_SUCCESS"}


def test_writing_a_key_again_is_another_event(place: EventPlace) -> None:
    source = place.source()
    place.write(KEY, b"one")
    ((first, receipt),) = received(source, place)
    source.acknowledge(receipt)
    place.write(KEY, b"three")
    ((second, _),) = received(source, place)
    assert (first.subject, first.source) == (second.subject, second.source)
    assert first.id != second.id


def test_what_nobody_understands_is_logged_and_out_of_the_way_and_the_next_event_comes(
    place: EventPlace, caplog: pytest.LogCaptureFixture
) -> None:
    if not place.not_understood:
        pytest.skip("a listing holds objects and nothing else")
    source = place.source()
    place.disturb()
    with caplog.at_level(logging.WARNING):
        for _ in range(20):
            assert source.receive(wait_s=0.3) == []
            place.pass_time()
            if place.disturbances_aside():
                break
        else:
            pytest.fail("it is still in the way")
    place.write(KEY)
    ((event, _),) = received(source, place)
    assert event.subject == KEY
    told = [record.getMessage() for record in caplog.records if record.name.startswith("tasks.providers")]
    assert len(told) == 1
    assert "another reader" not in told[0]


def test_a_place_that_does_not_answer_is_retryable_and_named(place: EventPlace) -> None:
    if "root" in place.config.options:
        pytest.skip("a directory answers")
    (port,) = free_ports(1)
    roles = ("events", "objects")
    gone = {role: f"http://127.0.0.1:{port}/account" for role in roles if role in place.config.endpoints}
    with pytest.raises(Retryable, match=rf"127\.0\.0\.1:{port}\) is unreachable"):
        place.source(endpoints=gone).receive(wait_s=1)


def test_a_wrong_key_is_denied(place: EventPlace) -> None:
    if place.config.name in ("aws", "onprem"):
        pytest.skip("moto's SQS takes every key, and a directory has none")
    right = {name: secret.reveal() for name, secret in place.config.credentials.items()}
    wrong = {name: Secret("test:wrong", lambda _, text=text: text[::-1]) for name, text in right.items()}
    with pytest.raises(Denied) as refused:
        place.source(credentials=wrong).receive(wait_s=1)
    assert not [secret for secret in right.values() if secret in str(refused.value)]


def test_without_its_option_a_cloud_tells_no_events_and_says_which_is_missing(place: EventPlace) -> None:
    with pytest.raises(Invalid, match=r"options\.(queue|subscription|watch) is missing"):
        place.source(options={k: v for k, v in place.config.options.items() if k in ("account", "project", "root")})


@pytest.mark.parametrize("place", QUEUES, indirect=True)
def test_a_queue_that_is_not_there_is_not_found_and_named(place: EventPlace) -> None:
    options = {name: "nowhere" if value == place.bucket else value for name, value in place.config.options.items()}
    with pytest.raises(NotFound, match=rf"(queue|subscription) 'nowhere' does not exist on {place.config.name}"):
        place.source(options=options).receive(wait_s=1)


def test_a_queue_of_aws_may_be_named_by_its_url(sqs_server: object, request: pytest.FixtureRequest) -> None:
    place = Aws(request.getfixturevalue("sqs_server"), Path())
    place.begin()
    place.write(KEY)
    assert len(place.source(options={"queue": place.queue_url}).receive(wait_s=5)) == 1


def test_a_file_that_is_being_written_is_not_told_before_it_is_whole(
    object_clouds: ObjectClouds, tmp_path: Path
) -> None:
    place = Onprem(object_clouds["onprem"], tmp_path)
    place.begin()
    source = place.source(options={**place.config.options, "settle_s": "2", "poll_s": "0"})
    with (place.directory / "growing").open("wb", buffering=0) as file:
        for _ in range(4):
            file.write(b"x" * 1000)
            assert source.receive(wait_s=0.4) == []
    ((event, _),) = received(source, place)
    assert event.data["size_bytes"] == 4000


def test_a_bucket_name_that_leads_out_of_the_root_is_refused(object_clouds: ObjectClouds, tmp_path: Path) -> None:
    place = Onprem(object_clouds["onprem"], tmp_path)
    place.begin()
    with pytest.raises(LintasError):
        place.source(options={**place.config.options, "watch": ".."})


def test_a_token_for_azure_does_not_travel_in_the_clear(object_clouds: ObjectClouds, tmp_path: Path) -> None:
    place = Azure(object_clouds["azure"], tmp_path)
    options = {**place.config.options, "queue": "any"}
    config = dataclasses.replace(place.config, options=options)
    place.config = config
    with pytest.raises(Invalid, match=r"endpoints\.events would carry a token"):
        place.source(credentials={"token": Secret("test:token", lambda _: "t")})

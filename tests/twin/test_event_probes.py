"""What `lintas doctor --cloud` sees of a cloud's events: the permission by name, and a queue that is missing."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import pytest

from tasks.core.cloud import CloudConfig, Secret
from tasks.core.errors import Denied, LintasError, Terminal
from tests.conformance.event_places import Azure, Coreweave, EventPlace, Google
from tests.servers import ObjectClouds
from tests.twin.test_probes import probes_of

_MESSAGES = "Microsoft.Storage/storageAccounts/queueServices/queues/messages"


@pytest.fixture(params=["google", "azure", "coreweave"])
def place(
    request: pytest.FixtureRequest, object_clouds: ObjectClouds, tmp_path_factory: pytest.TempPathFactory
) -> EventPlace:
    kinds: Mapping[str, type[EventPlace]] = {"google": Google, "azure": Azure, "coreweave": Coreweave}
    place = kinds[request.param](object_clouds[request.param], tmp_path_factory.mktemp("memory"))
    place.begin()
    return place


def looked_at(config: CloudConfig) -> dict[str, str | LintasError]:
    """What each probe for events says, or raises, by its permission."""
    found: dict[str, str | LintasError] = {}
    for probe in probes_of(config):
        if probe.needed_for == "events":
            try:
                found[probe.permission] = probe.look()
            except LintasError as error:
                found[probe.permission] = error
    return found


def test_every_permission_of_a_cloud_that_is_set_up_is_seen(place: EventPlace) -> None:
    found = looked_at(place.config)
    expected = {
        "google": ["pubsub.subscriptions.consume"],
        "azure": [
            f"{_MESSAGES}/read",
            f"{_MESSAGES}/process/action",
            f"{_MESSAGES}/add/action on {place.bucket}-poison",
        ],
        "coreweave": [f"s3:ListBucket on {place.bucket}"],
    }
    assert list(found) == expected[place.config.name]
    assert all(isinstance(said, str) for said in found.values()), found


def test_with_a_wrong_key_they_are_denied(place: EventPlace) -> None:
    right = {name: secret.reveal() for name, secret in place.config.credentials.items()}
    wrong = {name: Secret("test:wrong", lambda _, text=text: text[::-1]) for name, text in right.items()}
    found = looked_at(dataclasses.replace(place.config, credentials=wrong))
    assert all(isinstance(said, Denied) for said in found.values()), found


@pytest.mark.parametrize("place", ["google", "azure"], indirect=True)
def test_a_queue_that_is_not_there_is_no_permission_but_a_thing_to_create(place: EventPlace) -> None:
    options = {name: "nowhere" if value == place.bucket else value for name, value in place.config.options.items()}
    first = next(iter(looked_at(dataclasses.replace(place.config, options=options)).values()))
    assert type(first) is Terminal
    assert "'nowhere' does not exist" in str(first)


@pytest.mark.parametrize(("signed", "outcome"), [("rpa", str), ("r", Denied)])
def test_a_signature_says_itself_whether_messages_may_be_processed(signed: str, outcome: type) -> None:
    secret = Secret("test:sas", lambda _: f"sv=2024-11-04&sp={signed}&sig=canary")
    options = {"account": "a", "queue": "events"}
    endpoints = {"events": "http://127.0.0.1:9/a"}
    config = CloudConfig("azure", "azure", endpoints=endpoints, credentials={"sas_token": secret}, options=options)
    (probe,) = (probe for probe in probes_of(config) if probe.permission == f"{_MESSAGES}/process/action")
    try:
        said: object = probe.look()
    except Denied as error:
        said = error
    assert isinstance(said, outcome)
    assert "canary" not in str(said)

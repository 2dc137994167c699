"""The double of Pub/Sub, driven by Google's own clients (google-cloud-pubsub, group `dev`) and by the storage double.

Lintas itself speaks REST by google-auth's session (docs/decisions/0040-pubsub-rest.md); these tests hold that, and the
double, against the official package.
"""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Callable, Mapping
from typing import Any

import httpx
import pytest
from google.api_core import exceptions
from google.cloud import storage
from google.oauth2.credentials import Credentials

from deployments.local.pubsub.app import FIELDS, NOT_IMITATED
from deployments.local.pubsub.broker import Broker
from deployments.local.vertex_ai.errors import Refused
from tasks.core.cloud import CloudConfig
from tests.servers import ObjectClouds

v1: Any = pytest.importorskip("google.pubsub_v1", reason="google-cloud-pubsub is not installed")


@pytest.fixture(scope="module")
def google(object_clouds: ObjectClouds) -> CloudConfig:
    return object_clouds["google"]


def client_of(kind: Any, google: CloudConfig, token: str | None = None) -> Any:
    transport = kind.get_transport_class("rest")(
        host=google.endpoint("events").removeprefix("http://"),
        credentials=Credentials(token or google.credentials["token"].reveal()),
        url_scheme="http",
    )
    return kind(transport=transport)


@pytest.fixture(scope="module")
def publisher(google: CloudConfig) -> Any:
    return client_of(v1.PublisherClient, google)


@pytest.fixture(scope="module")
def subscriber(google: CloudConfig) -> Any:
    return client_of(v1.SubscriberClient, google)


@pytest.fixture
def expire(google: CloudConfig) -> Callable[[], None]:
    """Ends every lease, as time would."""

    def end() -> None:
        headers = {"authorization": f"Bearer {google.credentials['token'].reveal()}"}
        httpx.post(f"{google.endpoint('events')}/_twin/expire", headers=headers).raise_for_status()

    return end


@pytest.fixture
def topic(publisher: Any) -> str:
    return publisher.create_topic(name=f"projects/lintas-test/topics/t-{uuid.uuid4().hex[:8]}").name


@pytest.fixture
def subscription(subscriber: Any, topic: str) -> str:
    name = topic.replace("/topics/", "/subscriptions/")
    return subscriber.create_subscription(name=name, topic=topic, ack_deadline_seconds=10).name


def pull(subscriber: Any, subscription: str) -> list[Any]:
    wish = {"subscription": subscription, "max_messages": 10, "return_immediately": True}
    return list(subscriber.pull(wish, retry=None).received_messages)


def publish(publisher: Any, topic: str, data: bytes = b"content", **attributes: str) -> str:
    return publisher.publish(topic=topic, messages=[{"data": data, "attributes": attributes}]).message_ids[0]


def test_what_is_published_is_pulled_until_it_is_acknowledged(
    publisher: Any, subscriber: Any, topic: str, subscription: str, expire: Callable[[], None]
) -> None:
    number = publish(publisher, topic, eventType="OBJECT_FINALIZE")
    (first,) = pull(subscriber, subscription)
    assert (first.message.message_id, first.message.data) == (number, b"content")
    assert dict(first.message.attributes) == {"eventType": "OBJECT_FINALIZE"}
    assert first.message.publish_time is not None
    assert pull(subscriber, subscription) == []
    expire()
    (again,) = pull(subscriber, subscription)
    assert again.message == first.message
    assert again.ack_id != first.ack_id
    subscriber.acknowledge(subscription=subscription, ack_ids=[again.ack_id])
    expire()
    assert pull(subscriber, subscription) == []


def test_an_acknowledgement_that_comes_too_late_has_no_effect(
    publisher: Any, subscriber: Any, topic: str, subscription: str, expire: Callable[[], None]
) -> None:
    publish(publisher, topic)
    (late,) = pull(subscriber, subscription)
    expire()
    subscriber.acknowledge(subscription=subscription, ack_ids=[late.ack_id])
    assert len(pull(subscriber, subscription)) == 1


def test_a_deadline_can_be_given_up(publisher: Any, subscriber: Any, topic: str, subscription: str) -> None:
    publish(publisher, topic)
    (delivered,) = pull(subscriber, subscription)
    wish = {"subscription": subscription, "ack_ids": [delivered.ack_id], "ack_deadline_seconds": 0}
    subscriber.modify_ack_deadline(wish)
    assert len(pull(subscriber, subscription)) == 1


def test_an_id_that_never_was_one_is_refused(subscriber: Any, subscription: str) -> None:
    with pytest.raises(exceptions.BadRequest, match="invalid ack ID"):
        subscriber.acknowledge(subscription=subscription, ack_ids=["nonsense"])


def test_every_subscription_gets_its_own_and_nothing_from_before_it_was_there(
    publisher: Any, subscriber: Any, topic: str, subscription: str
) -> None:
    publish(publisher, topic, b"before")
    late = subscriber.create_subscription(name=f"{subscription}-late", topic=topic).name
    publish(publisher, topic, b"after")
    assert [each.message.data for each in pull(subscriber, subscription)] == [b"before", b"after"]
    assert [each.message.data for each in pull(subscriber, late)] == [b"after"]


def test_a_message_that_was_delivered_too_often_becomes_a_dead_letter(
    publisher: Any, subscriber: Any, topic: str, expire: Callable[[], None]
) -> None:
    aside = publisher.create_topic(name=f"{topic}-aside").name
    kept = subscriber.create_subscription(name=aside.replace("/topics/", "/subscriptions/"), topic=aside).name
    policy = {"dead_letter_topic": aside, "max_delivery_attempts": 5}
    name = topic.replace("/topics/", "/subscriptions/")
    wish = {"name": name, "topic": topic, "dead_letter_policy": policy}
    subscriber.create_subscription(wish)
    publish(publisher, topic, b"poison")
    for attempt in range(1, 6):
        (delivered,) = pull(subscriber, name)
        assert delivered.delivery_attempt == attempt
        expire()
    assert pull(subscriber, name) == []
    (dead,) = pull(subscriber, kept)
    assert dead.message.data == b"poison"
    assert dead.message.attributes["CloudPubSubDeadLetterSourceDeliveryCount"] == "5"


def test_topics_and_subscriptions_are_listed_read_and_deleted(
    publisher: Any, subscriber: Any, topic: str, subscription: str
) -> None:
    assert topic in [each.name for each in publisher.list_topics(project="projects/lintas-test")]
    assert subscriber.get_subscription(subscription=subscription).topic == topic
    publisher.delete_topic(topic=topic)
    assert subscriber.get_subscription(subscription=subscription).topic == "_deleted-topic_"
    subscriber.delete_subscription(subscription=subscription)
    with pytest.raises(exceptions.NotFound):
        subscriber.get_subscription(subscription=subscription)
    with pytest.raises(exceptions.NotFound):
        publish(publisher, topic)


def test_what_is_there_already_and_what_is_not_there_are_told(
    publisher: Any, subscriber: Any, topic: str, subscription: str
) -> None:
    with pytest.raises(exceptions.Conflict):
        publisher.create_topic(name=topic)
    with pytest.raises(exceptions.Conflict):
        subscriber.create_subscription(name=subscription, topic=topic)
    with pytest.raises(exceptions.NotFound):
        subscriber.create_subscription(name=f"{subscription}-2", topic=f"{topic}-nowhere")
    with pytest.raises(exceptions.BadRequest):
        subscriber.create_subscription(name=f"{subscription}-2", topic=topic, ack_deadline_seconds=5)


@pytest.mark.parametrize(
    ("wish", "error"),
    [
        ({"filter": "attributes.x"}, exceptions.MethodNotImplemented),
        ({"enable_exactly_once_delivery": True}, exceptions.MethodNotImplemented),
        ({"push_config": {"push_endpoint": "https://example.com"}}, exceptions.MethodNotImplemented),
    ],
)
def test_what_is_not_imitated_is_refused_and_not_ignored(
    subscriber: Any, topic: str, wish: dict[str, Any], error: type[Exception]
) -> None:
    name = topic.replace("/topics/", "/subscriptions/")
    with pytest.raises(error):
        subscriber.create_subscription({"name": name, "topic": topic, **wish})


def test_a_wrong_token_is_refused_in_googles_words(google: CloudConfig) -> None:
    url = f"{google.endpoint('events')}/v1/projects/lintas-test/topics/any"
    answer = httpx.put(url, json={}, headers={"authorization": "Bearer wrong"})
    assert (answer.status_code, answer.json()["error"]["status"]) == (401, "UNAUTHENTICATED")


def test_the_fields_are_those_of_the_official_package() -> None:
    for name, understood in FIELDS.items():
        official = {_camel(field) for field in getattr(v1, name).meta.fields}
        assert understood <= official, name
        assert official - understood - NOT_IMITATED.get(name, frozenset()) == set(), name


def _camel(name: str) -> str:
    return re.sub(r"_([a-z])", lambda found: found[1].upper(), name)


def test_leases_end_by_the_clock() -> None:
    time = [0.0]
    broker = Broker(lambda: time[0])
    broker.create_topic({"name": "projects/p/topics/t"})
    broker.create_subscription({"name": "projects/p/subscriptions/s", "topic": "projects/p/topics/t"})
    broker.publish("projects/p/topics/t", [{"attributes": {"a": "b"}}])
    assert len(broker.pull("projects/p/subscriptions/s", 10)) == 1
    time[0] = 9.9
    assert broker.pull("projects/p/subscriptions/s", 10) == []
    time[0] = 10.1
    assert len(broker.pull("projects/p/subscriptions/s", 10)) == 1
    with pytest.raises(Refused):
        broker.publish("projects/p/topics/t", [{}])


# What Cloud Storage publishes


def notified(google: CloudConfig, topic: str, **wanted: Any) -> Any:
    """A new bucket with a notification configuration."""
    client = storage.Client(
        project=google.option("project"),
        credentials=Credentials(google.credentials["token"].reveal()),
        client_options={"api_endpoint": google.endpoint("objects")},
    )
    bucket: Any = client.create_bucket(f"n-{uuid.uuid4().hex[:8]}")
    name = topic.rpartition("/")[2]
    bucket.notification(name, topic_project="lintas-test", payload_format="JSON_API_V1", **wanted).create()
    return bucket


def changes(subscriber: Any, subscription: str, count: int) -> list[tuple[Mapping[str, str], dict[str, Any]]]:
    found: list[tuple[Mapping[str, str], dict[str, Any]]] = []
    while len(found) < count:
        answer = subscriber.pull(subscription=subscription, max_messages=10, timeout=15)
        found += [(dict(each.message.attributes), json.loads(each.message.data)) for each in answer.received_messages]
    return found


def test_every_change_is_published_with_the_object_as_it_is(
    google: CloudConfig, subscriber: Any, topic: str, subscription: str
) -> None:
    bucket = notified(google, topic, custom_attributes={"by": "lintas"})
    blob = bucket.blob("dir/a b+ä.csv")
    blob.upload_from_string(b"one")
    first = blob.generation
    blob.upload_from_string(b"three")
    blob.metadata = {"a": "b"}
    blob.patch()
    blob.delete()
    told = changes(subscriber, subscription, 5)
    kinds = [attributes["eventType"] for attributes, _ in told]
    assert sorted(kinds) == sorted(
        ["OBJECT_FINALIZE", "OBJECT_DELETE", "OBJECT_FINALIZE", "OBJECT_METADATA_UPDATE", "OBJECT_DELETE"]
    )
    attributes, described = told[0]
    assert (attributes["bucketId"], attributes["objectId"]) == (bucket.name, "dir/a b+ä.csv")
    assert attributes["objectGeneration"] == described["generation"] == str(first)
    assert (attributes["payloadFormat"], attributes["by"], described["size"]) == ("JSON_API_V1", "lintas", "3")
    overwriting = [each for each, _ in told if "overwroteGeneration" in each]
    assert [each["overwroteGeneration"] for each in overwriting] == [str(first)]


def test_only_what_is_asked_for_is_published(
    google: CloudConfig, subscriber: Any, topic: str, subscription: str
) -> None:
    bucket = notified(google, topic, event_types=["OBJECT_FINALIZE"], blob_name_prefix="in/")
    bucket.blob("out/x").upload_from_string(b"x")
    bucket.blob("in/x").upload_from_string(b"x")
    bucket.blob("in/x").delete()
    bucket.blob("in/y").upload_from_string(b"x")
    told = changes(subscriber, subscription, 2)
    assert [attributes["objectId"] for attributes, _ in told] == ["in/x", "in/y"]


def test_a_notification_that_nobody_took_outlives_the_process(tmp_path: Any) -> None:
    from deployments.local.cloud_storage.catalog import Catalog

    catalog = Catalog(tmp_path, "projects/p/topics/t")
    catalog.create_bucket("raw", {})
    with catalog.transaction():
        catalog.notifications.changed("OBJECT_FINALIZE", {"bucket": "raw", "name": "x", "generation": "1"})
    catalog.database.close()
    ((_, topic, message),) = Catalog(tmp_path).notifications.unpublished()
    assert (topic, message["attributes"]["objectId"]) == ("projects/p/topics/t", "x")

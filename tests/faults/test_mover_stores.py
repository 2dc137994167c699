"""What the stores under the mover make of trouble that only they see: a wrong clock, a head that was cut."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest

from tasks.core.errors import Denied, LintasError, Retryable
from tests.conformance.stores import open_store, pointed_at, put
from tests.faults.storm import Clock
from tests.servers import ObjectClouds

DAY_S = 86_400


@contextmanager
def answering(head: bytes) -> Iterator[int]:
    """A port that answers every request with this and closes the connection."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        with suppress(OSError):
            while True:
                client, _ = listener.accept()
                with client:
                    client.recv(65536)
                    client.sendall(head)

    threading.Thread(target=serve, daemon=True).start()
    try:
        yield int(listener.getsockname()[1])
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()


def test_a_connection_that_is_cut_before_the_answer_proper_is_no_endless_wait(object_clouds: ObjectClouds) -> None:
    with answering(b"HTTP/1.1 100 Continue\r\n") as port, pytest.raises(Retryable):
        put(open_store(pointed_at(object_clouds["aws"], port), "b"), "k", b"content")


@pytest.mark.parametrize("cloud", ["aws", "azure", "google"])
def test_an_answer_whose_head_was_cut_is_no_answer(object_clouds: ObjectClouds, cloud: str) -> None:
    with answering(b"HTTP/1.1 200 OK\r\nServer: x\r\nCont") as port:
        store = open_store(pointed_at(object_clouds[cloud], port), "b")
        with pytest.raises(LintasError):
            put(store, "k", b"content")
        with pytest.raises(LintasError):
            store.head("k")
        with pytest.raises(Retryable):
            b"".join(store.get("k"))


@pytest.mark.parametrize(("ahead_s", "how"), [(-1200, "20 minutes behind"), (2 * DAY_S, "2 days ahead of")])
@pytest.mark.parametrize("cloud", ["aws", "azure"])
def test_a_wrong_clock_is_named(object_clouds: ObjectClouds, cloud: str, ahead_s: float, how: str) -> None:
    config = object_clouds[cloud]
    with Clock(config.endpoint("objects"), ahead_s=ahead_s) as clock:
        store = open_store(pointed_at(config, clock.port), "clocks")
        with pytest.raises(Denied, match=f"clock is {how} that of {cloud}"):
            store.create_bucket()
        with pytest.raises(Denied, match=f"clock is {how} that of {cloud}"):
            store.head("k")

        clock.ahead_s = 600
        store.create_bucket()


def test_a_key_that_is_wrong_is_not_the_clock(object_clouds: ObjectClouds) -> None:
    config = object_clouds["aws"]
    wrong = {**config.credentials, "secret_access_key": config.credentials["access_key_id"]}
    store = open_store(type(config)(config.name, config.provider, config.region, "EU", config.endpoints, wrong), "b")
    with pytest.raises(Denied, match="refused its credentials"):
        store.create_bucket()

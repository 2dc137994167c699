"""The event bridge: carries events from the clouds' queues to Prefect. Start: `python -m deployments.event_bridge`.

One thread a queue. An event is acknowledged only after Prefect took it, and its id follows from the source's, so that
a crash between the two delivers it twice and still starts one run.
"""

from __future__ import annotations

import logging
import os
import signal
import threading

from tasks.core.errors import LintasError
from tasks.core.ports import EventSource
from tasks.events import emit, landed_dataset, prefect_event
from tasks.registry import installation

_LOG = logging.getLogger("lintas.event_bridge")
_LONGEST_PAUSE_S = 30.0


def carry(source: EventSource, *, prefect_api_url: str, auth: str | None, wait_s: float) -> int:
    """Take one batch from a queue to Prefect and acknowledge it; returns how many datasets landed.

    Raises:
        Retryable: The queue or Prefect is unreachable; nothing of the batch is acknowledged.
    """
    batch = source.receive(wait_s=wait_s)
    landed = [(event, dataset) for event, _ in batch if (dataset := landed_dataset(event)) is not None]
    if landed:
        emit([prefect_event(event, dataset) for event, dataset in landed], prefect_api_url=prefect_api_url, auth=auth)
    for _, receipt in batch:
        source.acknowledge(receipt)
    for _, dataset in landed:
        _LOG.info("landed: %s", dataset)
    return len(landed)


def watch(name: str, source: EventSource, stop: threading.Event, *, prefect_api_url: str, auth: str | None) -> None:
    """Carry until told to stop; pauses grow while a side is unreachable, and what was not understood is logged."""
    pause_s = 0.5
    while not stop.is_set():
        try:
            carry(source, prefect_api_url=prefect_api_url, auth=auth, wait_s=5.0)
            pause_s = 0.5
        except LintasError as error:
            _LOG.warning("%s: %s", name, error)
            stop.wait(pause_s)
            pause_s = min(pause_s * 2, _LONGEST_PAUSE_S)


def main() -> None:
    """Watch the queues of all configured clouds until SIGTERM or SIGINT."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s")
    here = installation()
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    url, auth = here.settings.services.prefect_api_url, os.environ.get("PREFECT_API_AUTH_STRING")
    threads = [
        threading.Thread(
            target=watch, args=(name, source, stop), kwargs={"prefect_api_url": url, "auth": auth}, name=name
        )
        for name, source in here.event_sources().items()
    ]
    for thread in threads:
        thread.start()
    _LOG.info("watching %s", ", ".join(thread.name for thread in threads) or "no queue")
    stop.wait()
    for thread in threads:
        thread.join()


if __name__ == "__main__":
    main()

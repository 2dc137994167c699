"""The event bridge: carries events from the clouds and the model registry to Prefect.

Start: `python -m deployments.event_bridge`.

One thread a source. An event is acknowledged only after Prefect took it, and its id follows from the source's, so that
a crash between the two delivers it twice and still starts one run. While Prefect is away the bridge holds the events
that it has and takes no more: a queue that counts deliveries must not give them up. An event that nobody can do
anything with is written into `STATE_DIR/events/set-aside.jsonl` for a person, and the others go on.
"""

from __future__ import annotations

import contextlib
import functools
import json
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tasks.core.errors import Invalid, LintasError
from tasks.core.ports import CloudEvent, EventSource
from tasks.events import emit, prefect_event
from tasks.registry import Installation, installation
from tasks.settings import resolve_secret

_LOG = logging.getLogger("lintas.event_bridge")
_WAIT_S = 5.0
_FIRST_PAUSE_S = 0.5
_LONGEST_PAUSE_S = 30.0
_FAREWELL_S = 10.0

Batch = Sequence[tuple[CloudEvent, str]]
"""Events with their receipts, as `EventSource.receive` gives them."""


@dataclass(frozen=True, slots=True)
class Destination:
    """Where events go.

    Args:
        prefect_api_url: Ends in `/api`.
        set_aside: File (JSON lines) for events that nobody can do anything with.
        auth: `user:password` of a server that asks for it.
    """

    prefect_api_url: str
    set_aside: Path
    auth: str | None = field(default=None, repr=False)

    def hand_over(self, told: Sequence[tuple[CloudEvent, dict[str, Any]]]) -> None:
        """Give events to Prefect in its own form; those that it refuses for what they are are set aside.

        Raises:
            LintasError: Prefect is away, or refuses the bridge: hand them over again.
        """
        if not told:
            return
        try:
            emit([form for _, form in told], prefect_api_url=self.prefect_api_url, auth=self.auth)
        except Invalid as error:
            if len(told) == 1:
                self.put_aside(told[0][0], error)
                return
            for each in told:
                self.hand_over([each])
        else:
            for _, form in told:
                _LOG.info("%s: %s", form["event"], form["resource"]["prefect.resource.name"])

    def put_aside(self, event: CloudEvent, why: LintasError) -> None:
        """Keep an event for a person."""
        _LOG.error("event %s is set aside: %s", event.id, why)
        kept = {
            "time": datetime.now(UTC).isoformat(),
            "event": {"id": event.id, "type": event.type, "source": event.source, "subject": event.subject},
            "why": str(why),
        }
        self.set_aside.parent.mkdir(parents=True, exist_ok=True)
        with self.set_aside.open("a", encoding="utf-8") as file:
            file.write(json.dumps(kept) + "\n")


def carry(source: EventSource, batch: Batch, to: Destination) -> None:
    """Take a batch to Prefect and acknowledge it. It may be carried again, whatever of that was done before.

    Raises:
        LintasError: The source or Prefect is away; what is not acknowledged is to be carried again.
    """
    told: list[tuple[CloudEvent, dict[str, Any]]] = []
    for event, _ in batch:
        try:
            form = prefect_event(event)
        except Invalid as error:
            to.put_aside(event, error)
            continue
        if form is not None:
            told.append((event, form))
    to.hand_over(told)
    for _, receipt in batch:
        source.acknowledge(receipt)


def watch(
    name: str,
    open_source: Callable[[], EventSource],
    to: Destination,
    stop: threading.Event,
    tried: threading.Event,
) -> None:
    """Carry until told to stop, whatever goes wrong: pauses grow, and each failure is logged.

    Args:
        name: The source.
        open_source: Opens its events.
        to: Where they go.
        stop: Ends it.
        tried: Set when opening was tried for the first time.
    """
    source: EventSource | None = None
    batch: Batch = ()
    pause_s = _FIRST_PAUSE_S
    while not stop.is_set():
        try:
            if source is None:
                source = open_source()
            tried.set()
            batch = batch or source.receive(wait_s=_WAIT_S)
            carry(source, batch, to)
            batch, pause_s = (), _FIRST_PAUSE_S
            continue
        except LintasError as error:
            _LOG.warning("%s: %s", name, error)
        except Exception as error:  # noqa: BLE001  (one cloud's surprise must not end the others; its text may hold data)
            _LOG.error("%s: an unexpected %s; its events are opened anew", name, type(error).__name__)
            source, batch = None, ()
        tried.set()
        stop.wait(pause_s)
        pause_s = min(pause_s * 2, _LONGEST_PAUSE_S)


def registry(here: Installation, running: contextlib.ExitStack) -> Callable[[], EventSource] | None:
    """What opens the model registry's events, with its webhook listening; None where no webhook is configured.

    Raises:
        Invalid: It cannot listen.
        Denied: The secret cannot be read.
    """
    webhook = here.settings.services.registry_webhook
    if webhook is None:
        return None
    # Only now: most of what it needs is a web server.
    from deployments.registry_events import Inbox, application, listen, subscribe

    secret, inbox = resolve_secret(webhook.secret), Inbox(here.settings.state_dir / "events" / "registry")
    running.callback(listen(webhook.listen, application(inbox, secret)))

    def open_source() -> EventSource:
        subscribe(here.settings.services.mlflow_url, webhook.url or f"http://{webhook.listen}", secret)
        return inbox

    return open_source


def main() -> int:
    """Watch all sources that are set up for it until SIGTERM or SIGINT; the exit code."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s")
    # They log every request.
    for talkative in ("httpx", "azure"):
        logging.getLogger(talkative).setLevel(logging.WARNING)
    with contextlib.ExitStack() as running:
        try:
            here = installation()
            url = here.settings.services.prefect_api_url
            if not url:
                raise Invalid("services.prefect_api_url is missing", "set it in lintas.yaml")
            sources: dict[str, Callable[[], EventSource]] = {
                cloud: functools.partial(here.event_source, cloud) for cloud in here.event_clouds()
            }
            if (of_registry := registry(here, running)) is not None:
                sources["the model registry"] = of_registry
        except LintasError as error:
            print(f"event bridge: {error}", file=sys.stderr)
            return error.exit_code
        set_aside = here.settings.state_dir / "events" / "set-aside.jsonl"
        watch_all(sources, Destination(url, set_aside, os.environ.get("PREFECT_API_AUTH_STRING")))
    return 0


def watch_all(sources: Mapping[str, Callable[[], EventSource]], to: Destination) -> None:
    """Watch until SIGTERM or SIGINT, a thread a source.

    Args:
        sources: What opens each, by its name in the log.
        to: Where events go.
    """
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    threads: list[threading.Thread] = []
    all_tried: list[threading.Event] = []
    for name, open_source in sources.items():
        tried = threading.Event()
        # What is not done when the process ends is done by the next one.
        threads.append(
            threading.Thread(target=watch, args=(name, open_source, to, stop, tried), name=name, daemon=True)
        )
        all_tried.append(tried)
        threads[-1].start()
    while not all(tried.wait(0.1) for tried in all_tried) and not stop.is_set():
        pass
    _LOG.info("watching %s", ", ".join(sources) or "nothing")
    stop.wait()
    for thread in threads:
        thread.join(_FAREWELL_S)


if __name__ == "__main__":
    sys.exit(main())

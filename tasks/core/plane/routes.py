"""Which way a move takes, and what becomes of it when the way turns out to be closed."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from tasks.core.errors import Denied, Invalid, LintasError, Terminal
from tasks.core.plane import Arrived, CopiedObject, Load, Plane, Route
from tasks.core.plane.direct import DirectPlane
from tasks.core.plane.jobs import JobPlane, jobs_closed, jobs_of
from tasks.core.plane.limits import NO_LIMITS, Limits
from tasks.core.plane.server_side import ServerSidePlane, way_between
from tasks.core.plane.stream import StreamPlane

if TYPE_CHECKING:
    from tasks.core.ports import Store, UploadJournal

_log = logging.getLogger(__name__)


def route_between(source: Store, destination: Store) -> Route:
    """The way that moves the fewest bytes through this machine. Asks neither store.

    `server-side` or `pull` where the destination brings objects from the source by itself; else `direct` when both
    stores sign for others; else `stream`.
    """
    way = way_between(source, destination)
    if way is None and jobs_of(destination) is not None and not jobs_closed(source, destination):
        return "pull"
    return way or _through_here(source, destination)


def why_no_pull(source: Store, destination: Store) -> str:
    """Why the destination does not pull although its configuration asks for it; else empty. Asks neither store."""
    return "" if way_between(source, destination) else jobs_closed(source, destination)


def _through_here(source: Store, destination: Store) -> Route:
    able = all(hasattr(type(store), "direct") for store in (source, destination))
    return "direct" if able else "stream"


def plane_for(
    route: Route,
    *,
    uploads: UploadJournal | None = None,
    key_prefix: str = "",
    limits: Limits = NO_LIMITS,
    say: Callable[[str], None] = _log.warning,
) -> Plane:
    """The plane of a planned route.

    Args:
        route: From `route_between`.
        uploads, key_prefix: See `DirectPlane`.
        limits: What may pass through this machine; what a service copies by itself does not.
        say: Called with a sentence when the move goes on by another route.
    """
    stream = StreamPlane(uploads=uploads, key_prefix=key_prefix, limits=limits)
    if route == "stream":
        return stream
    own = DirectPlane(uploads=uploads, key_prefix=key_prefix, limits=limits)
    direct = FallingBack(own, stream, say, "stream through the SDKs")
    if route == "direct":
        return direct
    first = (
        ServerSidePlane(uploads=uploads, key_prefix=key_prefix)
        if route == "server-side"
        else PullPlane(uploads, key_prefix)
    )
    return FallingBack(first, direct, say, "pass through this machine")


class PullPlane:
    """Has the destination pull: each object by itself where it can, or many by a job; arguments as of `JobPlane`."""

    def __init__(self, uploads: UploadJournal | None = None, key_prefix: str = "") -> None:
        self._uploads, self._key_prefix = uploads, key_prefix

    def carry(self, loads: Sequence[Load], source: Store, destination: Store, arrived: Arrived) -> None:
        """See `Plane.carry`."""
        jobs = JobPlane(uploads=self._uploads, key_prefix=self._key_prefix)
        plane = ServerSidePlane() if way_between(source, destination) else jobs
        plane.carry(loads, source, destination, arrived)


class FallingBack:
    """A plane with another one behind it, for what the first cannot do here.

    Refused credentials, a certificate that is not trusted, an object of too many parts or an answer that is not
    understood closes a route. Wrong bytes, changed objects and silence do not: another route would meet the same.
    """

    def __init__(
        self, first: Plane, second: Plane, say: Callable[[str], None], instead: str = "stream through the SDKs"
    ) -> None:
        self._first, self._second, self._say, self._instead = first, second, say, instead

    def carry(self, loads: Sequence[Load], source: Store, destination: Store, arrived: Arrived) -> None:
        """See `Plane.carry`."""
        if not loads:
            # The last plane knows all that earlier runs may have left.
            self._second.carry(loads, source, destination, arrived)
            return
        there: set[str] = set()
        lock = threading.Lock()

        def note(load: Load, item: CopiedObject) -> None:
            with lock:
                there.add(load.key)
            arrived(load, item)

        try:
            self._first.carry(loads, source, destination, note)
        except LintasError as error:
            if not closes(error):
                raise
            rest = [load for load in loads if load.key not in there]
            self._say(f"{len(rest)} objects {self._instead} instead: {error}")
            self._second.carry(rest, source, destination, arrived)


def closes(error: LintasError) -> bool:
    """Whether an error says that this route does not work here, whatever the objects."""
    return isinstance(error, (Denied, Invalid)) or type(error) is Terminal

"""Mirroring: a version gets a copy of some of the requests before it serves any; nobody sees its answers.

It is a rehearsal beside the live release and changes nothing of it: no record, no alias, no share of traffic. What is
mirrored stands in the clouds alone, and ends when a version is promoted in earnest, or when it is set to nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta

from tasks.core.errors import Invalid, LintasError, NotFound, Terminal
from tasks.core.ports import MirroringServer, ReleaseBook
from tasks.core.release import Endpoint, EndpointSpec, Release, final, governing


def release_to_mirror(book: ReleaseBook, model: str, digest: str, clouds: tuple[str, ...], percent: int) -> Release:
    """The live release whose requests are to be mirrored.

    Args:
        book: The record.
        model, digest: What is to get the copies.
        clouds: Where.
        percent: How many of a hundred requests are copied; 0 ends it.

    Raises:
        NotFound: Nothing of this model is live on one of these clouds, so there are no requests.
        Invalid: The percentage is not one, no cloud is named, or these very files are what is live.
    """
    if not 0 <= percent <= 100:
        raise Invalid(f"{percent} percent of the requests cannot be mirrored", "choose a whole number from 0 to 100")
    if not clouds:
        raise Invalid("mirroring needs at least one cloud", "name the clouds")
    ruling = governing(book, model)
    for cloud in clouds:
        if ruling is None or ruling.live_since is None or cloud not in ruling.targets:
            raise NotFound(f"nothing of '{model}' is live on '{cloud}', so there are no requests to mirror",
                           "promote a version there first, without mirroring")  # fmt: skip
    assert ruling is not None
    if percent and ruling.digest == digest:
        raise Invalid(f"these files of '{model}' are live already", "mirror to another version")
    return ruling


def mirror_until(
    spec: EndpointSpec,
    percent: int,
    servers: Mapping[str, MirroringServer],
    *,
    clock: Callable[[], datetime],
    sleep: Callable[[float], None],
    deadline_s: float = 600.0,
    poll_s: float = 0.5,
) -> tuple[Endpoint, ...]:
    """Ask every cloud until each mirrors exactly this; run again it goes on from what the clouds say.

    Args:
        spec: The version that gets the copies.
        percent: How many of a hundred requests are copied; 0 ends it.
        servers: By cloud.
        clock: Tells the time, timezone-aware.
        sleep: Waits for so many seconds.
        deadline_s: How long to try.
        poll_s: Seconds between two looks.

    Returns:
        The endpoints as they are observed then.

    Raises:
        Terminal: A version does not start, or not in time; the live release serves as before.
        LintasError: What a cloud refuses for good.
    """
    give_up = clock() + timedelta(seconds=deadline_s)
    wanted = (spec.version, percent) if percent else ("", 0)
    done: dict[str, Endpoint] = {}
    while True:
        lacking: dict[str, str] = {}
        for cloud, server in servers.items():
            if cloud in done:
                continue
            try:
                seen = server.mirror(spec, percent)
            except LintasError as error:
                if final(error):
                    raise
                lacking[cloud] = error.what
                continue
            if (seen.mirror_version, seen.mirror_percent) == wanted:
                done[cloud] = seen
            else:
                lacking[cloud] = seen.detail or "not mirrored yet"
        if not lacking:
            return tuple(done[cloud] for cloud in servers)
        if clock() >= give_up:
            told = ", ".join(f"{cloud}: {why}" for cloud, why in lacking.items())
            raise Terminal(f"not mirrored after {deadline_s:.0f} s: {told}", "mend the version, or mirror fewer clouds")
        sleep(poll_s)

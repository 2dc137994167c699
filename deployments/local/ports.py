"""Ports of the local twin: the same at every start while they are free, so that links and deployments stay valid."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from random import SystemRandom

from deployments.local.processes import HOST, require_free
from tasks.core.errors import Invalid

# SeaweedFS takes for itself the ports 10,000 above those that it is given: no port that is drawn is one of these.
PORTS = range(12_000, 22_000)

OWN_PORTS = "LINTAS_PORTS"
"""In the environment: the first port and the last of those that this process may draw (`12000-14999`), so that of
several that start servers at the same time none draws what another has drawn and not yet taken."""


def free_ports(count: int) -> list[int]:
    """`count` different TCP ports of 127.0.0.1 that nobody listens on now.

    They lie below those that Linux gives to outgoing connections (ip(7), `ip_local_port_range`): one of these could
    take a port between its choice and its use. They are drawn by lot, so that two who choose at the same time
    choose differently.
    """
    first, _, last = os.environ.get(OWN_PORTS, f"{PORTS[0]}-{PORTS[-1]}").partition("-")
    ports = range(int(first), int(last) + 1)
    drawn = iter(SystemRandom().sample(ports, len(ports)))
    with ExitStack() as held:
        chosen: list[int] = []
        while len(chosen) < count:
            probe, port = held.enter_context(socket.socket()), next(drawn)
            with suppress(OSError):
                probe.bind((HOST, port))
                chosen.append(port)
        return chosen


def is_free(port: int) -> bool:
    """Whether nobody listens on the port of 127.0.0.1 now."""
    try:
        require_free(port)
    except Invalid:
        return False
    return True


def choose_ports(
    book: Path,
    names: Sequence[str],
    *,
    preferred: Mapping[str, int] | None = None,
    demanded: Mapping[str, int] | None = None,
) -> dict[str, int]:
    """A port for each name, remembered in `book` for the next start.

    Args:
        book: JSON file of the ports that were used last time; written anew.
        names: What needs a port.
        preferred: Ports that people know a service by; taken when nothing was remembered and they are free.
        demanded: Ports that the caller insists on.

    Raises:
        Invalid: A demanded port is in use; the user stops what listens there or names another.
    """
    remembered: dict[str, int] = json.loads(book.read_text()) if book.exists() else {}
    fallback = {**(preferred or {}), **remembered}
    chosen: dict[str, int] = {name: require_free(port) for name, port in (demanded or {}).items() if name in names}
    for name in names:
        port = fallback.get(name)
        if name not in chosen and port is not None and port not in chosen.values() and is_free(port):
            chosen[name] = port
    missing = [name for name in names if name not in chosen]
    spare = [port for port in free_ports(len(missing) + len(chosen)) if port not in chosen.values()]
    chosen |= dict(zip(missing, spare, strict=False))
    book.parent.mkdir(parents=True, exist_ok=True)
    book.write_text(json.dumps({**remembered, **chosen}, indent=1, sort_keys=True))
    return chosen

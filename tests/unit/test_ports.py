"""Ports of the local twin: nobody listens on them, and none is drawn beyond those that are one's own."""

from __future__ import annotations

import socket

import pytest

from deployments.local.ports import OWN_PORTS, PORTS, free_ports


def test_ports_are_drawn_from_ones_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(OWN_PORTS, "12100-12109")
    with socket.socket() as taken:
        (port,) = free_ports(1)
        taken.bind(("127.0.0.1", port))
        others = free_ports(5)
    assert len({port, *others}) == 6
    assert set(others) <= set(range(12_100, 12_110))


def test_without_any_all_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(OWN_PORTS, raising=False)
    assert set(free_ports(20)) <= set(PORTS)

"""What every test may ask for: servers, clouds that compute, the whole twin; and the table of the conformance run."""

import os

from hypothesis import settings

from deployments.local.ports import OWN_PORTS, PORTS

# A process for Data Docs after every verdict would take seconds each: the tests of Data Docs ask for them.
os.environ.setdefault("LINTAS_GATE__DATA_DOCS", "false")

# Processes of the suite draw their servers' ports each from a part of its own.
if "PYTEST_XDIST_WORKER" in os.environ:
    _each = len(PORTS) // int(os.environ["PYTEST_XDIST_WORKER_COUNT"])
    _first = PORTS[_each * int(os.environ["PYTEST_XDIST_WORKER"].removeprefix("gw"))]
    os.environ[OWN_PORTS] = f"{_first}-{_first + _each - 1}"

# How long an example takes says how busy the machine is.
settings.register_profile("suite", deadline=None)
settings.load_profile("suite")

pytest_plugins = [
    "tests.accounts",
    "tests.servers",
    "tests.compute_clouds",
    "tests.whole_stack",
    "tests.conformance_table",
    "tests.parallel",
]

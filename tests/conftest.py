"""What every test may ask for: servers, clouds that compute, the whole twin; and the table of the conformance run."""

import os

# A process for Data Docs after every verdict would take seconds each: the tests of Data Docs ask for them.
os.environ.setdefault("LINTAS_GATE__DATA_DOCS", "false")

pytest_plugins = [
    "tests.accounts",
    "tests.servers",
    "tests.compute_clouds",
    "tests.whole_stack",
    "tests.conformance_table",
    "tests.parallel",
]

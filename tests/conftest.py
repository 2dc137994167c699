"""What every test may ask for: servers, clouds that compute, the whole twin; and the table of the conformance run."""

pytest_plugins = [
    "tests.accounts",
    "tests.servers",
    "tests.compute_clouds",
    "tests.whole_stack",
    "tests.conformance_table",
    "tests.parallel",
]

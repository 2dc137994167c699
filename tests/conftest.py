"""What every test may ask for; the servers are in `tests/servers.py`, the whole twin in `tests/whole_stack.py`."""

pytest_plugins = ["tests.servers", "tests.compute_clouds"]

"""What every test may ask for; the servers themselves are in `tests/servers.py`."""

pytest_plugins = ["tests.servers"]

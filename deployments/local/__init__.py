"""The local twin: the servers that stand in for the clouds on one machine, for the demo, development and tests."""

"""How flows are reached and run: the command, the event bridge, the local twin."""

"""Knobs for servers that have none: one process in front of the twin's object stores and queues."""

"""A small, strict double of Google Cloud Storage: JSON API, and of the XML API what object clients need.

Generations, preconditions and checksums are enforced as the service enforces them; what is not imitated is refused
with 501, never ignored. Run it with `python -m deployments.local.cloud_storage --port N --data DIR --token-file F`.
"""

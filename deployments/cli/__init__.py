"""The `lintas` command. `main` is its entry point."""

from deployments.cli.app import main

__all__ = ["main"]

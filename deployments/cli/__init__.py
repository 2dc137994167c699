"""The `lintas` command. `main` is its entry point."""

from deployments.cli.main import main

__all__ = ["main"]

"""What the scoring host is made of.

    host (HTTP, asyncio) -> endpoints -> fork_server ~ socket ~ zygote (one thread) -> fork -> process (HTTP, MLflow)

The zygote imports MLflow and scikit-learn once; a scoring process is a fork of it and starts in well under a second.
It never runs a thread or an event loop of its own, since neither survives a fork.
"""

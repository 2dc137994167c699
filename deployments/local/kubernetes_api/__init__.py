"""The double of the Kubernetes API: a strict little cluster whose pods are processes of this machine.

    app (HTTP) -> objects (what is wanted) <- controllers (Job, Deployment) -> nodes (scheduling), pods (processes)

What it does not imitate stands in docs/clouds/coreweave.md.
"""

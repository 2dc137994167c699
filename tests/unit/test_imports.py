"""Starting is cheap: what loads no SDK today must not load one tomorrow."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

SDKS = (
    "boto3",
    "botocore",
    "google.cloud.storage",
    "azure.storage.blob",
    "kubernetes",
    "mlflow",
    "great_expectations",
    "pandas",
    "sklearn",
)


def loaded(statement: str) -> set[str]:
    script = f"{statement}\nimport sys, json; print(json.dumps(sorted(sys.modules)), file=sys.__stdout__)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(json.loads(done.stdout.splitlines()[-1]))


@pytest.mark.parametrize(
    "statement",
    [
        "import flows.lifecycle, flows.reconcile, flows.audit",
        "import tasks.registry; tasks.registry.providers()",
    ],
)
def test_importing_flows_and_providers_loads_no_sdk(statement: str) -> None:
    assert loaded(statement).isdisjoint(SDKS)


def test_help_loads_neither_an_sdk_nor_prefect() -> None:
    statement = (
        "import sys, contextlib, io; sys.argv = ['lintas', '--help']\n"
        "from deployments.cli import main\n"
        "with contextlib.suppress(SystemExit), contextlib.redirect_stdout(io.StringIO()): main()"
    )
    assert loaded(statement).isdisjoint((*SDKS, "prefect", "pydantic", "pyarrow", "polars"))


def test_an_installation_that_treats_nothing_loads_no_treatment() -> None:
    assert "polars" not in loaded("import tasks.registry; tasks.registry.providers()")


def test_core_loads_neither_prefect_nor_an_sdk() -> None:
    modules = "dataset, transfer, privacy, policy, placement, training, release, reconcile, audit, evaluation, ports"
    assert loaded(f"from tasks.core import {modules}").isdisjoint((*SDKS, "prefect", "pydantic", "yaml"))


def test_a_process_that_carries_for_another_loads_neither_an_sdk_nor_arrow() -> None:
    signing = "_dialects.s3_signing, tasks.providers.azure.signing, tasks.providers.google.signing"
    modules = loaded(f"import tasks.core.plane.hand, tasks.providers.{signing}")
    assert modules.isdisjoint((*SDKS, "azure.core", "google.auth", "requests", "pyarrow", "numpy", "pydantic"))

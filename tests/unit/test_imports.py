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


def test_what_the_command_moves_by_loads_neither_prefect_nor_what_reads_tables() -> None:
    modules = loaded("from flows.moving import move_to_all, prepare; import tasks.registry; tasks.registry.providers()")
    assert modules.isdisjoint((*SDKS, "prefect", "polars", "cryptography", "pyarrow.parquet", "tasks.core.treatments"))


@pytest.mark.parametrize(
    "statement",
    [
        "import deployments.event_bridge",
        "import tasks.placement, tasks.core.release, tasks.registry; tasks.registry.providers()",
        "import tasks.auditing, tasks.quarantine",
    ],
)
def test_who_watches_events_or_reads_prices_or_records_loads_neither_arrow_nor_prefect(statement: str) -> None:
    assert loaded(statement).isdisjoint((*SDKS, "pyarrow", "numpy", "polars", "prefect"))


def test_core_loads_neither_prefect_nor_an_sdk() -> None:
    modules = "dataset, transfer, privacy, policy, placement, training, release, reconcile, audit, evaluation, ports"
    assert loaded(f"from tasks.core import {modules}").isdisjoint((*SDKS, "prefect", "pydantic", "yaml"))


def test_a_process_that_carries_for_another_loads_neither_an_sdk_nor_arrow() -> None:
    signing = "_dialects.s3_signing, tasks.providers.azure.signing, tasks.providers.google.signing"
    modules = loaded(f"import tasks.core.plane.hand, tasks.providers.{signing}")
    assert modules.isdisjoint((*SDKS, "azure.core", "google.auth", "requests", "pyarrow", "numpy", "pydantic"))


def test_opening_stores_and_listing_loads_no_settings_and_nothing_that_reads_tables() -> None:
    statement = """
import pathlib, tempfile
from benchmarks.mover.stubs import cloud
from tasks.core.cloud import CloudConfig
from tasks.core.dataset import DatasetURI
from tasks.core.listing import listed_rows
from tasks.core.plane.direct import DirectPlane
from tasks.registry import providers
for dialect in ("s3", "azure", "gcs"):
    config = cloud(dialect, "http://127.0.0.1:9")
    providers()[config.provider].open_store(config, "bucket").direct.get("key", version="", start=0, length=None)
with tempfile.TemporaryDirectory() as root:
    store = providers()["onprem"].open_store(CloudConfig("here", "onprem", options={"root": root}), "bucket")
    store.create_bucket()
    (pathlib.Path(root) / "bucket" / "name").write_bytes(b"1")
    assert len(listed_rows(store, DatasetURI("here", "bucket", ""))) == 1
"""
    modules = loaded(statement)
    assert {"boto3", "azure.storage.blob", "google.cloud.storage", "pyarrow.compute"} <= modules
    tables = {"polars", "pandas", "pyarrow.csv", "pyarrow.parquet", "pyarrow.dataset", "pyarrow.fs"}
    assert modules.isdisjoint({"pydantic", "pydantic_settings", *tables})


def test_a_move_loads_no_pandas() -> None:
    statement = (
        "from tests.unit.test_transfer import World\nworld = World(a=b'1', b=b'2')\nassert world.move().objects == 2"
    )
    modules = loaded(statement)
    assert "tasks.core.transfer" in modules
    assert "pandas" not in modules


@pytest.mark.parametrize(
    "first",
    [
        "import tasks.core.arrow, pandas as pd",
        "import pandas as pd, tasks.core.arrow",
        "import tasks.core.arrow",
        "import tasks.core.arrow, importlib.util; importlib.util.find_spec('pandas'); import pandas as pd",
    ],
)
def test_arrow_knows_pandas_as_soon_as_it_is_loaded(first: str) -> None:
    statement = f"""
{first}
import pyarrow as pa
if "pd" not in globals():
    pa.table({{"name": ["a"]}}).to_pandas()
    import pandas as pd
odd = pd.DataFrame({{"name": ["a", "b", float("nan")], "number": [1.0, 2.0, float("nan")]}}).iloc[1:]
assert pa.array(odd["number"]).to_pylist() == [2.0, None]
assert pa.Table.from_pandas(odd, preserve_index=False).to_pydict() == {{"name": ["b", None], "number": [2.0, None]}}
"""
    assert "pandas" in loaded(statement)

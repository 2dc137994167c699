"""Secrets in Prefect blocks: created as people do in the UI, resolved when used, named when they are missing."""

from __future__ import annotations

import os
import subprocess
import sys

from tests.whole_stack import WholeStack

SCRIPT = """
from prefect.blocks.system import Secret
from tasks.core.errors import Denied
from tasks.settings import resolve_secret
Secret(value="canary-in-a-block").save("a-key", overwrite=True)
print("RESOLVED", resolve_secret("block:secret/a-key") == "canary-in-a-block")
try:
    resolve_secret("block:secret/no-such-key")
except Denied as error:
    print("DENIED", error)
"""


def test_a_block_reference_is_resolved_and_a_missing_one_is_named(whole_stack: WholeStack) -> None:
    environment = os.environ | {"PREFECT_API_URL": whole_stack.prefect_api_url, "PYTHONPATH": os.getcwd()}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], env=environment, capture_output=True, text=True, check=False, timeout=120
    )
    assert "RESOLVED True" in done.stdout, done.stderr[-2000:]
    assert "DENIED there is no Prefect block 'secret/no-such-key'" in done.stdout
    assert "canary" not in done.stdout + done.stderr

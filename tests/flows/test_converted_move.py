"""A move that converts on the way, between two directories; another reader opens what arrived."""

from __future__ import annotations

import json
import os
import secrets
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from tests import command


def lintas(directory: Path, *arguments: str) -> dict[str, Any]:
    """Run the command in a small installation of its own."""
    clouds = {
        name: {"provider": "onprem", "jurisdiction": "ID", "options": {"root": str(directory / name)}}
        for name in ("here", "there")
    }
    for name in ("signing", "pseudonyms"):
        (directory / name).write_text(secrets.token_hex(32))
    gate = {"signing_key": f"file:{directory / 'signing'}", "pseudonym_key": f"file:{directory / 'pseudonyms'}"}
    (directory / "policy.yaml").write_text("version: 1\nname: p\nresidency: {allowed: [ID]}\n")
    config = {"clouds": clouds, "gate": gate, "state_dir": str(directory / "state"), "policies_dir": str(directory)}
    (directory / "lintas.yaml").write_text(yaml.safe_dump(config))
    environment = {**os.environ, "LINTAS_CONFIG": str(directory / "lintas.yaml")}
    done = command.lintas(*arguments, "--policy", "policy", "--json", env=environment, timeout_s=180)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_a_converted_dataset_arrives_as_the_plan_said(tmp_path: Path) -> None:
    raw = tmp_path / "here" / "raw" / "d"
    raw.mkdir(parents=True)
    (tmp_path / "there").mkdir()
    (raw / "t.csv").write_text("id,city\n1,Jakarta\n2,Bonn\n")
    (raw / "note.txt").write_text("hello\n" * 100)
    (raw / "empty.csv").touch()
    wanted = ("here://raw/d", "there://out/d", "--format", "parquet", "--compress", "zstd")

    planned = lintas(tmp_path, "plan", *wanted)
    moved = lintas(tmp_path, "move", *wanted)

    assert planned["conversion"] == moved["conversion"] == "parquet+zstd"
    assert planned["digest"] == moved["digest"] != moved["source_digest"]
    assert moved["objects_sent"] == 3
    out = tmp_path / "there" / "out" / "d"
    assert pq.read_table(out / "t.parquet").to_pydict() == {"id": [1, 2], "city": ["Jakarta", "Bonn"]}
    assert pa.CompressedInputStream(str(out / "note.txt.zst"), "zstd").read() == b"hello\n" * 100
    assert sorted(path.name for path in out.iterdir() if path.is_file()) == ["empty.csv", "note.txt.zst", "t.parquet"]

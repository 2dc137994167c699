"""The configuration: what is wrong is named with its key and its mend, and a secret is never repeated."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest

from tasks.core.errors import Denied, Invalid
from tasks.settings import load_settings, resolve_secret

GOOD = """
clouds:
  aws:
    provider: aws
    region: us-east-1
    jurisdiction: US
    credentials: {access_key_id: "env:KEY_ID"}
    options: {queue: q, size: 3}
gate: {signing_key: "file:key", pseudonym_key: "env:P"}
"""
CANARY = "AKIA-canary-value"


def load(tmp_path: Path, text: str) -> object:
    file = tmp_path / "lintas.yaml"
    file.write_text(text)
    return load_settings(file)


def test_a_good_file_loads(tmp_path: Path) -> None:
    file = tmp_path / "lintas.yaml"
    file.write_text(GOOD)
    cloud = load_settings(file).cloud("aws")
    assert (cloud.region, cloud.option("queue"), cloud.option("size")) == ("us-east-1", "q", "3")
    assert str(cloud.credentials["access_key_id"]) == "<secret env:KEY_ID>"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("region: us-east-1", "regoin: us-east-1"), ["clouds.aws.regoin", "did you mean 'region'"]),
        (("region: us-east-1", "region: [a, b]"), ["clouds.aws.region", "string", "list"]),
        (("provider: aws\n", "\n"), ["clouds.aws.provider", "missing"]),
        (("gate:", "gates:"), ["gate", "missing"]),
        (("env:KEY_ID", CANARY), ["clouds.aws.credentials.access_key_id", "reference"]),
        ((GOOD, GOOD + "mover: {shards: {runner: dask}}\n"), ["mover.shards", "dask", "scheduler", "tcp://"]),
        ((GOOD, GOOD + "mover: {shards: {at_once: 0}}\n"), ["mover.shards.at_once", "1"]),
        ((GOOD, "- a\n- b\n"), ["mapping"]),
        ((GOOD, "a: [b\n"), ["line", "not YAML"]),
        ((GOOD, "gate: {signing_key: 'env:A', pseudonym_key: 'env:B'}\n"), ["clouds", "missing"]),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, change: tuple[str, str], words: list[str]) -> None:
    with pytest.raises(Invalid) as caught:
        load(tmp_path, GOOD.replace(*change))
    text = str(caught.value)
    assert all(word in text for word in words), text
    assert CANARY not in text


def test_a_runner_whose_package_is_missing_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dask = GOOD + "mover: {shards: {runner: dask, scheduler: 'tcp://127.0.0.1:8786'}}\n"
    load(tmp_path, dask)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(Invalid, match=r"pip install 'lintas\[dask\]'"):
        load(tmp_path, dask)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(Invalid, match="no configuration at"):
        load_settings(tmp_path / "none.yaml")


def test_the_environment_overrides_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LINTAS_SERVICES__MLFLOW_URL", "http://elsewhere")
    file = tmp_path / "lintas.yaml"
    file.write_text(GOOD)
    assert load_settings(file).services.mlflow_url == "http://elsewhere"


def test_an_unknown_cloud_is_named_with_those_there_are(tmp_path: Path) -> None:
    file = tmp_path / "lintas.yaml"
    file.write_text(GOOD)
    with pytest.raises(Invalid, match=r"'aw' is not a cloud.*use one of aws"):
        load_settings(file).cloud("aw")


def test_secrets_are_read_when_used_and_never_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEY_ID", CANARY)
    file = tmp_path / "lintas.yaml"
    file.write_text(GOOD)
    cloud = load_settings(file).cloud("aws")
    assert cloud.credentials["access_key_id"].reveal() == CANARY
    assert CANARY not in repr(cloud) + str(cloud)
    assert CANARY.encode() not in pickle.dumps(cloud)


def test_references_that_lead_nowhere_are_named(tmp_path: Path) -> None:
    for reference in ("env:LINTAS_NOT_SET", f"file:{tmp_path}/none", "vault:x"):
        with pytest.raises(Denied):
            resolve_secret(reference)


def test_a_secret_file_is_its_first_line(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("secret\nand more\n")
    assert resolve_secret(f"file:{tmp_path}/key") == "secret"

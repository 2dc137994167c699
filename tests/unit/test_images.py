"""What the serving image runs first: it finds the one model that the cloud put there, and its locks are whole."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from deployments.images.serve import model_directory

IMAGES = Path(__file__).parents[2] / "deployments" / "images"


def test_the_model_is_found_wherever_below_azure_s_directory(tmp_path: Path) -> None:
    home = tmp_path / "lintas-models" / "digest"
    home.mkdir(parents=True)
    (home / "MLmodel").touch()
    assert model_directory({"AZUREML_MODEL_DIR": str(tmp_path)}) == home


@pytest.mark.parametrize("models", [(), ("a", "b")])
def test_none_or_two_models_are_refused_with_the_place(tmp_path: Path, models: tuple[str, ...]) -> None:
    for name in models:
        (tmp_path / name).mkdir()
        (tmp_path / name / "MLmodel").touch()
    with pytest.raises(SystemExit, match=f"{len(models)} MLflow models below {tmp_path}"):
        model_directory({"AZUREML_MODEL_DIR": str(tmp_path)})


@pytest.mark.parametrize("kind", ["training", "serving"])
def test_an_image_installs_only_what_its_lock_names_by_hash_at_the_versions_of_the_main_lock(kind: str) -> None:
    containerfile = (IMAGES / f"{kind}.Containerfile").read_text()
    assert "--require-hashes" in containerfile
    lock = (IMAGES / f"{kind}.txt").read_text()
    assert "://" not in lock
    pins = set(re.findall(r"^([\w.-]+==[\w.]+)", lock, re.MULTILINE))
    assert len(re.findall(r"^[\w.-]+==", lock, re.MULTILINE)) == len(pins)
    assert all("--hash=sha256:" in part for part in re.split(r"^(?=[\w.-]+==)", lock, flags=re.MULTILINE)[1:])
    main = set(
        re.findall(r"^([\w.-]+==[\w.]+)", (IMAGES.parents[1] / "requirements/dev.txt").read_text(), re.MULTILINE)
    )
    assert {pin for pin in pins if pin.split("==")[0] in {each.split("==")[0] for each in main}} <= main

"""Model artifacts are taken apart and never run; records inside are found, what is not understood does not pass."""

from __future__ import annotations

import io
import os
import pickle
import zipfile
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest
from sklearn.ensemble import RandomForestClassifier
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.neighbors import KNeighborsClassifier

from tasks.core.findings import ScanReport
from tests.unit.test_privacy_bombs import scanned

EMAILS = [f"person{at}@example.org" for at in range(40)]
RNG = np.random.default_rng(1)


def joblib_bytes(value: Any, **options: Any) -> bytes:
    sink = io.BytesIO()
    joblib.dump(value, sink, **options)
    return sink.getvalue()


def skops_bytes(value: Any) -> bytes:
    # To be imported it looks through all modules for seconds: by the process alone that runs these tests.
    from skops.io import dumps

    return dumps(value)


def entities(report: ScanReport) -> set[str]:
    return {each.entity for each in report.findings if each.confidence >= 0.5}


def learned() -> Any:
    return CountVectorizer(token_pattern=r"\S+").fit(EMAILS)


@pytest.mark.parametrize("protocol", range(6))
def test_texts_in_pickles_of_every_protocol_are_found(protocol: int) -> None:
    assert entities(scanned({"m.pkl": pickle.dumps({"rows": EMAILS}, protocol)})) == {"EMAIL_ADDRESS"}


@pytest.mark.parametrize(
    ("path", "make"),
    [
        ("m.pkl", lambda: pickle.dumps(learned())),
        ("m.joblib", lambda: joblib_bytes(learned())),
        ("m.joblib", lambda: joblib_bytes({"a": np.arange(9.0), "x": np.array(EMAILS), "b": np.arange(3)})),
        ("m.joblib", lambda: joblib_bytes({"a": np.arange(9.0), "x": np.array(EMAILS, object), "b": np.ones(3)})),
        ("m.pkl", lambda: pickle.dumps(np.array(EMAILS))),
        ("m.skops", lambda: skops_bytes(learned())),
    ],
)
def test_a_model_that_learned_its_rows_by_heart_is_found_out(path: str, make: Any) -> None:
    assert "EMAIL_ADDRESS" in entities(scanned({path: make()}))


@pytest.mark.parametrize("kind", [np.int64, np.float64])
@pytest.mark.parametrize("write", [pickle.dumps, joblib_bytes])
def test_numbers_in_arrays_are_looked_at(kind: type, write: Any) -> None:
    cards = np.array([[4111111111111111, 5555555555554444, 4012888888881881, 4222222222222220 + 9]], kind)
    assert "CREDIT_CARD" in entities(scanned({"m.pkl": write({"first": np.ones(3, np.float32), "cards": cards})}))


@pytest.mark.parametrize("write", [pickle.dumps, joblib_bytes, skops_bytes])
def test_models_without_records_pass(write: Any) -> None:
    rows, labels = RNG.normal(size=(80, 4)), RNG.integers(0, 2, 80)
    # Seeds of trees are drawn numbers of nine digits: two that look like tax numbers are taken for them.
    for model in (
        RandomForestClassifier(5, random_state=0).fit(rows, labels),
        KNeighborsClassifier().fit(rows, labels),
    ):
        assert entities(scanned({"m.skops" if write is skops_bytes else "m.pkl": write(model)})) == set()


class Bomb:
    def __reduce__(self) -> Any:
        return os.system, (f"touch {Bomb.path}",)

    path = ""


def test_nothing_in_a_pickle_is_run(tmp_path: Path) -> None:
    Bomb.path = str(tmp_path / "ran")
    scanned({"m.pkl": pickle.dumps(Bomb()), "m.joblib": joblib_bytes(Bomb())})
    assert not (tmp_path / "ran").exists()


def field(number: int, content: bytes) -> bytes:
    return bytes([number << 3 | 2]) + varint(len(content)) + content


def varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def onnx_bytes(*tensor: bytes) -> bytes:
    attribute = field(1, b"keys") + field(9, EMAILS[0].encode())
    node = field(1, field(1, b"in") + field(4, b"LabelEncoder") + field(5, attribute))
    return b"\x08\x08" + field(2, b"skl2onnx") + field(7, node + field(2, b"graph") + field(5, b"".join(tensor)))


def test_texts_and_tensors_of_onnx_models_are_found() -> None:
    cards = np.array([4111111111111111, 5555555555554444, 4012888888881881], "<i8")
    content = onnx_bytes(b"\x10\x07", field(8, b"w"), field(9, cards.tobytes()))
    assert entities(scanned({"m.onnx": content})) == {"EMAIL_ADDRESS", "CREDIT_CARD"}


@pytest.mark.parametrize(
    ("path", "content"),
    [
        ("m.pkl", pickle.dumps(EMAILS)[:-40]),
        ("m.pkl", b"\x80\x04\x8d" + b"\xff" * 8),
        ("m.joblib", joblib_bytes(np.arange(1000.0))[:-100]),
        ("m.joblib", joblib_bytes(EMAILS, compress=3)),
        ("m.onnx", onnx_bytes()[:-3]),
        ("m.onnx", b"\x0b\xff\xff"),
        ("m.npy", b"\x93NUMPY\x01\x00\xff\xff{"),
    ],
)
def test_what_cannot_be_taken_apart_does_not_pass(path: str, content: bytes) -> None:
    assert "UNREADABLE" in entities(scanned({path: content}))


def test_the_arrays_of_a_skops_file_are_read() -> None:
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w") as archive:
        array = io.BytesIO()
        np.save(array, np.array([4111111111111111, 5555555555554444, 4012888888881881]))
        archive.writestr("1.npy", array.getvalue())
    assert entities(scanned({"m.skops": sink.getvalue()})) == {"CREDIT_CARD"}


def test_logs_of_a_training_are_text() -> None:
    assert entities(scanned({"logs/driver.log": b"epoch 3 loss 0.31\nrow: jane@example.org\n"})) == {"EMAIL_ADDRESS"}

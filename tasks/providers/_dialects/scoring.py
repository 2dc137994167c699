"""What all serving clouds check and say alike: the model before it leaves, and why MLflow's server refused."""

from __future__ import annotations

import gzip
import json
import re
import tarfile
from pathlib import Path
from typing import IO

from tasks.core.errors import IntegrityError, Invalid
from tasks.core.evaluation import model_digest
from tasks.core.release import EndpointSpec

EXAMPLE = "serving_input_example.json"
"""The file of an MLflow model with a request that it answers: what probes send."""

_KNOWN_REASONS = (
    r"Model is missing inputs \[[^\]]*\]",
    r"Incompatible input types for column [\w .-]+\. Can not safely convert [\w\[\],. ]+ to [\w\[\], ]+",
    r"Failed to convert column [\w .-]+ to type '[\w ]+'",
    r"The input column '[^']*' is required by the model signature but missing from the input data",
    r"Model inference is missing inputs\. The model signature declares \d+ inputs +but .{1,20} only has \d+",
    r"Dataframe (?:split|records) format must [a-z ]+",
)
"""What MLflow says about names and types of the model's own signature. Anything else may quote the request."""

_OTHER_REASONS = (
    (
        "must be a JSON dictionary",
        "the body must be a JSON object with exactly one of dataframe_split, dataframe_records, instances and inputs",
    ),
    ("valid JSON formatted string", "the body is not JSON"),
    ("only supports", "the content type is not one that MLflow's scoring protocol knows"),
    ("unexpected error while evaluating", "the model failed on this input"),
)
_PLAIN = frozenset(reason for _, reason in _OTHER_REASONS)


def plain_reason(text: str) -> str:
    r"""MLflow's reason in one line that holds names and types of the signature and no value of the request.

    >>> plain_reason("Failed to predict data '  a\n0 1'. \nError: Model is missing inputs ['b']. Note: extra ['c'].")
    "Model is missing inputs ['b']"
    >>> plain_reason("Failed to convert value `secret`")
    "the request does not fit the model's signature"
    """
    if text in _PLAIN:
        return text
    # The reason comes last, after the data that MLflow quotes; the data could hold a text that looks like one.
    for pattern in _KNOWN_REASONS:
        found = re.findall(pattern, text)
        if found:
            return " ".join(found[-1].split())
    for part, reason in _OTHER_REASONS:
        if part in text:
            return reason
    return "the request does not fit the model's signature"


def answered_reason(body: str) -> str:
    """The plain reason in the body of an error that a scoring server answered with."""
    try:
        return plain_reason(str(json.loads(body)["message"]))
    except (ValueError, KeyError, TypeError):
        return plain_reason(body)


def checked_model(spec: EndpointSpec) -> Path:
    """The directory of the model that an endpoint is to serve, after everything that can be checked here.

    Raises:
        Invalid: It holds no MLflow model, or one without a signature, which no cloud should serve.
        IntegrityError: The files are not those of the spec's digest.
    """
    directory = Path(spec.model_path)
    description = directory / "MLmodel"
    if not description.is_file():
        raise Invalid(f"'{directory}' holds no MLflow model", "give the directory that has the file MLmodel")
    if model_digest(directory) != spec.digest:
        raise IntegrityError(
            f"the files of '{spec.model}' {spec.version} have another digest than the release says",
            "download the model again, then deploy it",
        )
    # A key at the margin of MLmodel's YAML; the story and the providers know no YAML.
    if not re.search(r"^signature:", description.read_text(), re.MULTILINE):
        raise Invalid(
            f"'{spec.model}' {spec.version} has no signature", "log the model with a signature, then deploy it"
        )
    return directory


def pack_model(directory: Path, into: IO[bytes]) -> None:
    """Write a model's directory as tar.gz, its files at the top; the same files pack into the same bytes."""

    def plain(member: tarfile.TarInfo) -> tarfile.TarInfo:
        member.uid = member.gid = member.mtime = 0
        member.uname = member.gname = ""
        return member

    with (
        gzip.GzipFile(fileobj=into, mode="wb", mtime=0, compresslevel=1) as squeezed,
        tarfile.open(fileobj=squeezed, mode="w", dereference=True) as tar,
    ):
        tar.add(directory, arcname=".", filter=plain)


def example_request(directory: Path) -> bytes | None:
    """The model's example as a request in MLflow's scoring protocol, or None when it was logged without one."""
    example = directory / EXAMPLE
    return example.read_bytes() if example.is_file() else None

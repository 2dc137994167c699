"""A treated copy of a dataset: the columns that a policy wants treated are, and everything else stays as it was.

The copy has the same bytes whenever it is made again from the same objects with the same treatment, key and version
of pyarrow, so that a repeated move sends nothing. What comes out is scanned again by the gate before it may leave:
treating is an attempt, the second scan is the judgement.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import IO, TYPE_CHECKING

from tasks.core.dataset import DIGEST_METADATA, DatasetURI, Entry, content_digest
from tasks.core.detectors.scan import may_be_of
from tasks.core.detectors.tables import Source
from tasks.core.errors import NotFound
from tasks.core.manifest import Manifest
from tasks.core.privacy import Treatment
from tasks.core.pseudonym_key import PseudonymKey
from tasks.core.rewriters import rewrite
from tasks.core.scratch import spooled
from tasks.core.treatments import ObjectTreatment

if TYPE_CHECKING:
    from tasks.core.attributes import Attributes
    from tasks.core.ports import Store

_PIECE_BYTES = 8 * 1024 * 1024


def apply_treatment(
    source: Store,
    uri: DatasetURI,
    manifest: Manifest,
    treatment: Treatment,
    keys: PseudonymKey,
    into: Store,
    into_uri: DatasetURI,
    *,
    in_flight: int = 2,
) -> Manifest:
    """Write the treated copy of a dataset.

    Args:
        source, uri, manifest: The dataset as it is; objects are read at the manifest's versions.
        treatment: From `actions_for`.
        keys: For tokens and hashes.
        into, into_uri: Where the copy goes: a prefix at the source's side that nothing else uses. Objects that are
            there already with the right content are left alone.
        in_flight: How many objects are treated at the same time.

    Returns:
        The copy's manifest. Objects of which nothing would be left are not in it.

    Raises:
        PolicyViolation: An object that must be treated cannot be read; repair it or take it out.
        PreconditionFailed: An object changed since the manifest was made; read the manifest again.
    """
    work = partial(_copy_object, source, uri, treatment, keys, into, into_uri)
    with ThreadPoolExecutor(max_workers=in_flight, thread_name_prefix="treat") as pool:
        entries = list(pool.map(work, manifest))
    return Manifest.of(entry for entry in entries if entry is not None)


def treatment_of(entry: Entry, treatment: Treatment, keys: PseudonymKey) -> ObjectTreatment:
    """The part of a treatment that is about one object."""
    labels = {column.path for column in treatment.columns}
    here = {label for label in labels if may_be_of(entry.path, label)}
    columns = {column.column: column for column in treatment.columns if column.path in here}
    return ObjectTreatment(columns, keys, treatment.destination.cloud, treatment.detection)


def _copy_object(
    source: Store,
    uri: DatasetURI,
    treatment: Treatment,
    keys: PseudonymKey,
    into: Store,
    into_uri: DatasetURI,
    entry: Entry,
) -> Entry | None:
    needed = treatment_of(entry, treatment, keys)
    attributes = kept_with_copy(source, uri, entry)
    if not needed.columns:
        return unchanged(source, uri, into, into_uri, entry, attributes)
    with spooled() as spool:
        if not rewrite(Source.open(source, uri, entry), needed, spool):
            return None
        return written(into, into_uri, entry.path, spool, attributes)


def kept_with_copy(source: Store, uri: DatasetURI, entry: Entry) -> Attributes:
    """What goes along with a copy that is made here: how the content is served and how often it is read.

    User metadata, tags and file names stay behind: the gate has looked at the content alone.
    """
    return replace(source.head(uri.key(entry.path)).attributes, tags={}, content_disposition="")


def unchanged(
    source: Store, uri: DatasetURI, into: Store, into_uri: DatasetURI, entry: Entry, attributes: Attributes
) -> Entry:
    """Write an object as it is into a copy of its dataset, unless it is there."""
    pieces = source.get(uri.key(entry.path), version=entry.version or None)
    return _put(into, into_uri, entry.path, pieces, entry.size_bytes, entry.digest, attributes)


def written(into: Store, uri: DatasetURI, path: str, file: IO[bytes], attributes: Attributes) -> Entry:
    """Write a file that was made here into a copy of a dataset, unless its content is there."""
    file.seek(0)
    digest, size_bytes = content_digest(_pieces(file))
    file.seek(0)
    return _put(into, uri, path, _pieces(file), size_bytes, digest, attributes)


def _put(
    into: Store,
    uri: DatasetURI,
    path: str,
    pieces: Iterator[bytes],
    size_bytes: int,
    digest: str,
    attributes: Attributes,
) -> Entry:
    key = uri.key(path)
    try:
        there = into.head(key)
    except NotFound:
        there = None
    if there is not None and (there.metadata.get(DIGEST_METADATA), there.size_bytes) == (digest, size_bytes):
        return Entry(path, size_bytes, digest, there.version)
    made = into.put(
        key,
        pieces,
        size_bytes=size_bytes,
        metadata={DIGEST_METADATA: digest},
        attributes=attributes,
        if_version=there.version if there else None,
        if_absent=there is None,
    )
    return Entry(path, size_bytes, digest, made.version)


def _pieces(file: IO[bytes]) -> Iterator[bytes]:
    while piece := file.read(_PIECE_BYTES):
        yield piece

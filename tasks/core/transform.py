"""A treated copy of a dataset: the columns that a policy wants treated are, and everything else stays as it was.

The copy has the same bytes whenever it is made again from the same objects with the same treatment, key and version
of pyarrow, so that a repeated move sends nothing. What comes out is scanned again by the gate before it may leave:
treating is an attempt, the second scan is the judgement.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tasks.core.copying import Looked, copied_by, unchanged, written
from tasks.core.dataset import DatasetURI, Entry
from tasks.core.detectors.personal_names import may_be_of
from tasks.core.manifest import Manifest
from tasks.core.privacy import Treatment
from tasks.core.pseudonym_key import PseudonymKey
from tasks.core.retries import OBJECTS_AT_ONCE
from tasks.core.rewriters import rewrite
from tasks.core.scratch import spooled
from tasks.core.treatments import ObjectTreatment

if TYPE_CHECKING:
    from tasks.core.ports import Store


def apply_treatment(
    source: Store,
    uri: DatasetURI,
    manifest: Manifest,
    treatment: Treatment,
    keys: PseudonymKey,
    into: Store,
    into_uri: DatasetURI,
    *,
    in_flight: int = OBJECTS_AT_ONCE,
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

    def treated(looked: Looked) -> Entry | None:
        needed = treatment_of(looked.entry, treatment, keys)
        if not needed.columns:
            return unchanged(looked, into, into_uri)
        with spooled() as spool:
            if not rewrite(looked.source, needed, spool):
                return None
            return written(into, into_uri, looked.entry.path, spool, looked.attributes)

    entries = copied_by(treated, source, uri, manifest, in_flight)
    return Manifest.of(entry for entry in entries if entry is not None)


def treatment_of(entry: Entry, treatment: Treatment, keys: PseudonymKey) -> ObjectTreatment:
    """The part of a treatment that is about one object."""
    labels = {column.path for column in treatment.columns}
    here = {label for label in labels if may_be_of(entry.path, label)}
    columns = {column.column: column for column in treatment.columns if column.path in here}
    return ObjectTreatment(columns, keys, treatment.destination.cloud, treatment.detection)

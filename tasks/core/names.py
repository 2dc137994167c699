"""What object names a store takes: the rules of each, as data, checked while planning instead of failing half-way.

A provider's `catalog.yaml` has them under `objects`. A name that the destination does not take is refused with the
rule that it breaks; nothing is renamed in silence, because a dataset's digest covers its paths.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from tasks.core.arrow import compute, pa
from tasks.core.dataset import DatasetURI
from tasks.core.errors import Invalid
from tasks.core.fields import Fields
from tasks.core.manifest import Manifest
from tasks.core.rows import batch_of, in_order

_SHOWN = 3
_FOLDED: Any = pa.schema([("path", pa.string()), ("name", pa.string())])


@dataclass(frozen=True, slots=True)
class ObjectRules:
    """What keys and objects a store takes.

    Args:
        key_limit: The most that a whole key may have of `key_unit`, prefix included.
        key_unit: `bytes` of UTF-8, or `characters` of UTF-16, as the service counts.
        part_limit_bytes: The most bytes of UTF-8 between two slashes; 0 for no limit.
        parts_limit: The most parts of a key; 0 for no limit.
        forbidden: Characters that no key may have.
        controls: Whether control characters (U+0000 to U+001F, U+007F) may stand in a key.
        forbidden_parts: What may not stand between two slashes; an empty text forbids doubled and outer slashes.
        forbidden_ends: How no part may end.
        tree: Whether keys are files in directories, so that `a` and `a/b` exclude each other.
        case_sensitive: Whether names that differ by case alone are two names.
        unicode_sensitive: Whether names that differ by Unicode normalisation alone are two names.
        size_limit_bytes: The largest object.
    """

    key_limit: int
    key_unit: Literal["bytes", "characters"]
    part_limit_bytes: int
    parts_limit: int
    forbidden: str
    controls: bool
    forbidden_parts: tuple[str, ...]
    forbidden_ends: tuple[str, ...]
    tree: bool
    case_sensitive: bool
    unicode_sensitive: bool
    size_limit_bytes: int

    @classmethod
    def from_catalog(cls, catalog: Mapping[str, Any], options: Mapping[str, str], where: str) -> ObjectRules:
        """The rules under `objects` of a catalogue, with those that a cloud's own options change.

        Args:
            catalog: A provider's catalogue.
            options: `case_sensitive` and `unicode_sensitive` (`true` or `false`) say what a directory is like.
            where: What to call the catalogue in messages.

        Raises:
            Invalid: A rule is missing or has another type.
        """
        fields = Fields(catalog.get("objects"), f"{where}: objects")

        def flag(name: str) -> bool:
            said = options.get(name)
            return said.lower() == "true" if said is not None else bool(fields.raw(name))

        return cls(
            key_limit=fields.integer("key_limit"),
            key_unit=fields.raw("key_unit"),
            part_limit_bytes=fields.integer("part_limit_bytes", 0),
            parts_limit=fields.integer("parts_limit", 0),
            forbidden=fields.raw("forbidden", ""),
            controls=fields.raw("controls"),
            forbidden_parts=tuple(fields.raw("forbidden_parts", ())),
            forbidden_ends=tuple(fields.raw("forbidden_ends", ())),
            tree=fields.raw("tree", False),
            case_sensitive=flag("case_sensitive"),
            unicode_sensitive=flag("unicode_sensitive"),
            size_limit_bytes=fields.integer("size_limit_bytes"),
        )

    def broken_by(self, key: str) -> str | None:
        """What is wrong with a key, or None: one clause for people."""
        length = len(key.encode()) if self.key_unit == "bytes" else len(key.encode("utf-16-le")) // 2
        parts = key.split("/")
        if length > self.key_limit:
            return f"it has {length:,} {self.key_unit}, and {self.key_limit:,} is the most"
        if self.parts_limit and len(parts) > self.parts_limit:
            return f"it has {len(parts)} parts, and {self.parts_limit} is the most"
        if not self.controls and re.search(r"[\x00-\x1f\x7f]", key):
            return "it has a control character"
        for character in self.forbidden:
            if character in key:
                return f"it has a {unicodedata.name(character, repr(character)).lower()}"
        for part in parts:
            if part in self.forbidden_parts:
                return f"it has the part '{part}'" if part else "it has an empty part"
            if self.forbidden_ends and part.endswith(self.forbidden_ends):
                return f"the part '{part}' ends in '{part[-1]}'"
            if self.part_limit_bytes and len(part.encode()) > self.part_limit_bytes:
                return f"a part of it has more than {self.part_limit_bytes} bytes"
        return None


def require_names(manifest: Manifest, destination: DatasetURI, rules: ObjectRules) -> None:
    """Insist that the destination takes every object of a manifest.

    Args:
        manifest: What shall be there.
        destination: Where.
        rules: What its store takes.

    Raises:
        Invalid: Names or sizes that it does not take, or names that would be one there; the first ones are named.
    """
    problems = list(_first(_broken(manifest, destination, rules)))
    if rules.tree:
        problems += _first(_in_each_other_s_way(manifest))
    if not (rules.case_sensitive and rules.unicode_sensitive):
        problems += _first(_same_when_folded(manifest, rules))
    if problems:
        raise Invalid(
            f"{destination} cannot hold the dataset as it is: {'; '.join(problems[:_SHOWN])}",
            "rename these objects at the source, or leave them out with --exclude",
        )


def _first(problems: Iterator[str]) -> Iterator[str]:
    for _, problem in zip(range(_SHOWN), problems, strict=False):
        yield problem


def _broken(manifest: Manifest, destination: DatasetURI, rules: ObjectRules) -> Iterator[str]:
    for batch in manifest.rows:
        # Nearly all names are plain and short, and no rule is about those.
        keys = compute.binary_join_element_wise(destination.key_prefix, batch.column("path"), "")
        plain = compute.and_(
            compute.match_substring_regex(keys, r"^[A-Za-z0-9_=-][A-Za-z0-9_=.-]*[A-Za-z0-9_=-](/[A-Za-z0-9_=-]+)*$"),
            compute.less(compute.binary_length(keys), min(rules.key_limit, rules.part_limit_bytes or rules.key_limit)),
        )
        if rules.parts_limit:
            plain = compute.and_(plain, compute.less(compute.count_substring(keys, "/"), rules.parts_limit))
        small = compute.less_equal(batch.column("size_bytes"), rules.size_limit_bytes)
        for row in batch.filter(compute.invert(compute.and_(plain, small))).to_pylist():
            wrong = rules.broken_by(destination.key(row["path"]))
            if wrong is None and row["size_bytes"] > rules.size_limit_bytes:
                wrong = f"it has {row['size_bytes']:,} bytes, and {rules.size_limit_bytes:,} is the most"
            if wrong is not None:
                yield f"'{row['path']}' is not possible there ({wrong})"


def _in_each_other_s_way(manifest: Manifest) -> Iterator[str]:
    """Objects whose path is the directory of another one. All paths that begin alike stand together."""
    above: list[str] = []
    for batch in manifest.rows:
        for path in batch.column("path").to_pylist():
            while above and not path.startswith(above[-1]):
                above.pop()
            for file in above:
                if path.startswith(f"{file}/"):
                    yield f"'{file}' would be a file and the directory of '{path}'"
            above.append(path)


def _same_when_folded(manifest: Manifest, rules: ObjectRules) -> Iterator[str]:
    def folded(path: str) -> str:
        if not rules.unicode_sensitive:
            path = unicodedata.normalize("NFC", path)
        return path if rules.case_sensitive else unicodedata.normalize("NFC", path.casefold())

    def batches() -> Iterator[Any]:
        for batch in manifest.rows:
            paths = batch.column("path").to_pylist()
            yield batch_of(_FOLDED, [list(map(folded, paths)), paths])

    before = ("", "")
    for batch in in_order(batches(), _FOLDED):
        for fold, path in zip(batch.column("path").to_pylist(), batch.column("name").to_pylist(), strict=True):
            if fold == before[0]:
                yield f"'{before[1]}' and '{path}' would be one object there"
            before = (fold, path)

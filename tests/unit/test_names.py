"""What object names each store takes, by its own catalogue: refused while planning, with the rule."""

from __future__ import annotations

import pytest
import yaml

from tasks.core.dataset import DatasetURI, Entry
from tasks.core.errors import Invalid
from tasks.core.manifest import Manifest
from tasks.core.names import ObjectRules, require_names
from tasks.registry import providers

GIB = 1024**3
ALL = ("aws", "azure", "coreweave", "google", "onprem")


def rules(provider: str, **options: str) -> ObjectRules:
    catalog = yaml.safe_load(providers()[provider].catalog.read_text())
    return ObjectRules.from_catalog(catalog, options, provider)


def check(provider: str, *paths: str, size_bytes: int = 1, **options: str) -> None:
    manifest = Manifest.of(Entry(path, size_bytes, "d" * 64) for path in paths)
    require_names(manifest, DatasetURI(provider, "b", "lake"), rules(provider, **options))


@pytest.mark.parametrize(
    ("path", "refusing"),
    [
        ("plain/part-0001.parquet", ()),
        ("größe/日本語 🎉.csv", ()),
        ("with space+plus%41&=?#.csv", ()),
        ("a/../b", ALL),
        ("a/./b", ALL),
        ("a//b", ("azure", "onprem")),
        ("a\\b", ("azure",)),
        ("a./b", ("azure",)),
        ("ends-with-dot.", ("azure",)),
        ("tab\there", ("azure",)),
        ("line\nbreak", ("azure", "google")),
        ("nul\0", ("azure", "onprem")),
        ("x" * 256, ("onprem",)),
        ("é" * 509, ("onprem",)),
        ("é" * 515, ("aws", "coreweave", "google", "onprem")),
        ("x" * 1020, ALL),
        ("/".join("x" * 254), ("azure",)),
    ],
)
@pytest.mark.parametrize("provider", ALL)
def test_each_store_s_rules(provider: str, path: str, refusing: tuple[str, ...]) -> None:
    if provider not in refusing:
        check(provider, path, "another")
        return
    with pytest.raises(Invalid, match=r"(?s)cannot hold the dataset as it is.*--exclude"):
        check(provider, path, "another")


def test_a_file_cannot_be_a_directory_as_well_however_far_apart_the_two_are_listed() -> None:
    paths = ("a", *(f"a!{number}" for number in range(20)), "a/b", "ab/c")
    check("aws", *paths)
    with pytest.raises(Invalid, match="'a' would be a file and the directory of 'a/b'"):
        check("onprem", *paths)


def test_names_that_a_directory_takes_for_one_are_refused_for_it_alone() -> None:
    check("onprem", "Data/a", "data/A", "data/a")
    with pytest.raises(Invalid, match="'Data/a' and 'data/A' would be one object"):
        check("onprem", "Data/a", "data/A", case_sensitive="false")
    composed, decomposed = "caf\u00e9", "cafe\u0301"
    check("onprem", composed, decomposed)
    with pytest.raises(Invalid, match="would be one object"):
        check("onprem", composed, decomposed, unicode_sensitive="false")
    check("onprem", composed, composed.upper(), unicode_sensitive="false")


@pytest.mark.parametrize("provider", ALL)
def test_sizes_at_both_ends(provider: str) -> None:
    limit = rules(provider).size_limit_bytes
    check(provider, "empty", size_bytes=0)
    check(provider, "largest", size_bytes=limit)
    with pytest.raises(Invalid, match=f"'too-large' is not possible there .it has {limit + 1:,} bytes"):
        check(provider, "too-large", size_bytes=limit + 1)


def test_the_first_of_many_problems_are_told_and_no_more() -> None:
    with pytest.raises(Invalid) as refused:
        check("azure", *(f"{number}\\x" for number in range(50)))
    assert str(refused.value).count("is not possible there") == 3


@pytest.mark.parametrize("provider", ALL)
def test_the_quick_look_agrees_with_the_rules_one_by_one(provider: str) -> None:
    table = rules(provider)
    for path in ("a", "a.b", ".a", "a.", "a/b.c", "a/.b", "-", "a=1/b_2", "a b", "x" * 240, "a/" + "y" * 300):
        broken = table.broken_by(f"lake/{path}") is not None
        try:
            check(provider, path)
        except Invalid:
            assert broken, path
        else:
            assert not broken, path

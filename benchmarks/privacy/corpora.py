"""`python -m benchmarks.privacy.corpora`: numbers that others labelled, and what the detectors take them for.

The corpora are what registry packages bring along, read when this runs and not kept here: the examples in
python-stdnum's modules and in the tests of its source archive (fetched with pip), and libphonenumber's example numbers
of every country. A case is one cell by itself: whether a hit of its entity passes the checks. What a column of such
cells would be taken for is not measured here. Names in sentences come from another package (see `names`), and with
`--presidio DIR` cases from a checkout of Presidio's repository (see `presidio_cases`). build/bench-corpora.json.
"""

from __future__ import annotations

import argparse
import doctest
import importlib
import json
import pkgutil
import re
import subprocess
import sys
import tarfile
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import phonenumbers
import polars as pl
import stdnum

from benchmarks.privacy import names, presidio_cases
from benchmarks.privacy.scores import wilson
from tasks.core.detectors.detection import Detection
from tasks.core.detectors.search import hits_in

BUILD = Path(__file__).parents[2] / "build"
MODULES = {
    "iban": "IBAN_CODE", "us.ssn": "US_SSN", "us.itin": "US_ITIN", "gb.nhs": "UK_NHS", "id.npwp": "ID_NPWP",
    "id.nik": "ID_NIK", "in_.aadhaar": "IN_AADHAAR", "in_.pan": "IN_PAN", "au.tfn": "AU_TFN", "au.abn": "AU_ABN",
    "es.nif": "ES_NIF", "es.dni": "ES_NIF", "es.nie": "ES_NIF", "it.codicefiscale": "IT_FISCAL_CODE",
    "pl.pesel": "PL_PESEL", "br.cpf": "BR_CPF", "br.cnpj": "BR_CNPJ", "de.idnr": "DE_TAX_ID", "fr.nir": "FR_NIR",
    "nl.bsn": "NL_BSN", "be.nn": "BE_NATIONAL_NUMBER", "pt.nif": "PT_NIF", "se.personnummer": "SE_PERSONNUMMER",
    "dk.cpr": "DK_CPR", "at.vnr": "AT_SVNR", "ch.ssn": "CH_AHV", "fi.hetu": "FI_HETU", "ie.pps": "IE_PPSN",
    "mac": "MAC_ADDRESS", "bitcoin": "CRYPTO",
}  # fmt: skip
"""python-stdnum's modules of the entities that the detectors know."""

_CALL = re.compile(r"(?:\w+\.)?(?:validate|is_valid|compact)\(u?(['\"])(.+?)\1[^)]*\)")
_MOST_LISTED = 8


@dataclass(frozen=True)
class Case:
    """A text, the entity that it is or looks like, and whether it is a right one."""

    corpus: str
    entity: str
    text: str
    right: bool


def stdnum_cases() -> Iterator[Case]:
    """python-stdnum's examples: in its modules' documentation, and in its tests."""
    tests = _stdnum_tests()
    known = {name for _, name, _ in pkgutil.walk_packages(stdnum.__path__, "stdnum.")}
    for module, entity in MODULES.items():
        if f"stdnum.{module}" in known:
            documentation = importlib.import_module(f"stdnum.{module}").__doc__ or ""
            name = f"test_{module.replace('in_', 'in').replace('.', '_')}.doctest"
            for text, right in {**dict(_examples(tests.get(name, ""))), **dict(_examples(documentation))}.items():
                yield Case("python-stdnum", entity, text, right)


def _stdnum_tests() -> dict[str, str]:
    """The test files of the source archive, by name."""
    with tempfile.TemporaryDirectory() as directory:
        wanted = f"python-stdnum=={version('python-stdnum')}"
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", ":all:"]
        subprocess.run([*command, "--dest", directory, wanted], check=True)
        (archive,) = Path(directory).glob("*.tar.gz")
        with tarfile.open(archive) as members:
            return {
                Path(member.name).name: file.read().decode()
                for member in members
                if member.name.endswith(".doctest") and (file := members.extractfile(member))
            }


def _examples(text: str) -> Iterator[tuple[str, bool]]:
    """The numbers that examples call valid, and those that they call invalid."""
    numbers: list[str] = []
    for example in doctest.DocTestParser().get_examples(text):
        if "'''" in example.source:
            numbers = [line.strip() for line in example.source.split("'''")[1].splitlines() if line.strip()]
        elif numbers and "is_valid(x)" in example.source and example.want.strip() == "[]":
            right = "not " in example.source
            yield from ((number, right) for number in numbers)
            numbers = []
        call = _CALL.match(example.source.strip())
        if call and "compact" not in example.source:
            failed = example.exc_msg is not None or example.want.strip() == "False"
            yield call[2], not failed


def phone_cases() -> Iterator[Case]:
    """Libphonenumber's example numbers: of every country as it is written abroad, and at home where it is known."""
    forms = phonenumbers.PhoneNumberFormat
    kinds = phonenumbers.PhoneNumberType
    for region in sorted(phonenumbers.SUPPORTED_REGIONS):
        for kind in (kinds.FIXED_LINE, kinds.MOBILE):
            number = phonenumbers.example_number_for_type(region, kind)
            if number is not None:
                for corpus, form in (
                    ("abroad", forms.INTERNATIONAL),
                    ("E.164", forms.E164),
                    ("at home", forms.NATIONAL),
                ):
                    yield Case(
                        f"libphonenumber, {corpus}", "PHONE_NUMBER", phonenumbers.format_number(number, form), True
                    )
        wrong = phonenumbers.invalid_example_number(region)
        if wrong is not None:
            yield Case(
                "libphonenumber, invalid", "PHONE_NUMBER", phonenumbers.format_number(wrong, forms.INTERNATIONAL), False
            )


def judged(case: Case, detection: Detection) -> str:
    """`found`, or why not: nothing of its entity was seen in it, or its check failed."""
    seen = [each for each in hits_in(pl.Series([case.text]), detection) if each.entity == case.entity]
    if any(each.valid.any() for each in seen):
        return "found"
    return "check fails" if seen else "written form not known"


def main() -> None:
    """Measure, print a table, and write JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.privacy.corpora", description="Labelled corpora.")
    parser.add_argument("--presidio", type=Path, metavar="DIR", help="a checkout of github.com/microsoft/presidio")
    presidio: Path | None = parser.parse_args().presidio
    detection = Detection(phone_regions=tuple(sorted(phonenumbers.SUPPORTED_REGIONS)))
    answers = [(case, judged(case, detection)) for case in (*stdnum_cases(), *phone_cases())]
    lines = [
        f"python-stdnum {version('python-stdnum')}, phonenumbers {version('phonenumbers')}; 95% intervals of Wilson.",
        "",
        "| corpus | entity | right ones found | recall | wrong ones found | misses |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    rows: list[dict[str, object]] = []
    for corpus, entity in dict.fromkeys((case.corpus, case.entity) for case, _ in answers):
        mine = [(case, answer) for case, answer in answers if (case.corpus, case.entity) == (corpus, entity)]
        right = [answer for case, answer in mine if case.right]
        wrong = [answer for case, answer in mine if not case.right]
        found, false = right.count("found"), wrong.count("found")
        why = Counter(answer for answer in right if answer != "found")
        missed = [case.text for case, answer in mine if case.right and answer != "found"]
        low, high = wilson(found, len(right)) or (0.0, 1.0)
        recall = f"{found / len(right):.3f} ({low:.3f} to {high:.3f})" if right else "-"
        reasons = ", ".join(f"{count} {reason}" for reason, count in why.items())
        lines.append(
            f"| {corpus} | {entity} | {found} of {len(right)} | {recall} | {false} of {len(wrong)} | {reasons} |"
        )
        rows.append({
            "corpus": corpus, "entity": entity, "right": len(right), "found": found, "recall_95": [low, high],
            "wrong": len(wrong), "false": false, "misses": dict(why), "missed": missed[:_MOST_LISTED],
        })  # fmt: skip
    lines += [
        "",
        f"| names in {names.PACKAGE} | labelled ones found | recall | false ones |",
        "| --- | --- | --- | --- |",
    ]
    for entity, count in names.counted(list(names.messages())).items():
        labelled = count.found + count.missed
        low, high = wilson(count.found, labelled)
        recall = f"{count.found / labelled:.3f} ({low:.3f} to {high:.3f})"
        lines.append(f"| {entity} | {count.found} of {labelled} | {recall} | {count.false} |")
        rows.append({"corpus": names.PACKAGE, "entity": entity, **vars(count), "recall_95": [low, high]})
    if presidio:
        table, cases = presidio_cases.report(presidio, detection)
        lines += ["", *table]
        rows += cases
    BUILD.mkdir(exist_ok=True)
    (BUILD / "bench-corpora.json").write_text(json.dumps(rows, indent=2) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()

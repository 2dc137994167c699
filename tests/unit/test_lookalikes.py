"""Pseudonyms that look like values: forms that are kept, dates that move, and a gate that knows what it made itself."""

from __future__ import annotations

import io
import json
import re
from datetime import UTC, date, datetime
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.core.dataset import DatasetURI
from tasks.core.detectors.scan import scan
from tasks.core.errors import Invalid, PolicyViolation
from tasks.core.listing import read_manifest
from tasks.core.policy import Place, Policy
from tasks.core.policy_loading import load_policy
from tasks.core.preserving import Preserving
from tasks.core.privacy import Cleared, Exemptions, Refused, Verdict, VerdictKey, actions_for, decide
from tasks.core.pseudonym_key import PseudonymKey
from tasks.core.shifting import days_of, shifted
from tasks.core.transform import apply_treatment
from tests.memory_store import MemoryStore

SOURCE, STAGED = DatasetURI("memory", "b", "raw"), DatasetURI("memory", "b", "treated")
DESTINATION, PLACE = DatasetURI("google", "lake", "x"), Place("google", "US")
KEYS = PseudonymKey("p1", bytes(range(32)))
FORM = Preserving(KEYS, "PHONE_NUMBER", "google")


@settings(max_examples=60, deadline=None)
@given(st.lists(st.from_regex(r"\+?[0-9]{6,20}|[0-9a-z]{4,12}[a-z]|[A-Z]{2}[0-9]{4,20}", fullmatch=True), max_size=20))
def test_what_keeps_its_form_comes_back_and_nothing_else_looks_different(values: list[str]) -> None:
    made = FORM.encrypt(values)
    assert FORM.decrypt(made) == values
    for value, pseudonym in zip(values, made, strict=True):
        assert len(pseudonym) == len(value)
        assert pseudonym.isdecimal() == value.isdecimal()
        assert (pseudonym.upper() == pseudonym, pseudonym.lower() == pseudonym) == (
            value.upper() == value, value.lower() == value,
        )  # fmt: skip


def test_separators_stay_and_domains_and_destinations_differ() -> None:
    value = "+62 (812) 3456-7890"
    (made,) = FORM.encrypt([value])
    assert re.fullmatch(r"\+[0-9]{2} \([0-9]{3}\) [0-9]{4}-[0-9]{4}", made)
    others = [Preserving(KEYS, "ID_NIK", "google"), Preserving(KEYS, "PHONE_NUMBER", "azure")]
    assert len({made, value, *(other.encrypt([value])[0] for other in others)}) == 4
    assert FORM.encrypt(["", value]) == ["", made]


@pytest.mark.parametrize("value", ["12345", "1-2-3-4-5", "abc", "Abc123", "a@b.example", "---", "12345é"])
def test_what_could_be_guessed_by_trying_all_or_has_another_form_is_refused(value: str) -> None:
    with pytest.raises(Invalid, match="1 different values") as said:
        FORM.encrypt([value, "123456"])
    assert value not in str(said.value)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.dates(date(1900, 1, 1), date(2099, 1, 1))), min_size=1, max_size=20),
    st.integers(1, 400),
)
def test_dates_move_by_one_number_of_days_a_subject_and_intervals_stay(rows: list[tuple[str, date]], most: int) -> None:
    subjects, dates = pl.Series([row[0] for row in rows]), [row[1] for row in rows]
    moved = shifted(pl.Series(dates), days_of(subjects, b"k" * 32, most)).to_list()
    days = {(subject, (new - old).days) for subject, old, new in zip(subjects, dates, moved, strict=True)}
    assert len(days) == len(set(subjects))
    assert all(0 < abs(each) <= most for _, each in days)
    texts = shifted(pl.Series([f"{each:%Y/%m/%d} 10:00" for each in dates]), days_of(subjects, b"k" * 32, most))
    assert texts.to_list() == [f"{each:%Y/%m/%d} 10:00" for each in moved]


def test_a_date_of_nobody_is_left_out_and_what_is_no_date_is_refused() -> None:
    nobody = days_of(pl.Series(["a", None]), b"k" * 32, 9)
    assert shifted(pl.Series(["2026-01-01", "2026-01-01"]), nobody).null_count() == 1
    assert shifted(pl.Series([20260101, None]), days_of(pl.Series(["a", "a"]), b"k" * 32, 9)).dtype == pl.Int64
    with pytest.raises(Invalid, match="1 values"):
        shifted(pl.Series(["03/02/1980", "2026-01-01"]), nobody)


def policy(**options: Any) -> Policy:
    shift = {"name": "dates move", "entities": ["DATE_OF_BIRTH"], "action": "shift_dates", "options": options}
    form = {"name": "form stays", "entities": ["PHONE_NUMBER", "CREDIT_CARD"], "action": "format_preserve"}
    return load_policy({"version": 1, "name": "p", "residency": {"allowed": ["US"]}, "rules": [shift, form]})


PHONES = [f"+1 415-555-{2671 + at}" for at in range(40)]
ROWS = {
    "patient": [f"p{at % 8}" for at in range(40)],
    "date_of_birth": [f"19{60 + at % 30}-0{1 + at % 9}-11" for at in range(40)],
    "admitted": [f"2026-0{1 + at % 9}-1{at % 10}" for at in range(40)],
    "phone": PHONES,
    "note": [f"call {phone} soon" for phone in PHONES],
}


def stored(kind: str) -> bytes:
    rows = [dict(zip(ROWS, row, strict=True)) for row in zip(*ROWS.values(), strict=True)]
    if kind == "jsonl":
        return "".join(json.dumps(row) + "\n" for row in rows).encode()
    if kind == "csv":
        return pl.DataFrame(ROWS).write_csv().encode()
    sink = io.BytesIO()
    pq.write_table(pa.table(ROWS), sink)
    return sink.getvalue()


def gate(kind: str, of: Policy) -> tuple[pl.DataFrame, Verdict, Verdict]:
    """The copy, its verdict, and what the verdict would be if nothing were known of how it was made."""
    store = MemoryStore()
    content = stored(kind)
    store.put(SOURCE.key(f"t.{kind}"), [content], size_bytes=len(content))
    manifest = read_manifest(store, SOURCE)
    treatment = actions_for(of, scan(store, SOURCE, manifest), destination=DESTINATION, place=PLACE)
    assert not isinstance(treatment, Refused), treatment.reasons
    made = apply_treatment(store, SOURCE, manifest, treatment, KEYS, store, STAGED)
    again = scan(store, STAGED, made)
    about: dict[str, Any] = {"manifest_digest": made.digest, "source_digest": manifest.digest, "place": PLACE}
    about |= {"destination": DESTINATION, "key": VerdictKey("k", bytes(32)), "now": datetime(2026, 11, 2, tzinfo=UTC)}
    lookalikes = tuple(each for each in treatment.columns if each.makes_lookalikes)
    verdicts = decide(of, again, **about, exemptions=Exemptions(pseudonyms=lookalikes)), decide(of, again, **about)
    data = io.BytesIO(b"".join(store.get(STAGED.key(f"t.{kind}"))))
    read = {"csv": pl.read_csv, "jsonl": pl.read_ndjson, "parquet": pl.read_parquet}[kind]
    return read(data), *verdicts


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_a_copy_of_lookalikes_is_cleared_because_every_value_of_the_column_was_exchanged(kind: str) -> None:
    copy, known, unknown = gate(kind, policy(by="patient", also=["admitted"]))
    assert isinstance(known, Cleared), known
    assert isinstance(unknown, Refused)
    assert "PHONE_NUMBER" not in {finding.entity for finding in known.findings if finding.column == "phone"}
    assert all(re.fullmatch(r"\+[0-9] [0-9]{3}-[0-9]{3}-[0-9]{4}", each) for each in copy["phone"])
    assert set(PHONES).isdisjoint(copy["phone"])
    assert copy["note"].str.contains("call enc_[a-z2-7_]+ soon").all()
    before = pl.DataFrame(ROWS)
    for column in ("date_of_birth", "admitted"):
        days = copy[column].cast(pl.String).str.to_date() - before[column].str.to_date()
        by_subject = pl.DataFrame({"patient": before["patient"], column: days}).unique()
        assert by_subject.height == 8
        assert (days.dt.total_days() != 0).all()


def test_without_a_subject_or_a_form_nothing_is_copied() -> None:
    with pytest.raises(PolicyViolation, match="no column 'nobody'"):
        gate("csv", policy(by="nobody"))


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ({"rules": [{"name": "r", "entities": ["DATE_OF_BIRTH"], "action": "shift_dates"}]}, "options.by' is missing"),
        ({"defaults": {"finding": "shift_dates"}}, "needs options"),
    ],
)
def test_a_policy_that_does_not_say_whose_dates_move_is_refused(data: dict[str, Any], said: str) -> None:
    with pytest.raises(Invalid, match=said):
        load_policy({"version": 1, "name": "p", "residency": {"allowed": ["US"]}} | data)

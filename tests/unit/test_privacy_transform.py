"""Treated copies: what happens to each kind of column, and that the second scan is the judge."""

from __future__ import annotations

import io
import json
import random
import re
from datetime import UTC, date, datetime
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tasks.core.dataset import DatasetURI
from tasks.core.detectors import native
from tasks.core.detectors.candidates import Candidates
from tasks.core.detectors.patterns import ALL, PLAIN
from tasks.core.detectors.scan import scan
from tasks.core.errors import Invalid, PolicyViolation
from tasks.core.listing import read_manifest
from tasks.core.manifest import Manifest
from tasks.core.policy import Action, ActionOptions, Place
from tasks.core.policy_loading import load_policy
from tasks.core.privacy import Cleared, ColumnTreatment, Policy, Refused, Treatment, VerdictKey, actions_for, decide
from tasks.core.pseudonym_key import PseudonymKey
from tasks.core.transform import apply_treatment
from tasks.core.treatments import ObjectTreatment, replaced, treat_column, treat_hits
from tests.memory_store import MemoryStore

SOURCE = DatasetURI("memory", "b", "raw")
STAGED = DatasetURI("memory", "b", "treated")
DESTINATION = DatasetURI("google", "lake", "flights")
KEYS = PseudonymKey("p1", bytes(range(32)))
SIGNING = VerdictKey("k1", bytes(range(32)))
EMAILS = [f"person{at}@example.org" for at in range(40)]
CARD = "4111111111111111"


def how(
    action: str, column: str = "x", *, entity: str = "EMAIL_ADDRESS", in_text: bool = False, **options: Any
) -> ColumnTreatment:
    return ColumnTreatment(
        "*", column, Action(action), (entity,), "r", ActionOptions(**options), options.get("domain", entity), in_text
    )


def treated(values: list[Any], action: str, *, to: str = "google", **more: Any) -> list[Any]:
    return treat_column(pl.Series("x", values), how(action, **more), KEYS, to).to_list()


# Values


def test_equal_values_have_equal_tokens_and_other_destinations_other_tokens() -> None:
    one, again, other, none = treated(["a@example.org", "a@example.org", "b@example.org", None], "tokenise")
    assert one == again != other
    assert none is None
    assert re.fullmatch(r"tok_[a-z2-7]{26}", one)
    assert treated(["a@example.org"], "tokenise", to="azure") != [one]
    assert treated(["a@example.org"], "tokenise", entity="PERSON") != [one]


@pytest.mark.parametrize("different", [1, 40, 3000])
@pytest.mark.parametrize("action", ["tokenise", "hash", "mask", "replace", "encrypt"])
def test_a_value_that_comes_again_is_treated_as_if_it_stood_alone(action: str, different: int) -> None:
    values = [None if at % 7 == 3 else f"person{at % different}@example.org" for at in range(3000)]
    made = treated(values, action)
    assert [value is None for value in made] == [value is None for value in values]
    for at in (0, 1, 2, 1023, 1024, 2999):
        assert made[at] == treated([values[at]], action)[0]
    assert treated([None, None], action) == [None, None]


def test_no_detector_has_a_candidate_in_a_token() -> None:
    tokens = pl.Series(treated([f"person{at}" for at in range(20_000)], "tokenise"))
    assert tokens.str.contains(PLAIN).all()
    assert len(Candidates.found(tokens, ALL).rows) == 0
    # Any letter or digit of the alphabet at any place, and runs of nothing but digits or of what other keys begin with.
    tight = ["2" * 26, "27" * 13, "a" * 26, "eyj" + "a" * 23, "akia" + "2" * 22, "bc1"[:2] + "2" * 24]
    worst = pl.Series([f"tok_{text}" for text in tight])
    assert worst.str.contains(PLAIN).all()
    assert len(Candidates.found(worst, ALL).rows) == 0
    for beside in ("tok_" + "2" * 27, "tok_" + "2" * 25, "Tok_" + "2" * 26, "tok_" + "8" * 26, "a tok_" + "2" * 26):
        assert not pl.Series([beside]).str.contains(PLAIN).any()


def test_a_domain_keeps_joins_between_columns() -> None:
    assert treated(["1"], "tokenise", domain="customer") == treated(
        ["1"], "tokenise", entity="PERSON", domain="customer"
    )
    assert treated([3273014507900001], "tokenise") == treated(["3273014507900001"], "tokenise")
    assert treated([3273014507900001.0, None], "tokenise")[0] == treated(["3273014507900001"], "tokenise")[0]


def test_hashes_are_equal_at_every_destination() -> None:
    assert treated(["a"], "hash") == treated(["a"], "hash", to="azure")
    assert re.fullmatch(r"[0-9a-f]{64}", treated(["a"], "hash")[0])


@pytest.mark.parametrize(
    ("value", "keep", "expected"),
    [("+6281234567890", 4, "**********7890"), ("1234567", 4, "*******"), ("12345678", 0, "********"), ("é", 4, "*")],
)
def test_masks_keep_no_more_than_half(value: str, keep: int, expected: str) -> None:
    assert treated([value, None], "mask", keep_last=keep) == [expected, None]


def test_replacements_name_the_entity_unless_told() -> None:
    assert treated(["Mary Jones", None], "replace", entity="PERSON") == ["<PERSON>", None]
    assert treated(["Mary Jones"], "replace", replacement="(guest)") == ["(guest)"]


@pytest.mark.parametrize(
    ("values", "options", "expected"),
    [
        ([date(1980, 2, 3), None], {}, ["1980-02", None]),
        ([datetime(1980, 2, 3, 4, 5)], {"date_to": "year"}, ["1980"]),
        (
            ["1980-02-03", "1980/12/31 10:00", "03/02/1980", "soon"],
            {},
            ["1980-02", "1980-12", "1980", "<DATE_OF_BIRTH>"],
        ),
        ([19800203], {}, [198002]),
        ([19800203], {"date_to": "year"}, [1980]),
    ],
)
def test_dates_are_made_coarser(values: list[Any], options: dict[str, Any], expected: list[Any]) -> None:
    assert treated(values, "generalise", entity="DATE_OF_BIRTH", **options) == expected


def test_numbers_are_rounded_down_to_a_step() -> None:
    assert treated([-6.2088, 106.8456], "generalise", entity="COORDINATES", number_step=0.1) == [-6.3, 106.8]
    assert treated(["37", None], "generalise", entity="PERSON", number_step=10.0) == ["30.0", None]


def test_in_free_text_only_the_hits_change() -> None:
    cells = pl.Series(["mail a@example.org now", "nothing", None, "a@example.org b@example.org"])
    changed = treat_hits(cells, how("replace", in_text=True), ObjectTreatment({}, KEYS, "google")).to_list()
    assert changed == ["mail <EMAIL_ADDRESS> now", "nothing", None, "<EMAIL_ADDRESS> <EMAIL_ADDRESS>"]


def test_the_key_shows_itself_nowhere_and_must_be_long_enough() -> None:
    assert "secret" not in repr(KEYS)
    with pytest.raises(Invalid):
        PseudonymKey("p", b"short")


# Datasets


def parquet_bytes(table: pa.Table) -> bytes:
    sink = io.BytesIO()
    pq.write_table(table, sink)
    return sink.getvalue()


def columns() -> dict[str, list[Any]]:
    return {
        "contact_email": [*EMAILS[:-1], None],
        "contact_phone": ["+62 812-3456-7890"] * 40,
        "payment_card": [CARD] * 40,
        "national_id": [f"32730145079{at:05d}" for at in range(1, 41)],
        "lead_passenger": ["Siti Nurhaliza", "John Smith"] * 20,
        "notes": ["seat by the window", f"write to {EMAILS[3]}"] * 20,
        "dep_delay": [*range(39), None],
    }


POLICY = load_policy(
    {
        "version": 1,
        "name": "t",
        "residency": {"allowed": ["US", "EU"]},
        "rules": [
            {"name": "tokens", "entities": ["EMAIL_ADDRESS", "ID_NIK"], "action": "tokenise"},
            {"name": "phones", "entities": ["PHONE_NUMBER"], "action": "mask"},
            {"name": "cards", "entities": ["CREDIT_CARD"], "action": "drop"},
            {"name": "people", "entities": ["PERSON"], "action": "replace"},
        ],
    }
)


def store_with(objects: dict[str, bytes]) -> tuple[MemoryStore, Manifest]:
    store = MemoryStore()
    for path, content in objects.items():
        store.put(SOURCE.key(path), [content], size_bytes=len(content))
    return store, read_manifest(store, SOURCE)


def plan(store: MemoryStore, manifest: Manifest, policy: Policy = POLICY) -> Treatment:
    report = scan(store, SOURCE, manifest)
    treatment = actions_for(policy, report, destination=DESTINATION, place=Place("google", "US"))
    assert isinstance(treatment, Treatment)
    return treatment


def copied(store: MemoryStore, manifest: Manifest, treatment: Treatment) -> Manifest:
    return apply_treatment(store, SOURCE, manifest, treatment, KEYS, store, STAGED)


def judged(store: MemoryStore, copy: Manifest, policy: Policy = POLICY) -> Cleared | Refused:
    return decide(
        policy,
        scan(store, STAGED, copy),
        manifest_digest=copy.digest,
        source_digest="ab" * 32,
        destination=DESTINATION,
        place=Place("google", "US"),
        key=SIGNING,
        now=datetime.now(UTC),
        objects=len(copy),
    )


def content_of(store: MemoryStore, path: str) -> bytes:
    return b"".join(store.get(STAGED.key(path)))


def written(name: str) -> bytes:
    table = pa.table(columns())
    if name.endswith("parquet"):
        return parquet_bytes(table)
    if name.endswith("jsonl"):
        return "".join(json.dumps(row) + "\n" for row in table.to_pylist()).encode()
    lines = [",".join(table.column_names)]
    lines += [",".join("" if value is None else str(value) for value in row.values()) for row in table.to_pylist()]
    return ("\n".join(lines) + "\n").encode()


def rows_of(name: str, content: bytes) -> list[dict[str, Any]]:
    if name.endswith("parquet"):
        return pq.read_table(io.BytesIO(content)).to_pylist()
    if name.endswith("jsonl"):
        return [json.loads(line) for line in content.splitlines()]
    return pl.read_csv(io.BytesIO(content)).to_dicts()


@pytest.mark.parametrize("name", ["t.parquet", "t.csv", "t.jsonl"])
def test_a_treated_copy_is_cleared_by_the_same_gate(name: str) -> None:
    store, manifest = store_with({name: written(name)})
    copy = copied(store, manifest, plan(store, manifest))
    verdict = judged(store, copy)
    assert isinstance(verdict, Cleared), verdict
    SIGNING.require(verdict, manifest_digest=copy.digest, destination=DESTINATION)
    rows = rows_of(name, content_of(store, name))
    assert len(rows) == 40
    assert set(rows[0]) == set(columns()) - {"payment_card"}
    assert rows[0]["contact_email"].startswith("tok_")
    assert rows[39]["contact_email"] is None
    assert rows[0]["contact_phone"] == "*" * 13 + "7890"
    assert rows[0]["lead_passenger"] == "<PERSON>"
    assert [row["dep_delay"] for row in rows] == columns()["dep_delay"]
    assert rows[0]["notes"] == "seat by the window"
    assert rows[1]["notes"] == f"write to {rows[3]['contact_email']}"


def test_what_hardly_comes_again_is_written_without_a_dictionary() -> None:
    words, nested = ["late", "early"] * 20, [{"a": "x", "email": email} for email in EMAILS]
    rows = {"contact_email": EMAILS, "status": words, "id": list(range(40)), "nested": nested}
    halves = pa.array([1.5] * 40, pa.float16())
    store, manifest = store_with({"t.parquet": parquet_bytes(pa.table(rows).append_column("half", halves))})
    copied(store, manifest, plan(store, manifest))
    content = content_of(store, "t.parquet")
    group = pq.ParquetFile(io.BytesIO(content)).metadata.row_group(0)
    coded = {group.column(at).path_in_schema: group.column(at).has_dictionary_page for at in range(6)}
    few = {"status": True, "nested.a": True, "nested.email": True, "half": True}
    assert coded == few | {"contact_email": False, "id": True}  # What is not treated stays as it is stored.
    assert pl.read_parquet(io.BytesIO(content))["id"].to_list() == rows["id"]


@pytest.mark.parametrize("name", ["t.parquet", "t.csv", "t.jsonl"])
def test_nothing_of_the_treated_columns_is_left(name: str) -> None:
    store, manifest = store_with({name: written(name)})
    copied(store, manifest, plan(store, manifest))
    plain = repr(rows_of(name, content_of(store, name))) + content_of(store, name).decode(errors="replace")
    for secret in [*EMAILS, CARD, "Nurhaliza", "812-3456", *columns()["national_id"]]:
        assert secret not in plain


def test_a_second_run_writes_nothing_and_gives_the_same_digest() -> None:
    store, manifest = store_with({name: written(name) for name in ("a.parquet", "b.csv", "c.jsonl")})
    treatment = plan(store, manifest)
    first = copied(store, manifest, treatment)
    store.sent.clear()
    assert copied(store, manifest, treatment).digest == first.digest
    assert store.sent == []
    store.delete(STAGED.key("a.parquet"))
    assert copied(store, manifest, treatment).digest == first.digest


def test_objects_that_need_nothing_are_the_same_bytes() -> None:
    other = parquet_bytes(pa.table({"carrier": ["UA"], "delay": [1]}))
    store, manifest = store_with({"t.parquet": written("t.parquet"), "airlines/x.parquet": other})
    copy = copied(store, manifest, plan(store, manifest))
    assert copy.by_path()["airlines/x.parquet"] == manifest.by_path()["airlines/x.parquet"]
    assert content_of(store, "airlines/x.parquet") == other


def test_nested_values_are_treated_where_they_stand() -> None:
    rows = [
        {"who": {"mail": EMAILS[at], "age": at, "cards": [{"no": CARD}]}, "tags": [EMAILS[at], "x"]} for at in range(30)
    ] + [{"who": None, "tags": None}]
    lines = "".join(json.dumps(row) + "\n" for row in rows).encode()
    store, manifest = store_with({"p/t.parquet": parquet_bytes(pa.Table.from_pylist(rows)), "j/t.jsonl": lines})
    copy = copied(store, manifest, plan(store, manifest))
    assert isinstance(judged(store, copy), Cleared)
    for path in ("p/t.parquet", "j/t.jsonl"):
        out = rows_of(path, content_of(store, path))
        assert out[0]["who"]["mail"].startswith("tok_")
        assert out[0]["who"]["age"] == 0
        assert out[30]["who"] is None
        assert out[30]["tags"] is None
        assert EMAILS[0] not in repr(out)
        assert CARD not in repr(out)


def test_joins_survive_across_objects() -> None:
    store, manifest = store_with(
        {
            "a/t.parquet": parquet_bytes(pa.table({"contact_email": EMAILS, "n": list(range(40))})),
            "b/t.csv": ("email,m\n" + "".join(f"{mail},1\n" for mail in EMAILS)).encode(),
        }
    )
    copied(store, manifest, plan(store, manifest))
    left = {row["contact_email"] for row in rows_of("t.parquet", content_of(store, "a/t.parquet"))}
    right = {row["email"] for row in rows_of("t.csv", content_of(store, "b/t.csv"))}
    assert left == right
    assert len(left) == 40


def test_what_must_be_treated_and_cannot_be_read_stops_the_copy() -> None:
    lenient = load_policy(
        {
            "version": 1,
            "name": "t",
            "residency": {"allowed": ["US"]},
            "defaults": {"unreadable": "allow"},
            "rules": [{"name": "tokens", "entities": ["EMAIL_ADDRESS"], "action": "tokenise"}],
        }
    )
    store, manifest = store_with({"t.csv": b"email,x\na@example.org,1\nb@example.org,1,2\n"})
    with pytest.raises(PolicyViolation, match="another number of fields"):
        copied(store, manifest, plan(store, manifest, lenient))


def test_a_personal_name_of_a_column_or_an_object_cannot_be_treated() -> None:
    store, manifest = store_with({"t.csv": b"canary@example.org,x\nother@example.org,1\n"})
    refused = actions_for(POLICY, scan(store, SOURCE, manifest), destination=DESTINATION, place=Place("google", "US"))
    assert isinstance(refused, Refused)
    assert "rename it" in " ".join(refused.reasons)
    assert "canary" not in repr(refused)


def test_an_object_that_is_all_dropped_is_left_out() -> None:
    store, manifest = store_with({"cards.csv": f"payment_card\n{CARD}\n".encode(), "x.csv": b"a,b\n1,2\n"})
    copy = copied(store, manifest, plan(store, manifest))
    assert [entry.path for entry in copy] == ["x.csv"]


@pytest.mark.parametrize("letters", ["abé", "abcdefghij"])
def test_pieces_are_replaced_alike_with_and_without_the_kernel(letters: str, monkeypatch: pytest.MonkeyPatch) -> None:
    draw = random.Random(len(letters))

    def text(least: int, most: int) -> str:
        return "".join(draw.choices(letters, k=draw.randint(least, most)))

    for _ in range(200):
        pieces = sorted({text(1, draw.choice((2, 11))) for _ in range(8)}, key=lambda piece: (-len(piece), piece))
        cells = pl.Series("c", [draw.choice((None, text(0, 40))) for _ in range(12)], dtype=pl.String)
        instead = [draw.choice(("", "X", "<something longer>" * 9)) for _ in pieces]
        found = replaced(cells, pl.Series(pieces), pl.Series(instead))
        with monkeypatch.context() as patch:
            patch.setattr(native, "kernel", lambda: None)
            assert found.equals(replaced(cells, pl.Series(pieces), pl.Series(instead)), null_equal=True)

"""Laws of the privacy gate: stricter clears no more, order and splitting do not matter, verdicts do not bend."""

from __future__ import annotations

import copy
import io
import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tasks.core.dataset import DatasetURI
from tasks.core.detectors.entities import ENTITIES
from tasks.core.detectors.scan import scan
from tasks.core.errors import Invalid, PolicyViolation
from tasks.core.findings import Finding, ScanReport
from tasks.core.listing import read_manifest
from tasks.core.manifest import Manifest
from tasks.core.policy import Action, Place, Policy
from tasks.core.policy_loading import load_policy
from tasks.core.privacy import Cleared, Refused, VerdictKey, actions_for, decide
from tasks.core.pseudonym_key import PseudonymKey
from tasks.core.transform import apply_treatment
from tests.memory_store import MemoryStore

URI = DatasetURI("memory", "b", "d")
STAGED = DatasetURI("memory", "b", "staged")
TARGET = DatasetURI("google", "lake", "x")
KEY = VerdictKey("k", bytes(range(32)))
NOW = datetime(2026, 11, 2, tzinfo=UTC)
DIGEST = "ab" * 32

shares = st.sampled_from([0.0, 0.01, 0.2, 0.5, 0.8, 1.0])
findings = st.builds(
    Finding,
    entity=st.sampled_from(sorted(ENTITIES)),
    path=st.just("t.csv"),
    column=st.sampled_from(["a", "contact_email", "notes"]),
    count=st.integers(1, 100),
    share=shares,
    confidence=shares,
    why=st.just("because"),
)
ACTIONS = [action.value for action in Action]


def with_its_options(rule: dict[str, Any]) -> dict[str, Any]:
    """A rule with what its action cannot do without."""
    rule = {name: value for name, value in rule.items() if name != "options"}
    return rule | ({"options": {"by": "a"}} if rule["action"] == "shift_dates" else {})


rules = st.fixed_dictionaries(
    {
        "entities": st.lists(st.sampled_from(sorted(set(ENTITIES) - {"UNREADABLE"})), min_size=1, max_size=4),
        "action": st.sampled_from(ACTIONS),
        "columns": st.lists(st.sampled_from(["*", "a", "contact_*"]), max_size=2),
        "destinations": st.lists(st.sampled_from(["US", "EU", "google", "azure"]), max_size=2),
        "except_destinations": st.lists(st.sampled_from(["US", "ID"]), max_size=1),
        "min_share": shares,
        "min_confidence": shares,
    }
).map(with_its_options)
policies = st.builds(
    lambda rules, finding, least, allowed, by_group: {
        "version": 1,
        "name": "p",
        "residency": {"allowed": allowed, "by_group": by_group},
        "defaults": {"finding": finding, "min_confidence": least},
        "rules": [{"name": f"r{at}", **rule} for at, rule in enumerate(rules)],
    },
    st.lists(rules, max_size=4),
    st.sampled_from([action for action in ACTIONS if action != "shift_dates"]),
    shares,
    st.lists(st.sampled_from(["US", "EU", "ID", "SG"]), min_size=1, max_size=4, unique=True),
    st.dictionaries(st.sampled_from(["contact", "financial"]), st.just(["US", "ID"]), max_size=2),
)


def verdict_of(data: dict[str, Any] | Policy, found: list[Finding], jurisdiction: str) -> Cleared | Refused:
    return decide(
        data if isinstance(data, Policy) else load_policy(data),
        ScanReport(URI, DIGEST, 100, 1, 10, tuple(found)),
        manifest_digest=DIGEST,
        source_digest=DIGEST,
        destination=TARGET,
        place=Place("google", jurisdiction),
        key=KEY,
        now=NOW,
    )


@st.composite
def tightened(draw: st.DrawFn, data: dict[str, Any]) -> dict[str, Any]:
    """A policy that differs from another one in one thing that makes it stricter."""
    stricter = copy.deepcopy(data)
    choice = draw(st.integers(0, 5))
    if choice == 0 and stricter["rules"]:
        which = draw(st.integers(0, len(stricter["rules"]) - 1))
        rule = stricter["rules"][which]
        action = draw(st.sampled_from(ACTIONS[ACTIONS.index(rule["action"]) :]))
        stricter["rules"][which] = with_its_options(rule | {"action": action})
    elif choice == 1 and stricter["rules"]:
        rule = draw(st.sampled_from(stricter["rules"]))
        rule[draw(st.sampled_from(["min_share", "min_confidence"]))] = 0.0
    elif choice == 2 and len(stricter["residency"]["allowed"]) > 1:
        stricter["residency"]["allowed"].pop()
    elif choice == 3:
        stricter["defaults"] = {"finding": "refuse", "min_confidence": 0.0}
    elif choice == 4:
        stricter["residency"]["by_group"]["secret"] = ["SG"]
    else:
        stricter["rules"].append({"name": "no", "entities": ["*"], "action": "refuse", "min_confidence": 0.0})
    return stricter


@settings(max_examples=300, deadline=None)
@given(
    data=policies,
    found=st.lists(findings, max_size=5),
    where=st.sampled_from(["US", "EU", "DE", "CH", ""]),
    draw=st.data(),
)
def test_a_stricter_policy_never_clears_more(
    data: dict[str, Any], found: list[Finding], where: str, draw: st.DataObject
) -> None:
    stricter = draw.draw(tightened(data))
    if isinstance(verdict_of(stricter, found, where), Cleared):
        assert isinstance(verdict_of(data, found, where), Cleared)
    place = Place("google", where)
    for finding in found:
        milder, harder = (load_policy(each).decide(finding, place).action for each in (data, stricter))
        assert harder.strictness >= milder.strictness
        if load_policy(data).decide(finding, place, released=True).action is Action.REFUSE:
            assert milder is Action.REFUSE


@settings(max_examples=200, deadline=None)
@given(first=policies, second=policies, found=st.lists(findings, max_size=5), where=st.sampled_from(["US", "DE", ""]))
def test_policies_that_extend_each_other_clear_what_each_clears_and_no_more(
    first: dict[str, Any], second: dict[str, Any], found: list[Finding], where: str
) -> None:
    alone = [isinstance(verdict_of(data, found, where), Cleared) for data in (first, second)]
    for top, base in ((first, second), (second, first)):
        together = load_policy(top, bases=[load_policy(base)])
        assert isinstance(verdict_of(together, found, where), Cleared) is all(alone)


@settings(max_examples=200, deadline=None)
@given(data=policies, found=st.lists(findings, max_size=5), extra=findings)
def test_one_more_finding_never_clears_more(data: dict[str, Any], found: list[Finding], extra: Finding) -> None:
    if isinstance(verdict_of(data, [*found, extra], "US"), Cleared):
        assert isinstance(verdict_of(data, found, "US"), Cleared)


@settings(max_examples=200, deadline=None)
@given(found=st.lists(findings, max_size=3), bit=st.integers(0, 100_000))
def test_a_stored_verdict_with_any_bit_flipped_opens_nothing(found: list[Finding], bit: int) -> None:
    cleared = verdict_of(
        {
            "version": 1,
            "name": "p",
            "residency": {"allowed": ["US"]},
            "defaults": {"finding": "allow", "unreadable": "allow"},
        },
        found,
        "US",
    )
    assert isinstance(cleared, Cleared)
    stored = bytearray(json.dumps(cleared.as_dict()).encode())
    stored[bit // 8 % len(stored)] ^= 1 << bit % 8
    try:
        altered = Cleared.from_dict(json.loads(stored))
        if altered != cleared:
            KEY.require(altered, manifest_digest=altered.manifest_digest, destination=altered.destination)
            raise AssertionError("an altered verdict was accepted")
    except (PolicyViolation, Invalid, ValueError):
        pass  # It cannot be read, or it does not verify.


emails = st.integers(0, 50).map(lambda n: f"person{n}@example.org")
numbers = st.sampled_from(["4111111111111111", "5555555555554444", "1234567890123456", "3273014507900001", "555-0100"])
cells = st.one_of(st.none(), emails, numbers, st.sampled_from(["call Mary", "", "ORD-1234567890", "10.0.0.1", "n/a"]))
tables = st.lists(st.tuples(cells, cells), min_size=1, max_size=30)


def stored(parts: dict[str, list[tuple[str | None, str | None]]]) -> tuple[MemoryStore, Manifest]:
    store = MemoryStore()
    for path, rows in parts.items():
        sink = io.BytesIO()
        columns = {"contact_email": [row[0] for row in rows], "ref": [row[1] for row in rows]}
        pq.write_table(pa.table(columns, schema=pa.schema({"contact_email": pa.string(), "ref": pa.string()})), sink)
        content = sink.getvalue()
        store.put(URI.key(path), [content], size_bytes=len(content))
    return store, read_manifest(store, URI)


def found_in(parts: dict[str, list[tuple[str | None, str | None]]]) -> set[Finding]:
    store, manifest = stored(parts)
    return {replace(finding, path="") for finding in scan(store, URI, manifest).findings}


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(rows=tables, draw=st.data())
def test_neither_order_nor_splitting_changes_what_is_found(
    rows: list[tuple[str | None, str | None]], draw: st.DataObject
) -> None:
    whole = found_in({"t/part-0.parquet": rows})
    shuffled = draw.draw(st.permutations(rows))
    assert found_in({"t/part-0.parquet": list(shuffled)}) == whole
    at = draw.draw(st.integers(0, len(rows)))
    assert found_in({"t/part-1.parquet": rows[at:], "t/part-0.parquet": rows[:at]}) == whole
    assert found_in({"t/day=2/x.parquet": rows[:at], "t/day=1/y.parquet": rows[at:]}) == whole


POLICY = load_policy(
    {
        "version": 1,
        "name": "p",
        "residency": {"allowed": ["US"]},
        "rules": [
            {"name": "mails", "entities": ["EMAIL_ADDRESS"], "action": "tokenise"},
            {"name": "cards", "entities": ["financial", "government_id"], "action": "replace"},
            {"name": "rest", "entities": ["PHONE_NUMBER", "network", "PERSON"], "action": "drop"},
        ],
    }
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(rows=tables)
def test_a_treated_copy_holds_no_value_of_its_treated_columns(rows: list[tuple[str | None, str | None]]) -> None:
    store, manifest = stored({"t.parquet": rows})
    treatment = actions_for(POLICY, scan(store, URI, manifest), destination=TARGET, place=Place("google", "US"))
    if isinstance(treatment, Refused):
        return
    copied = apply_treatment(store, URI, manifest, treatment, PseudonymKey("p", bytes(32)), store, STAGED)
    if not len(copied):
        return
    left = pq.read_table(io.BytesIO(b"".join(store.get(STAGED.key("t.parquet"))))).to_pydict()
    for column in treatment.columns:
        values = {row[0 if column.column == "contact_email" else 1] for row in rows} - {None, ""}
        if not column.in_text:
            assert values.isdisjoint(left.get(column.column, []))
    again = scan(store, STAGED, copied)
    assert not isinstance(actions_for(POLICY, again, destination=TARGET, place=Place("google", "US")), Refused)
    assert {f.entity for f in again.findings if f.confidence >= 0.5} == set()


FORMATS: dict[str, Callable[[list[tuple[str, int]]], bytes]] = {
    "csv": lambda rows: pl.DataFrame(rows, schema=["note", "id"], orient="row").write_csv().encode(),
    "jsonl": lambda rows: "".join(json.dumps({"note": note, "id": at}) + "\n" for note, at in rows).encode(),
    "txt": lambda rows: "".join(f"{note}\n" for note, _ in rows).encode(),
}
sentences = st.lists(
    st.tuples(st.sampled_from(["write to {}", "{} or {}", "cc: <{}>;", "{}", "nobody"]), st.integers(0, 30)),
    min_size=1,
    max_size=20,
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    written=sentences, kind=st.sampled_from(sorted(FORMATS)), action=st.sampled_from(["tokenise", "encrypt", "mask"])
)
def test_no_value_that_became_a_pseudonym_stands_anywhere_in_the_copy(
    written: list[tuple[str, int]], kind: str, action: str
) -> None:
    rows = [(text.replace("{}", f"canary{at}@example.org"), at) for at, (text, _) in enumerate(written)]
    store, path, content = MemoryStore(), f"t.{kind}", FORMATS[kind](rows)
    store.put(URI.key(path), [content], size_bytes=len(content))
    manifest = read_manifest(store, URI)
    rule = {"name": "mails", "entities": ["EMAIL_ADDRESS"], "action": action, "min_confidence": 0.0}
    of = load_policy({"version": 1, "name": "p", "residency": {"allowed": ["US"]}, "rules": [rule]})
    treatment = actions_for(of, scan(store, URI, manifest), destination=TARGET, place=Place("google", "US"))
    assert not isinstance(treatment, Refused)
    apply_treatment(store, URI, manifest, treatment, PseudonymKey("p", bytes(32)), store, STAGED)
    assert b"canary" not in b"".join(store.get(STAGED.key(path)))


@settings(max_examples=100, deadline=None)
@given(
    found=st.lists(findings, max_size=3),
    manifest=st.text("0123456789abcdef", min_size=64, max_size=64),
    policy=st.text("0123456789abcdef", min_size=64, max_size=64),
    key=st.text("abcz/", min_size=1, max_size=8),
)
def test_a_verdict_is_good_for_no_other_manifest_policy_or_destination(
    found: list[Finding], manifest: str, policy: str, key: str
) -> None:
    allow = {"finding": "allow", "unreadable": "allow"}
    cleared = verdict_of({"version": 1, "name": "p", "residency": {"allowed": ["US"]}, "defaults": allow}, found, "US")
    assert isinstance(cleared, Cleared)
    elsewhere = DatasetURI("google", "lake", f"x{key}")
    uses: list[tuple[Cleared, str, DatasetURI]] = [
        (cleared, manifest, TARGET),
        (cleared, DIGEST, elsewhere),
        (replace(cleared, policy_digest=policy), DIGEST, TARGET),
        (replace(cleared, manifest_digest=manifest), manifest, TARGET),
        (replace(cleared, destination=elsewhere), DIGEST, elsewhere),
    ]
    for verdict, digest, destination in uses:
        with pytest.raises(PolicyViolation):
            KEY.require(verdict, manifest_digest=digest, destination=destination)

"""The verbs about data: manifest, scan, plan, move, audit."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from deployments.cli.app import AsJson, app, error_json, print_json
from tasks.core.errors import IntegrityError, Invalid, PolicyViolation

if TYPE_CHECKING:
    from tasks.core.dataset import DatasetURI
    from tasks.core.manifest import Manifest
    from tasks.core.transfer import Receipt

_LISTED = 1000
"""How many objects a table on the terminal shows."""

Dataset = Annotated[str, typer.Argument(metavar="URI", help="The dataset: cloud://bucket/prefix.")]
Source = Annotated[str, typer.Argument(metavar="SRC", help="Where the dataset is: cloud://bucket/prefix.")]
Destination = Annotated[str, typer.Argument(metavar="DST", help="Where it should be: cloud://bucket/prefix.")]
Destinations = Annotated[
    list[str], typer.Argument(metavar="DST...", help="Where it should be: cloud://bucket/prefix; one or several.")
]
PolicyName = Annotated[
    str,
    typer.Option(
        "--policy", help="A policy under policies_dir, or a YAML file's path; gate.policy of lintas.yaml unless given."
    ),
]
Compress = Annotated[str, typer.Option("--compress", help="Compress on the way what is not compressed yet: zstd.")]
ToFormat = Annotated[str, typer.Option("--format", help="What CSV and JSON lines become on the way: parquet.")]
Limit = Annotated[
    float, typer.Option("--limit-mb-per-s", min=0, help="The most to read in a second; 0: what lintas.yaml says.")
]
Delete = Annotated[bool, typer.Option("--delete", help="Remove objects that only the destination has.")]
DeleteLimit = Annotated[
    str, typer.Option("--delete-limit", help="The most that may be removed: a number, or a share such as 10%.")
]
Include = Annotated[list[str] | None, typer.Option("--include", help="Only objects that match, such as *.parquet.")]
Exclude = Annotated[list[str] | None, typer.Option("--exclude", help="No objects that match, such as tmp/**.")]
CompareBy = Annotated[
    str,
    typer.Option(
        "--compare",
        help="digest, or listing: unknown objects of the same size that were written no earlier count as the same.",
    ),
]


@app.command()
def manifest(
    uri: Dataset,
    verify: Annotated[bool, typer.Option("--verify", help="Trust nothing: read every byte again.")] = False,
    include: Include = None,
    exclude: Exclude = None,
    as_json: AsJson = False,
) -> None:
    """What a dataset holds: objects, bytes and its digest. Two clouds hold the same dataset when digests are equal."""
    from tasks.core.listing import read_manifest
    from tasks.core.selection import Selection
    from tasks.registry import installation

    here = installation()
    dataset = here.parse(uri)
    only = Selection.of(include or (), exclude or ())
    found = read_manifest(here.store_of(dataset), dataset, here.records.journal, reread=verify, selection=only or None)
    if verify:
        _require_published(dataset, found)
    if as_json:
        print_json({"uri": str(dataset), "digest": found.digest, "objects": len(found), "size_bytes": found.size_bytes})
        return
    from deployments.cli import show

    show.table(
        f"{dataset}  {found.digest}",
        ["path", "bytes", "digest"],
        [(entry.path, entry.size_bytes, entry.digest[:16]) for entry in islice(found, _LISTED)],
    )
    if len(found) > _LISTED:
        show.out.print(f"... and {len(found) - _LISTED:,} more")
    show.out.print(f"{len(found):,} objects, {show.size(found.size_bytes)}, digest {found.digest}")


@app.command()
def scan(
    uri: Dataset,
    policy: PolicyName = "",
    to: Annotated[
        str | None, typer.Option("--to", help="Judge it for this destination; its own cloud unless given.")
    ] = None,
    spans: Annotated[
        bool, typer.Option("--spans", help="JSON lines of places: path, row, column, start, end.")
    ] = False,
    language: Annotated[list[str] | None, typer.Option("--language", help="Languages of context words.")] = None,
    mode: Annotated[
        str, typer.Option("--mode", help="full, sample or schema; what the policy asks for unless given.")
    ] = "",
    parts: Annotated[int, typer.Option("--parts", min=1, help="How many parts a sample has.")] = 300,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of the draw of a sample.")] = 0,
    include: Include = None,
    exclude: Exclude = None,
    as_json: AsJson = False,
) -> None:
    """Look for personal data and secrets; shows places and counts, never values. Exit 3 when the policy refuses."""
    from tasks.core.detectors.coverage import Mode, Thoroughness
    from tasks.core.detectors.scan import scan as scan_objects
    from tasks.core.detectors.words import LANGUAGES
    from tasks.core.listing import read_manifest
    from tasks.core.planning import require_objects
    from tasks.core.privacy import Refused, actions_for
    from tasks.core.selection import Selection
    from tasks.gate_report import publish_gate_report
    from tasks.registry import installation

    here = installation()
    dataset = here.parse(uri)
    policy = here.policy_name(policy)
    store, rules = here.store_of(dataset), here.policy(policy)
    detection = replace(rules.detection, languages=tuple(language or LANGUAGES))
    only = Selection.of(include or (), exclude or ())
    listed = read_manifest(store, dataset, here.records.journal, selection=only or None)
    require_objects(dataset, listed)
    if spans:
        from tasks.core.detectors.spans import spans as find_spans

        for span in find_spans(store, dataset, listed, detection=detection):
            print_json(span)
        return
    target = here.parse(to) if to else dataset
    if mode and mode not in list(Mode):
        raise Invalid(f"'{mode}' is not a mode", f"use one of {', '.join(Mode)}")
    wanted = Thoroughness(Mode(mode), parts, seed) if mode else rules.thoroughness
    report = scan_objects(store, dataset, listed, detection=detection, thoroughness=wanted)
    answer = actions_for(rules, report, destination=target, place=here.place(target.cloud, source=dataset))
    refused = isinstance(answer, Refused)
    page = publish_gate_report(
        report,
        rules,
        target,
        decision="refused" if refused else "cleared",
        reasons=answer.reasons if isinstance(answer, Refused) else (),
    )
    if as_json:
        verdict: dict[str, Any] = {"decision": "refused" if refused else "cleared", "policy": rules.digest}
        if isinstance(answer, Refused):
            verdict["reasons"] = list(answer.reasons)
        else:
            verdict["treatment"] = [
                {"path": item.path, "column": item.column, "action": item.action.value} for item in answer.columns
            ]
            verdict["quarantine"] = [
                {"path": found.path, "column": found.column, "entity": found.entity, "rule": decision.rule}
                for decision in answer.quarantined
                for found in [decision.finding]
            ]
        print_json(report.as_dict() | {"verdict": verdict, "report": str(page)})
    else:
        from deployments.cli import show

        looked_at = f"{dataset}: {report.rows:,} rows, {report.objects} objects"
        if report.findings:
            show.table(
                looked_at,
                ["entity", "path", "column", "count", "share", "confidence", "why"],
                [(f.entity, f.path, f.column, f.count, f.share, f.confidence, f.why) for f in report.findings],
            )
        else:
            show.out.print(f"{looked_at}; nothing was found")
        show.out.print(f"  {report.coverage.in_words}")
        show.out.print(f"  as a page: {page}")
        if not isinstance(answer, Refused):
            for item in answer.columns:
                show.out.print(f"  {item.column}: {item.action.value} before it goes to {target} ({item.rule})")
            for decision in answer.quarantined:
                show.out.print(
                    f"  objects with it stay: {decision.finding.entity} in {decision.finding.place} ({decision.rule})"
                )
    if isinstance(answer, Refused):
        raise PolicyViolation(
            f"the policy '{policy}' refuses {dataset} for {target}",
            "change the data, the destination or the policy",
            reasons=answer.reasons,
        )


@app.command()
def plan(
    source: Source,
    destination: Destination,
    policy: PolicyName = "",
    delete: Delete = False,
    delete_limit: DeleteLimit = "10%",
    include: Include = None,
    exclude: Exclude = None,
    compare: CompareBy = "digest",
    compress: Compress = "",
    format_name: ToFormat = "",
    as_json: AsJson = False,
) -> None:
    """What a move would do: verdict, objects, bytes, requests, route, time and cost. Moves nothing."""
    from flows.moving import options_of, prepare
    from tasks.core.conversion import Conversion

    options = options_of(delete, delete_limit, include or [], exclude or [], _compare(compare))
    conversion = Conversion.of(compress, format_name)
    prepared = prepare(source, destination, policy, options, conversion)
    planned, expected = prepared.plan, prepared.estimate
    facts = {
        "source": source,
        "destination": str(planned.destination),
        "source_digest": prepared.outgoing.source_digest,
        "digest": planned.manifest.digest,
        "route": planned.route,
        "conversion": conversion.label,
        "add": len(planned.add),
        "replace": len(planned.replace),
        "remove": len(planned.remove),
        "keep": len(planned.keep),
        "held": len(prepared.held),
        "assumed": planned.assumed,
        "compare": compare,
        "only": options.selection.as_dict(),
        "bytes_to_send": planned.bytes_to_send,
        "shards": sum(1 for _ in planned.shards()),
        "requests": asdict(expected.requests),
        "cost_usd": planned.cost_usd,
        "requests_usd": expected.requests_usd,
        "seconds": expected.seconds,
        "verdict": "cleared",
    }
    if as_json:
        print_json(facts)
        return
    from deployments.cli import show
    from tasks.core.progress import duration

    for name in ("cost_usd", "requests_usd"):
        facts[name] = "unknown: the catalogue has no price" if facts[name] is None else f"{facts[name]:.4f}"
    seconds = expected.seconds
    facts["seconds"] = "unknown before a first move between the two" if seconds is None else duration(seconds)
    facts["requests"] = ", ".join(f"{kind} {count:,}" for kind, count in asdict(expected.requests).items())
    show.table(f"Plan {source} -> {destination}", ["what", "value"], list(facts.items()))


@app.command()
def move(
    source: Source,
    destinations: Destinations,
    policy: PolicyName = "",
    delete: Delete = False,
    delete_limit: DeleteLimit = "10%",
    include: Include = None,
    exclude: Exclude = None,
    compare: CompareBy = "digest",
    receipt: Annotated[
        Path | None, typer.Option("--receipt", help="Write every object with its digest here, as JSON lines.")
    ] = None,
    compress: Compress = "",
    format_name: ToFormat = "",
    limit_mb_per_s: Limit = 0,
    as_json: AsJson = False,
) -> None:
    """Move a dataset after the gate has cleared it; run again, it moves only what changed.

    Several destinations get it from one read; the exit code is that of the first one that failed.
    """
    from flows.moving import Moved, move_to_all, options_of
    from tasks.core.conversion import Conversion

    options = options_of(delete, delete_limit, include or [], exclude or [], _compare(compare))
    conversion = Conversion.of(compress, format_name)
    outcomes = move_to_all(source, destinations, policy, options, conversion, limit_mb_per_s)
    moved = [outcome for outcome in outcomes if isinstance(outcome, Moved)]
    failed = [outcome for outcome in outcomes if not isinstance(outcome, Moved)]
    if receipt is not None and moved:
        _write_receipts(receipt, [each.receipt for each in moved])
    if failed and len(outcomes) == 1:
        raise failed[0]
    if as_json:
        found = [
            outcome.as_json() if isinstance(outcome, Moved) else error_json(outcome) | {"destination": destination}
            for destination, outcome in zip(destinations, outcomes, strict=True)
        ]
        print_json(found[0] if len(found) == 1 else {"moves": found})
    else:
        from deployments.cli import show

        for each in moved:
            show.table(f"Moved {source} -> {each.receipt.destination}", ["what", "value"], list(each.as_json().items()))
    if failed:
        for destination, outcome in zip(destinations, outcomes, strict=True):
            if not isinstance(outcome, Moved):
                print(f"lintas: {destination}: {outcome}", file=sys.stderr)
        raise typer.Exit(failed[0].exit_code)


def _compare(text: str) -> Literal["digest", "listing"]:
    if text == "digest" or text == "listing":
        return text
    raise Invalid(f"'{text}' is no way to compare", "use --compare digest or --compare listing")


def _write_receipts(path: Path, receipts: list[Receipt]) -> None:
    from tasks.storage import receipt_lines

    try:
        with path.open("w", encoding="utf-8") as file:
            file.writelines(json.dumps(line) + "\n" for receipt in receipts for line in receipt_lines(receipt))
    except OSError as error:
        raise Invalid(
            f"the receipt cannot be written to {path} ({error.strerror})", "the move is done: name another file"
        ) from error


def _require_published(dataset: DatasetURI, found: Manifest) -> None:
    """Insist that the bytes are what the published manifest says, where there is one."""
    from tasks.core.listing import published_manifest
    from tasks.core.planning import differences
    from tasks.registry import installation

    published = published_manifest(installation().store_of(dataset), dataset)
    if published is None or published == found:
        return
    raise IntegrityError(
        f"{dataset} is not what its published manifest says: {differences(published, found)}",
        "move the dataset there again",
    )


@app.command()
def audit(
    since: Annotated[str | None, typer.Option(help="Only records from this time on (ISO 8601).")] = None,
    kind: Annotated[str | None, typer.Option(help="Only records of this kind, such as verdict or receipt.")] = None,
    as_json: AsJson = False,
) -> None:
    """The decisions that were taken, after verifying that no record was altered, removed or inserted."""
    from datetime import UTC, datetime

    from tasks.auditing import verify_log
    from tasks.core.errors import Invalid
    from tasks.registry import installation

    head = verify_log()
    log = installation().records.audit
    try:
        moment = datetime.fromisoformat(since) if since else None
    except ValueError:
        raise Invalid(f"'{since}' is not a time", "write it as 2026-11-23 or 2026-11-23T10:00:00Z") from None
    if moment is not None and moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    found = list(log.records(kind=kind, since=moment))
    if as_json:
        print_json(
            {
                "sound": True,
                "head": {"sequence": head.sequence, "digest": head.digest},
                "records": [
                    {
                        "sequence": item.sequence,
                        "time": item.time.isoformat(),
                        "kind": item.kind,
                        "subject": item.subject,
                        "facts": dict(item.facts),
                        "digest": item.digest,
                    }
                    for item in found
                ],
            }
        )
        return
    from deployments.cli import show

    show.table(
        f"Audit log: sound, {head.sequence} records, head {head.digest[:16]}",
        ["#", "time", "kind", "subject", "facts"],
        [
            (
                r.sequence,
                r.time.strftime("%Y-%m-%d %H:%M:%S"),
                r.kind,
                r.subject,
                ", ".join(f"{k} {v}" for k, v in r.facts.items()),
            )
            for r in found
        ],
    )

"""The verbs about data: manifest, scan, plan, move, audit."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from deployments.cli.app import AsJson, app, print_json
from tasks.core.errors import IntegrityError, PolicyViolation

Dataset = Annotated[str, typer.Argument(metavar="URI", help="The dataset: cloud://bucket/prefix.")]
Source = Annotated[str, typer.Argument(metavar="SRC", help="Where the dataset is: cloud://bucket/prefix.")]
Destination = Annotated[str, typer.Argument(metavar="DST", help="Where it should be: cloud://bucket/prefix.")]
PolicyName = Annotated[str, typer.Option("--policy", help="A policy under policies_dir, or the path of a YAML file.")]
Compress = Annotated[str, typer.Option("--compress", help="Compress on the way what is not compressed yet: zstd.")]
ToFormat = Annotated[str, typer.Option("--format", help="What CSV and JSON lines become on the way: parquet.")]
Delete = Annotated[bool, typer.Option("--delete", help="Remove objects that only the destination has.")]


@app.command()
def manifest(
    uri: Dataset,
    verify: Annotated[bool, typer.Option("--verify", help="Trust nothing: read every byte again.")] = False,
    as_json: AsJson = False,
) -> None:
    """What a dataset holds: objects, bytes and its digest. Two clouds hold the same dataset when digests are equal."""
    from tasks.core.listing import published_manifest, read_manifest
    from tasks.registry import installation

    here = installation()
    dataset = here.parse(uri)
    found = read_manifest(here.store_of(dataset), dataset, here.records.journal, reread=verify)
    if verify:
        published = published_manifest(here.store_of(dataset), dataset)
        if published is not None and published.digest != found.digest:
            raise IntegrityError(f"{dataset} is not what its published manifest says", "move the dataset there again")
    if as_json:
        print_json({"uri": str(dataset), "digest": found.digest, "objects": len(found), "size_bytes": found.size_bytes})
        return
    from deployments.cli import show

    show.table(
        f"{dataset}  {found.digest}",
        ["path", "bytes", "digest"],
        [(entry.path, entry.size_bytes, entry.digest[:16]) for entry in found],
    )
    show.out.print(f"{len(found):,} objects, {show.size(found.size_bytes)}, digest {found.digest}")


@app.command()
def scan(
    uri: Dataset,
    policy: PolicyName = "flights",
    to: Annotated[
        str | None, typer.Option("--to", help="Judge it for this destination; its own cloud unless given.")
    ] = None,
    spans: Annotated[
        bool, typer.Option("--spans", help="JSON lines of places: path, row, column, start, end.")
    ] = False,
    language: Annotated[list[str] | None, typer.Option("--language", help="Languages of context words.")] = None,
    as_json: AsJson = False,
) -> None:
    """Look for personal data and secrets; shows places and counts, never values. Exit 3 when the policy refuses."""
    from tasks.core.detectors.scan import scan as scan_objects
    from tasks.core.listing import read_manifest
    from tasks.core.privacy import Refused, actions_for
    from tasks.registry import installation

    here = installation()
    dataset = here.parse(uri)
    store, languages = here.store_of(dataset), tuple(language or ("en", "id"))
    listed = read_manifest(store, dataset, here.records.journal)
    if spans:
        from tasks.core.detectors.spans import spans as find_spans

        for span in find_spans(store, dataset, listed, languages=languages):
            print_json(span)
        return
    rules = here.policy(policy)
    target = here.parse(to) if to else dataset
    cloud = here.cloud(target.cloud)
    report = scan_objects(store, dataset, listed, languages=languages)
    answer = actions_for(rules, report, destination=target, jurisdiction=cloud.jurisdiction, cloud=cloud.name)
    refused = isinstance(answer, Refused)
    if as_json:
        verdict: dict[str, Any] = {"decision": "refused" if refused else "cleared", "policy": rules.digest}
        if isinstance(answer, Refused):
            verdict["reasons"] = list(answer.reasons)
        else:
            verdict["treatment"] = [
                {"path": item.path, "column": item.column, "action": item.action.value} for item in answer.columns
            ]
        print_json(report.as_dict() | {"verdict": verdict})
    else:
        from deployments.cli import show

        show.table(
            f"{dataset}: {report.rows:,} rows, {report.objects} objects",
            ["entity", "path", "column", "count", "share", "confidence", "why"],
            [(f.entity, f.path, f.column, f.count, f.share, f.confidence, f.why) for f in report.findings],
        )
        if not isinstance(answer, Refused):
            for item in answer.columns:
                show.out.print(f"  {item.column}: {item.action.value} before it goes to {target} ({item.rule})")
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
    policy: PolicyName = "flights",
    delete: Delete = False,
    compress: Compress = "",
    format_name: ToFormat = "",
    as_json: AsJson = False,
) -> None:
    """What a move would do: the verdict, objects and bytes to send, cost. Moves nothing."""
    from flows.move import prepare
    from tasks.core.conversion import Conversion

    conversion = Conversion.of(compress, format_name)
    prepared = prepare(source, destination, policy, delete, conversion)
    planned = prepared.plan
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
        "bytes_to_send": planned.bytes_to_send,
        "cost_usd": planned.cost_usd,
        "verdict": "cleared",
    }
    if as_json:
        print_json(facts)
        return
    from deployments.cli import show

    show.table(f"Plan {source} -> {destination}", ["what", "value"], list(facts.items()))


@app.command()
def move(
    source: Source,
    destination: Destination,
    policy: PolicyName = "flights",
    delete: Delete = False,
    compress: Compress = "",
    format_name: ToFormat = "",
    as_json: AsJson = False,
) -> None:
    """Move a dataset after the gate has cleared it; run again, it moves only what changed."""
    from flows.move import move as flow
    from tasks.core.conversion import Conversion

    conversion = Conversion.of(compress, format_name)
    moved = flow.fn(source, destination, policy, delete, conversion.compress, conversion.format)
    if as_json:
        print_json(moved.as_json())
        return
    from deployments.cli import show

    show.table(f"Moved {source} -> {destination}", ["what", "value"], list(moved.as_json().items()))


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

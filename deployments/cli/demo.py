"""`lintas demo`: shows what `deployments.demo` does, and ends with one table."""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from collections import Counter
from collections.abc import Mapping
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from deployments.cli import show
from deployments.cli.app import print_json
from deployments.cli.watching import Services, Steps
from deployments.demo import (
    DATASET,
    LifecycleSeen,
    ask_endpoints,
    deploy_once,
    example_row,
    land_dataset,
    prepare_dataset,
    read_report,
    verify_both_sides,
    watch_lifecycle,
)
from deployments.local.stack import running_stack
from tasks.core.errors import Terminal


def run(state: Path, *, fresh: bool, hold: bool | None, as_json: bool) -> None:
    """Run the whole demo; raises what failed, so that the command's exit code is 0 only when all of it happened."""
    began = time.monotonic()
    seconds: dict[str, float] = {}
    if fresh and state.exists():
        shutil.rmtree(state)
    cold = not (state / "data").exists()
    preparing = prepare_dataset(state / "dataset")
    with ExitStack() as running:
        with Services("Starting the local twin") as services:
            stack = running.enter_context(running_stack(state, on_progress=services.update))
        config = stack.twin.config
        os.environ["LINTAS_CONFIG"] = str(config)
        from tasks.registry import installation

        here = installation()
        api = here.settings.services.prefect_api_url
        seconds["services"] = time.monotonic() - began
        show.progress.print("Deploying prefect.yaml")
        deploy_once(api, state / "deployed")
        if preparing is not None and preparing.wait() != 0:
            raise Terminal("the dataset could not be prepared", "see the messages above")
        seconds["deployed"] = time.monotonic() - began

        since = datetime.now(UTC)
        objects, size_bytes = land_dataset(state / "dataset", here.store_of(DATASET))
        show.progress.print(f"{objects} objects, {show.size(size_bytes)} landed in {DATASET}")
        seen = LifecycleSeen(None, "PENDING")
        with Steps("The lifecycle") as steps:
            for seen in watch_lifecycle(api, since, timeout_s=600):
                steps.update(seen)
        if seen.state != "COMPLETED" or seen.run_id is None:
            raise Terminal(
                f"the lifecycle {seen.state.lower()}: {seen.message}",
                f"see {state}/logs/worker.log, or run 'lintas up'",
            )
        seconds["lifecycle"] = time.monotonic() - began
        report, page = read_report(here.settings.state_dir, seen.run_id)
        verify_both_sides(report, here)
        answers = ask_endpoints(report, here, example_row(state / "dataset"))
        seconds["total"] = time.monotonic() - began
        links = {
            "Prefect": f"{here.settings.services.prefect_ui_url}/runs/flow-run/{seen.run_id}",
            "MLflow": here.settings.services.mlflow_url,
            "report": page.resolve().as_uri(),
        }
        if as_json:
            print_json({**report, "answers": answers, "links": links, "seconds": seconds, "cold": cold})
        else:
            tell(report, answers, links)
            tell_seconds(seconds, cold=cold)
        (Path("build")).mkdir(exist_ok=True)
        Path("build/demo.json").write_text(json.dumps({"seconds": seconds, "cold": cold, "answers": answers}))
        if hold or (hold is None and sys.stdin.isatty()):
            show.progress.print("\nThe pages stay open until you press Enter.")
            sys.stdin.readline()


def tell(report: Mapping[str, Any], answers: Mapping[str, str], links: Mapping[str, str]) -> None:
    """The one table: what moved, the verdict, the offer, the model, the endpoints and their answers; then the links."""
    rows: list[tuple[str, str]] = []
    for leg in report["moved"]:
        treated = ", a treated copy" if leg["treated"] else ""
        sent = f"{leg['objects_sent']} of {leg['objects']} objects sent"
        rows.append((f"moved{treated}", f"{leg['source']} -> {leg['destination']}"))
        rows.append(
            (
                "",
                f"{sent}, {show.size(leg['bytes_sent'])} ({leg['route']})",
            )
        )
        rows.append(("", f"digest {leg['digest'][:32]} on both sides, every byte read back"))
    counts = Counter[str]()
    for finding in report["findings"]:
        counts[finding["entity"]] += finding["count"]
    rows.append(("verdict", f"{report['moved'][0]['verdict']} under policy {report['moved'][0]['policy']}"))
    rows.append(("found at the source", ", ".join(f"{name} {count:,}" for name, count in counts.most_common())))
    chosen = report["placement"]["chosen"]
    rows.append(
        (
            "placed on",
            f"{chosen['provider']} {chosen['sku']} in {chosen['region']}: {chosen['total_usd']:.4f} USD in all, "
            f"the least of {1 + len(report['placement']['rejected'])} offers",
        )
    )
    rows.append(("why not others", "; ".join(_reasons(report["placement"]["rejected"]))))
    trained = report["trained"]
    rows.append(("metrics, held out", ", ".join(f"{name} {value:.4f}" for name, value in trained["metrics"].items())))
    rows.append(("model", f"{trained['model']} version {trained['version']}, alias champion"))
    rows.extend(
        (
            f"endpoint on {end['provider']}",
            f"{end['url']}  {end['weight']}%, {'healthy' if end['healthy'] else 'NOT healthy'}, "
            f"answers {answers[end['provider']]}",
        )
        for end in report["release"]["endpoints"]
    )
    rows.extend(links.items())
    show.table("The main job, whole", ["what", "happened"], rows)


def tell_seconds(seconds: Mapping[str, float], *, cold: bool) -> None:
    """Where the time went."""
    parts = {
        "services": seconds["services"],
        "deploying": seconds["deployed"] - seconds["services"],
        "event, run and model": seconds["lifecycle"] - seconds["deployed"],
        "asking the endpoints": seconds["total"] - seconds["lifecycle"],
    }
    spent = ", ".join(f"{name} {value:.1f}" for name, value in parts.items())
    show.out.print(f"{'cold' if cold else 'warm'}: {seconds['total']:.1f} s ({spent})")


def _reasons(rejected: list[Mapping[str, Any]]) -> list[str]:
    kinds = Counter(f"{offer['provider']}: {offer['reason']}" for offer in rejected)
    return [f"{reason} ({count})" if count > 1 else reason for reason, count in kinds.most_common(4)]

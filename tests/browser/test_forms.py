"""The form of `lifecycle`, filled in and submitted by a person's means: a real browser."""

from __future__ import annotations

import json
import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from playwright.sync_api import Locator, Page, expect, sync_playwright

from tests import command
from tests.whole_stack import WholeStack

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine: install the package 'chromium'"),
]


@pytest.fixture
def page() -> Iterator[Page]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        try:
            yield browser.new_page(viewport={"width": 1200, "height": 1500})
        finally:
            browser.close()


def deployment_id(stack: WholeStack, name: str) -> str:
    body = {"deployments": {"name": {"any_": [name]}}}
    return stack.ask_prefect("POST", "/deployments/filter", body)[0]["id"]


def field(page: Page, name: str) -> Locator:
    """The text fields of a parameter. They come later than its label, so they are waited for one by one."""
    label = page.locator(".schema-form-property__label", has_text=re.compile(rf"^{name}( \(Optional\))?$"))
    return page.locator(".schema-form-property").filter(has=label).locator("textarea")


def test_the_lifecycle_form_explains_itself_and_refuses_what_is_no_uri(whole_stack: WholeStack, page: Page) -> None:
    identity = deployment_id(whole_stack, "lifecycle")
    page.goto(f"{whole_stack.prefect_ui_url}/deployments/deployment/{identity}/run", wait_until="domcontentloaded")
    page.get_by_text("Where the dataset is, as cloud://bucket/prefix").wait_for(timeout=60_000)
    for words in ("what to run, on which kind of machine", "Clouds that serve the model", "Remove objects"):
        expect(page.locator("body")).to_contain_text(words, timeout=30_000)
    for name, value in (
        ("source", "aws://raw/flights"),
        ("destination", "google://lake/flights"),
        ("policy", "flights"),
    ):
        expect(field(page, name)).to_have_value(value, timeout=30_000)
    for at, cloud in enumerate(("onprem", "edge")):
        expect(field(page, "serve_on").nth(at)).to_have_value(cloud, timeout=30_000)

    field(page, "source").fill("no uri at all")
    page.get_by_role("button", name="Submit").click()
    page.get_by_text("does not match", exact=False).first.wait_for(timeout=30_000)


def ended_as(stack: WholeStack, deployment: str) -> str:
    """How the only run of a deployment ended."""
    body = {"deployments": {"id": {"any_": [deployment]}}}
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        (run,) = stack.ask_prefect("POST", "/flow_runs/filter", body)
        if run["state_type"] in ("COMPLETED", "FAILED", "CRASHED", "CANCELLED"):
            return run["state_type"]
        time.sleep(0.2)
    return "unended"


def lintas(stack: WholeStack, *arguments: str) -> dict[str, Any]:
    done = command.lintas(*arguments, "--json", env=stack.environment)
    done.check_returncode()
    return json.loads(done.stdout)


def test_a_person_releases_what_is_held_with_a_typed_reason(
    whole_stack: WholeStack, page: Page, tmp_path: Path
) -> None:
    rule = {"name": "mail waits", "entities": ["EMAIL_ADDRESS"], "action": "quarantine"}
    residency = {"allowed": [whole_stack.installation.cloud("edge").jurisdiction]}
    policy = tmp_path / "p.yaml"
    policy.write_text(yaml.safe_dump({"version": 1, "name": "p", "residency": residency, "rules": [rule]}))
    source = whole_stack.installation.parse("onprem://held/d")
    store = whole_stack.installation.store_of(source)
    store.create_bucket()
    for name, note in (("a.csv", b"jane@example.org"), ("b.csv", b"fine")):
        content = b"id,note\n1,%b\n" % note
        store.put(source.key(name), [content], size_bytes=len(content))
    way = (str(source), "edge://held/d", "--policy", str(policy))
    assert lintas(whole_stack, "move", *way)["objects_held"] == 1

    identity = deployment_id(whole_stack, "release-quarantined")
    page.goto(f"{whole_stack.prefect_ui_url}/deployments/deployment/{identity}/run", wait_until="domcontentloaded")
    page.get_by_text("The audit log keeps it, so name nobody in it").wait_for(timeout=60_000)
    answers = {"dataset": way[0], "destination": way[1], "reason": "the customer agreed", "by": "Ana"}
    for name, words in answers.items():
        field(page, name).fill(words)
    page.get_by_role("button", name="Submit").click()
    page.wait_for_url("**/deployments/deployment/*", timeout=30_000)
    assert ended_as(whole_stack, identity) == "COMPLETED"

    (entry,) = lintas(whole_stack, "quarantine", "list", "--all")["objects"]
    assert (entry["state"], entry["reason"], entry["by"]) == ("released", "the customer agreed", "Ana")
    assert lintas(whole_stack, "move", *way)["objects_held"] == 0

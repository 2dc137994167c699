"""The form of `lifecycle`, filled in and submitted by a person's means: a real browser."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import httpx
import pytest
from playwright.sync_api import Page, sync_playwright

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
    return httpx.post(f"{stack.prefect_api_url}/deployments/filter", json=body).json()[0]["id"]


def test_the_lifecycle_form_explains_itself_and_refuses_what_is_no_uri(whole_stack: WholeStack, page: Page) -> None:
    identity = deployment_id(whole_stack, "lifecycle")
    page.goto(f"{whole_stack.prefect_ui_url}/deployments/deployment/{identity}/run", wait_until="domcontentloaded")
    page.get_by_text("Where the dataset is, as cloud://bucket/prefix").wait_for(timeout=60_000)
    text = page.inner_text("body")
    for words in ("what to run, on which kind of machine", "Clouds that serve the model", "Remove objects"):
        assert words in text
    values = [field.input_value() for field in page.locator("textarea").all()]
    assert {"aws://raw/flights", "google://lake/flights", "flights", "onprem", "edge"} <= set(values)

    source = page.locator("textarea").nth(values.index("aws://raw/flights"))
    source.fill("no uri at all")
    page.get_by_role("button", name="Submit").click()
    page.get_by_text("does not match", exact=False).first.wait_for(timeout=30_000)

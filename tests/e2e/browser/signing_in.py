"""The dashboard in Chromium where the coordinator asks for keys: signed in by a form, and out again."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from accessible import findings
from browsed import coordinator
from playwright.async_api import Browser, BrowserContext, expect  # pyright: ignore[reportMissingImports] - an environment of its own has it

from tutelage_client.coordinator import CoordinatorClient


class Guarded(NamedTuple):
    """A coordinator without workers. key: opens everything there; folder: where its runs may have models"""

    url: str
    key: str
    folder: Path


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    folder = tmp_path_factory.mktemp("guarded")
    key = secrets.token_hex(32)
    (folder / "admin-key").write_text(key)
    flags = ["--require-keys", "--admin-key-file", str(folder / "admin-key"), "--shared-paths", str(folder)]
    with coordinator(folder / "data", *flags) as url:
        yield Guarded(url, key, folder)


@pytest.fixture
async def run_page(guarded: Guarded) -> str:
    """The page of a run that waits, and that goes on by itself."""
    spec = {
        "name": "waits",
        "student": {"model": str(guarded.folder / "m")},
        "data": {},
        "rollout": {"source": "pushed"},
    }
    async with CoordinatorClient(guarded.url, guarded.key) as client:
        run = await client.submit(spec | {"objective": {"kind": "constant_penalty"}})
    return f"{guarded.url}/runs/{run.id}"


async def test_a_page_is_read_once_the_right_key_was_given_and_until_one_signs_out(
    context: BrowserContext, guarded: Guarded, run_page: str
) -> None:
    page = await context.new_page()
    await page.goto(run_page)
    await expect(page.locator("h1")).to_have_text("Sign in")
    assert await findings(page) == []

    await page.get_by_label("Key").fill(secrets.token_hex(32))
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("alert")).to_be_visible()
    assert await context.cookies() == []
    assert await findings(page) == []

    await page.get_by_label("Key").fill(guarded.key)
    await page.keyboard.press("Enter")
    await expect(page).to_have_url(run_page)
    await expect(page.locator("#connection")).to_have_text("Live")
    assert await findings(page) == []
    [cookie] = await context.cookies()
    assert (cookie["httpOnly"], cookie["sameSite"], cookie["expires"]) == (True, "Strict", -1)
    assert await page.evaluate("document.cookie") == "", "no script reads it"

    await page.get_by_role("link", name="Key", exact=True).click()
    await page.get_by_role("button", name="Sign out").click()
    await page.goto(run_page)
    await expect(page.locator("h1")).to_have_text("Sign in")
    assert await context.cookies() == []


async def test_without_a_script_one_signs_in_as_well(guarded: Guarded, run_page: str, browser: Browser) -> None:
    context = await browser.new_context(java_script_enabled=False)
    page = await context.new_page()
    await page.goto(run_page)
    await page.get_by_label("Key").fill(guarded.key)
    await page.get_by_role("button", name="Sign in").click()
    await expect(page).to_have_url(run_page)
    await expect(page.locator("#events li").first).to_be_visible()

"""A live embedded stack with runs in every state, and a browser that looks at it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterator

import browsed
import pytest
import pytest_asyncio
from browsed import Scene
from embedded_stack import Up
from playwright.async_api import Browser, BrowserContext, Page, async_playwright  # pyright: ignore[reportMissingImports] - an environment of its own has it

CHROMIUM = os.environ.get("CHROMIUM", "/usr/bin/chromium")
FLAGS = ("--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking", "--disable-sync")


@pytest.fixture(scope="session")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    folder = tmp_path_factory.mktemp("browser")
    up = Up(folder / "stack")
    try:
        yield asyncio.run(browsed.scene(up, folder))
    finally:
        up.stop()


@pytest_asyncio.fixture
async def browser() -> AsyncIterator[Browser]:
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        await browser.close()


@pytest_asyncio.fixture
async def context(browser: Browser) -> AsyncIterator[BrowserContext]:
    async with await browser.new_context(viewport={"width": 1280, "height": 900}) as context:
        yield context


@pytest_asyncio.fixture
async def page(context: BrowserContext, scene: Scene) -> AsyncIterator[Page]:
    """A page that has only heard of the coordinator, and whose scripts and policy had nothing to complain of."""
    page = await context.new_page()
    elsewhere: list[str] = []
    complaints: list[str] = []
    page.on("request", lambda request: elsewhere.append(request.url) if _is_elsewhere(request.url) else None)
    page.on("console", lambda said: complaints.append(said.text) if said.type == "error" else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    yield page
    assert elsewhere == []
    assert [each for each in complaints if "Failed to load resource" not in each] == []


def _is_elsewhere(url: str) -> bool:
    return not url.startswith(("http://127.0.0.1:", "data:"))

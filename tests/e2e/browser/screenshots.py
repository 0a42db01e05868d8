"""Pictures of the dashboard on a live stack, for the README and the docs: `make screenshots` writes docs/images."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal, NamedTuple

import pytest
from browsed import Scene
from playwright.async_api import Browser, expect  # pyright: ignore[reportMissingImports] - an environment of its own has it

WIDTH = 1180


class Shot(NamedTuple):
    """page: its name in the scene; height: of what is shown, in pixels from the top; key: pressed on the tokens"""

    page: str
    height: int
    scheme: Literal["light", "dark"] = "light"
    key: str | None = None


SHOTS = {
    "run": Shot("succeeded", 900),
    "run-dark": Shot("succeeded", 900, "dark"),
    "compare": Shot("compare", 1040),
    "rollout": Shot("rollout", 790, key="w"),
    "rollout-dark": Shot("rollout", 790, "dark", key="w"),
    "held-out": Shot("held-out", 900, key="w"),
    "teachers": Shot("teachers", 400),
    "queue": Shot("queue", 520),
    "runs": Shot("runs", 620),
    "audit": Shot("audit", 620),
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where they go; elsewhere than in the repository unless somebody says so."""
    return Path(os.environ.get("TUTELAGE_SCREENSHOTS", tmp_path))


@pytest.mark.parametrize("name", SHOTS)
async def test_a_page_has_its_picture(browser: Browser, scene: Scene, folder: Path, name: str) -> None:
    shot = SHOTS[name]
    window = {"width": WIDTH, "height": shot.height}
    context = await browser.new_context(viewport=window, color_scheme=shot.scheme)
    page = await context.new_page()
    await page.goto(scene.url + scene.paths[shot.page])
    if await page.locator("[data-chart]").count():
        await expect(page.locator("canvas").first).to_be_visible()
    if shot.key is not None:
        await page.locator("[role=listbox]").first.press(shot.key)
        await expect(page.locator("#top-teacher tr").first).to_be_visible()
    picture = await page.screenshot(path=folder / f"{name}.png")
    assert picture.startswith(b"\x89PNG")

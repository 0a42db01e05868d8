"""What axe says of a page."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from playwright.async_api import Page  # pyright: ignore[reportMissingImports] - an environment of its own has it

AXE = Path(__file__).parents[1] / "e2e/browser/node_modules/axe-core/axe.min.js"


async def findings(page: Page) -> list[dict[str, Any]]:
    """What axe finds that is serious or worse."""
    await page.evaluate(AXE.read_text())
    result = await page.evaluate("() => axe.run({resultTypes: ['violations']})")
    grave = [each for each in result["violations"] if each["impact"] in ("serious", "critical")]
    return [{"rule": each["id"], "at": [node["html"][:200] for node in each["nodes"]][:3]} for each in grave]

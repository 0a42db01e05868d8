"""A page that nobody sees, and that is looked at again."""

from __future__ import annotations

from playwright.async_api import Page  # pyright: ignore[reportMissingImports] - an environment of its own has it


async def hide(page: Page, *, hidden: bool) -> None:
    await page.evaluate(
        """hidden => { Object.defineProperty(document, 'hidden', {value: hidden, configurable: true});
        document.dispatchEvent(new Event('visibilitychange')); }""",
        hidden,
    )

"""Opens the page of a rollout in headless Chromium, again and again, and presses a key on it.

Runs in the environment that has Playwright and imports nothing of this project. Prints `{"ms": [..], "lists_ms": [..],
"said": [..]}`: from the request of the page until what the key did was painted; until the lists of likely tokens stood
there too, which are asked of the server; and what the page said of the token in focus.

    python benchmarks/coordinator/opening.py URL COUNT
"""

from __future__ import annotations

import asyncio
import json
import os
import sys

from playwright.async_api import Browser, async_playwright  # pyright: ignore[reportMissingImports] - an environment of its own has it

CHROMIUM = os.environ.get("CHROMIUM", "/usr/bin/chromium")
FLAGS = ("--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking", "--disable-sync")
WINDOW = {"width": 1280, "height": 900}
# The inspector leaves its mark once it listens to keys. Of two frames the first has painted by the second.
PRESS = """
window.answered = new Promise((resolve) => {
  const painted = (then) => requestAnimationFrame(() => requestAnimationFrame(() => then(performance.now())));
  const listed = (then) => {
    if (document.querySelector("#top-student tr") && document.querySelector("#top-teacher tr")) painted(then);
    else requestAnimationFrame(() => listed(then));
  };
  new PerformanceObserver((seen) => {
    if (seen.getEntriesByName("inspector").length === 0) return;
    const tokens = document.querySelector("[role=listbox]");
    tokens.focus();
    tokens.dispatchEvent(new KeyboardEvent("keydown", { key: "w", bubbles: true }));
    const said = document.getElementById("said").textContent;
    painted((ms) => listed((lists_ms) => resolve({ ms, lists_ms, said })));
  }).observe({ type: "mark", buffered: true });
});
"""


async def main(url: str, count: int) -> None:
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        await opened(browser, url)  # starts its processes, and does not count
        answers = [await opened(browser, url) for _ in range(count)]
        await browser.close()
    print(json.dumps({name: [answer[name] for answer in answers] for name in ("ms", "lists_ms", "said")}))


async def opened(browser: Browser, url: str) -> dict[str, object]:
    """With nothing kept from before."""
    async with await browser.new_context(viewport=WINDOW) as context:
        page = await context.new_page()
        await page.add_init_script(PRESS)
        await page.goto(url)
        return await page.evaluate("window.answered")  # a promise: to ask again and again, the page's policy forbids


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2])))

"""A run's page in Chromium as its run goes on: what somebody holds stays as it is, and the server is asked seldom."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Page, expect  # pyright: ignore[reportMissingImports] - an environment of its own has it
from visibility import hide

from tutelage_client.coordinator import CoordinatorClient
from tutelage_client.wire import EventReport, Lease, StepReport
from tutelage_client.worker import WorkerClient

LONGEST_MS = 30_000  # a page rests for up to ten seconds between two looks, where its server is slow


@dataclass
class Run:
    """One whose steps the tests report. url: of its page; done: steps"""

    url: str
    worker: WorkerClient
    lease: Lease
    done: int = 0

    async def step(self) -> int:
        """Returns: how many are done now."""
        self.done += 1
        told: dict[str, Any] = {"metrics": {"reverse_kl": 2.0 / self.done, "grad_norm": 0.5}}
        told |= {"student_tokens": 10 * self.done, "teacher_tokens": 0}
        await self.worker.report_step(self.lease.run_id, StepReport(epoch=self.lease.epoch, step=self.done, **told))
        return self.done

    async def say(self, message: str) -> None:
        event = EventReport(epoch=self.lease.epoch, type="log", level="info", message=message)
        await self.worker.report_event(self.lease.run_id, event)


@pytest.fixture(scope="module")
def coordinator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    argv = [sys.executable, "-m", "tutelage.coordinator", "--port", "0", "--lease-s", "3600"]
    folder = str(tmp_path_factory.mktemp("updated"))
    process = subprocess.Popen([*argv, "--data-dir", folder], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    yield next(line.split()[-1] for line in process.stdout if line.startswith("listening on "))
    process.terminate()
    process.communicate(timeout=30)


@pytest_asyncio.fixture
async def run(coordinator: str) -> AsyncIterator[Run]:
    spec = {"name": "updated", "student": {"model": "/m"}, "data": {}, "rollout": {"source": "pushed"}}
    async with CoordinatorClient(coordinator) as client, WorkerClient(coordinator) as worker:
        made = await client.submit(spec | {"objective": {"kind": "constant_penalty"}})
        run = Run(f"{coordinator}/runs/{made.id}", worker, await worker.lease_run(made.id, "browser-tests"))
        for _ in range(8):
            await run.step()
        yield run


@pytest_asyncio.fixture
async def shown(browser: Browser, run: Run) -> AsyncIterator[Page]:
    """The run's page, with its stream open."""
    async with await browser.new_context(viewport={"width": 1280, "height": 900}) as context:
        page = await context.new_page()
        complaints: list[str] = []
        page.on("pageerror", lambda error: complaints.append(str(error)))
        await page.goto(run.url)
        await expect(page.locator("#connection")).to_have_text("Live")
        yield page
        assert complaints == []


def asked(page: Page, run: Run) -> list[str]:
    """Fills with each request for the page itself."""
    found: list[str] = []
    page.on("request", lambda request: found.append(request.url) if request.url == run.url else None)
    return found


async def until_step(page: Page, step: int) -> None:
    await expect(page.locator("#head progress")).to_have_attribute("value", str(step), timeout=LONGEST_MS)


async def test_focus_and_what_was_opened_and_marked_outlast_an_update(shown: Page, run: Run) -> None:
    await shown.locator("#chart-kl summary").click()
    await shown.locator("#table-kl").focus()
    await shown.evaluate("getSelection().selectAllChildren(document.querySelector('#head .id'))")
    held = await shown.evaluate_handle("[document.activeElement, document.querySelector('#events li')]")
    await until_step(shown, await run.step())
    await expect(shown.locator("#table-kl tbody th").last).to_have_text("9")
    assert await shown.locator("#chart-kl details").evaluate("each => each.open")
    assert await shown.evaluate("getSelection().toString()") == run.lease.run_id
    assert await held.evaluate("([focused, event]) => document.activeElement === focused && event.isConnected")
    link = shown.locator("#head a")
    await link.focus()
    await until_step(shown, await run.step())
    await expect(link).to_be_focused()


@pytest.mark.parametrize(("keys", "step"), [(("End",), "8"), (("Home", "+"), "1")])
async def test_a_step_that_is_read_on_a_chart_stays(shown: Page, run: Run, keys: tuple[str, ...], step: str) -> None:
    plot, at = shown.locator("#chart-kl .plot"), shown.locator("#chart-kl .at output")
    await plot.focus()
    for key in keys:
        await shown.keyboard.press(key)
    await expect(at).to_have_text(step)
    await until_step(shown, await run.step())
    await expect(at).to_have_text(step)
    await expect(plot).to_be_focused()


async def test_an_event_that_is_read_stays_where_it_is(shown: Page, run: Run) -> None:
    for number in range(30):
        await run.say(f"note {number}")
    await expect(shown.locator("#events li").first).to_contain_text("note 29", timeout=LONGEST_MS)
    events = shown.locator("#events")
    await events.evaluate("each => { each.scrollTop = 200; }")
    top = "each => [...each.children].find((li) => li.getBoundingClientRect().top >= each.getBoundingClientRect().top)"
    before = await events.evaluate(f"each => ({top})(each).textContent")
    await run.say("the newest")
    await expect(events.locator("li").first).to_contain_text("the newest", timeout=LONGEST_MS)
    assert await events.evaluate(f"each => ({top})(each).textContent") == before


async def test_a_burst_of_events_is_hardly_more_than_one_request(shown: Page, run: Run) -> None:
    found, begun_s = asked(shown, run), time.monotonic()
    for number in range(30):
        await run.say(f"note {number}")
    await expect(shown.locator("#events li").first).to_contain_text("note 29", timeout=LONGEST_MS)
    assert len(found) <= 2 + (time.monotonic() - begun_s), "one a second, and one for what came at the end"


async def test_nothing_is_asked_while_nobody_looks(shown: Page, run: Run) -> None:
    found = asked(shown, run)
    await hide(shown, hidden=True)
    for _ in range(3):
        await run.step()
    assert found == []
    await hide(shown, hidden=False)
    await until_step(shown, run.done)
    assert len(found) == 1

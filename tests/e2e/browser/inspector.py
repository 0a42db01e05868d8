"""The rollout inspector in Chromium: keys, lists, two steps side by side, text that hurts, ten thousand tokens."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from accessible import findings
from playwright.async_api import Browser, Page, expect  # pyright: ignore[reportMissingImports] - an environment of its own has it

from tutelage_client.coordinator import CoordinatorClient
from tutelage_client.wire import Inspection, Rollout, StepReport
from tutelage_client.worker import WorkerClient

EVIL = ["<script>window.pwned = 1</script>", "<img src=/x onerror='window.pwned = 2'>", "\u202egnp.exe", "x" * 3000]
TEXTS = [" walk", "\n", "ing", " teacher", *EVIL]
WORST, UNSCORED, MASKED = 5, 2, 1


def reported(name: str, tokens: int) -> tuple[Rollout, Inspection]:
    """Token `WORST` has the least gap of those that are learned from."""
    ids = np.arange(tokens, dtype=np.int32) % len(TEXTS)
    gap, valid, mask = np.full(tokens, -0.3), np.arange(tokens) != UNSCORED, np.arange(tokens) != MASKED
    gap[[MASKED, WORST]] = -9.0, -3.5
    gap[UNSCORED] = np.nan
    student, floats = np.full(tokens, -0.5), np.full(tokens, 0.25)
    tops = np.stack([ids, (ids + 1) % len(TEXTS)], axis=1)
    rollout = Rollout(
        id=name,
        source="student",
        policy_version=0,
        prompt_ids=np.array([1, 2], dtype=np.int32),
        completion_ids=ids,
        mask=mask,
        behaviour_logprob=student,
        prompt=EVIL[0],
    )
    known: dict[str, Any] = {"student_topk_ids": tops, "student_topk_logprob": np.tile([-0.5, -1.5], (tokens, 1))}
    known |= {"teacher_topk_ids": tops[:, ::-1], "teacher_topk_logprob": np.tile([-0.75, -2.0], (tokens, 1))}
    known |= {"teacher_logprob": student + gap, "student_entropy": floats, "teacher_entropy": floats * 2}
    contribution = np.where(valid & mask, 0.125, np.nan)
    known |= {"student_logprob": student, "contribution": contribution, "learned_tokens": 64, "teacher": "walker"}
    return rollout, Inspection(start=2, valid=valid, texts=dict(enumerate(TEXTS)), **known)


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Where the rollouts `short`, `later` and `long` of a run are shown, by a coordinator of their own."""
    argv = [sys.executable, "-m", "tutelage.coordinator", "--port", "0"]
    folder = str(tmp_path_factory.mktemp("inspected"))
    process = subprocess.Popen([*argv, "--data-dir", folder], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    url = next(line.split()[-1] for line in process.stdout if line.startswith("listening on "))
    yield f"{url}/runs/{asyncio.run(report(url))}/rollouts"
    process.terminate()
    process.communicate(timeout=30)


async def report(url: str) -> str:
    spec = {"name": "inspected", "student": {"model": "/m"}, "data": {}, "rollout": {"source": "pushed"}}
    async with CoordinatorClient(url) as client, WorkerClient(url) as worker:
        run = await client.submit(spec | {"objective": {"kind": "supervised"}})
        lease = await worker.lease_run(run.id, "browser-tests")
        for step, (name, tokens) in enumerate({"short": 40, "later": 30, "long": 10_000}.items(), start=1):
            rollout, inspection = reported(name, tokens)
            told: dict[str, Any] = {"metrics": {}, "student_tokens": 0, "teacher_tokens": 0}
            told |= {"rollouts": [rollout], "inspections": {name: inspection}}
            await worker.report_step(run.id, StepReport(epoch=lease.epoch, step=step, **told))
    return run.id


@pytest.fixture
async def look(browser: Browser) -> Any:
    """Opens a page whose script is at work; nothing of it may ask for anything, or complain, to the end."""
    context = await browser.new_context(viewport={"width": 1280, "height": 900})
    complaints: list[str] = []

    async def opened(url: str) -> Page:
        page = await context.new_page()
        page.on("dialog", lambda dialog: complaints.append(dialog.message))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("console", lambda said: complaints.append(said.text) if "Security Policy" in said.text else None)
        await page.goto(url)
        await expect(page.locator("#dock")).to_be_visible()
        return page

    yield opened
    await context.close()
    assert complaints == []


async def test_the_worst_token_is_a_key_away_with_all_that_is_known_of_it(look: Any, shown: str) -> None:
    page = await look(f"{shown}/short")
    await page.locator("[role=listbox]").focus()
    await page.keyboard.press("w")
    await expect(page.locator("#said")).to_contain_text(f"Token {WORST + 1} of 40")
    await expect(page.locator("#said")).to_contain_text("gap −3.50; the worst here")
    values = page.locator("#values")
    for said in ("−4.000, probability 0.0183", "0.250 nats", "0.500 nats", "0.125 nats of a sum over 64 tokens"):
        await expect(values).to_contain_text(said)
    await expect(page.locator("#top-student tr")).to_have_count(2)
    await expect(page.locator("#top-student .written")).to_contain_text("written")
    await expect(page.locator("#top-teacher tr").first).to_contain_text("−0.75")
    await page.get_by_role("button", name="Worst token").click()
    await expect(page.locator("#said")).to_contain_text("the worst but 1")


async def test_what_is_unknown_is_said_and_is_no_number(look: Any, shown: str) -> None:
    page = await look(f"{shown}/short")
    await page.locator("[role=option]").nth(UNSCORED).click()
    await expect(page.locator("#none-teacher")).to_have_text("the teacher did not score this token")
    await expect(page.locator("#values")).to_contain_text("Gapunknown")
    await page.keyboard.press("ArrowLeft")
    await expect(page.locator("#values")).to_contain_text("no: masked")
    await expect(page.locator("#values")).to_contain_text("nothing: not learned from")


async def test_two_steps_stand_side_by_side_and_each_answers_for_itself(look: Any, shown: str) -> None:
    page = await look(f"{shown}/short")
    await page.get_by_role("link", name="step 2").click()
    await expect(page.locator("[role=listbox]")).to_have_count(2)
    await page.locator("[role=listbox]").nth(1).focus()
    await page.keyboard.press("End")
    await expect(page.locator("#said")).to_contain_text("Token 30 of 30 at step 2")
    await expect(page.locator("[aria-activedescendant]")).to_have_count(1)


async def test_hostile_tokens_do_nothing_and_turn_nothing_round(look: Any, shown: str) -> None:
    page = await look(f"{shown}/short")
    for at in range(len(TEXTS)):
        await page.locator("[role=option]").nth(at).click()
        await expect(page.locator("#top-student tr")).to_have_count(2)
    assert await page.evaluate("window.pwned") is None
    assert await page.locator("main img, main script:not([type])").count() == 0
    assert "\u202e" not in await page.locator("main").inner_text()
    assert await page.evaluate("document.scrollingElement.scrollWidth <= innerWidth")


async def test_ten_thousand_tokens_are_one_stop_and_every_key_is_answered(look: Any, shown: str) -> None:
    page = await look(f"{shown}/long")
    assert await page.locator("[role=option]").count() == 10_000
    assert await page.locator("[role=option][tabindex]").count() == 0
    await page.locator("[role=listbox]").focus()
    for key, at in (("End", 10_000), ("PageUp", 9_900), ("Home", 1), ("ArrowRight", 2), ("w", WORST + 1)):
        await page.keyboard.press(key)
        await expect(page.locator("#said")).to_contain_text(f"Token {at} of 10000")
    await page.keyboard.press("ArrowDown")
    below = await page.locator("#said").inner_text()
    assert f"Token {WORST + 1} of" not in below


async def test_the_lists_are_asked_once_for_each_block_of_tokens_looked_at(look: Any, shown: str) -> None:
    page = await look(f"{shown}/long")
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url.rpartition("/")[2]))
    await page.locator("[role=listbox]").focus()
    assert asked == []
    for key in ("Home", "ArrowRight", "End", "ArrowLeft", "Home"):
        await page.keyboard.press(key)
        await expect(page.locator("#top-teacher tr")).to_have_count(2)
    assert asked == ["long?block=0", "long?block=39"]


async def test_without_the_lists_the_rest_is_there(look: Any, shown: str, browser: Browser) -> None:
    context = await browser.new_context()
    await context.route("**/likely/**", lambda route: route.abort())
    page = await context.new_page()
    await page.goto(f"{shown}/short")
    await page.locator("[role=option]").first.click()
    await expect(page.locator("#none-student")).to_contain_text("could not be read")
    await expect(page.locator("#values")).to_contain_text("0.250 nats")


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_axe_finds_nothing_serious(browser: Browser, shown: str, scheme: Any) -> None:
    page = await (await browser.new_context(color_scheme=scheme)).new_page()
    await page.goto(f"{shown}/short?beside=later")
    await page.locator("[role=option]").first.click()
    await expect(page.locator("#top-teacher tr")).to_have_count(2)
    assert await findings(page) == []

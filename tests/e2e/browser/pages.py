"""The dashboard in Chromium against a live stack: for everybody, with a keyboard, cut off, and with text that hurts."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

import pytest
from accessible import findings
from browsed import RUNS, Scene, coordinator
from fault_proxy import FaultProxy
from playwright.async_api import Browser, Page, expect  # pyright: ignore[reportMissingImports] - an environment of its own has it
from visibility import hide

WIDTHS = {"narrow": 360, "wide": 1440}
Scheme = Literal["light", "dark"]


async def opened(page: Page, url: str) -> None:
    """Loaded with its scripts, and no page of an error."""
    answer = await page.goto(url, wait_until="load")
    assert answer is not None
    assert answer.status < 500, await answer.text()


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_axe_finds_nothing_serious_on_any_page(browser: Browser, scene: Scene, scheme: Scheme) -> None:
    found: dict[str, Any] = {}
    context = await browser.new_context(color_scheme=scheme, viewport={"width": 1280, "height": 900})
    page = await context.new_page()
    for name, path in scene.paths.items():
        await opened(page, scene.url + path)
        await page.evaluate("for (const each of document.querySelectorAll('details')) each.open = true")
        if grave := await findings(page):
            found[name] = grave
    assert not found, json.dumps(found, indent=1)


async def test_axe_finds_nothing_serious_where_there_is_nothing_yet(page: Page, empty: str) -> None:
    for path in ("/", "/teachers", "/queue", "/audit"):
        await page.goto(empty + path)
        assert await findings(page) == [], path


@pytest.mark.parametrize("width", WIDTHS)
async def test_no_page_is_wider_than_its_window(browser: Browser, scene: Scene, width: str) -> None:
    context = await browser.new_context(viewport={"width": WIDTHS[width], "height": 800})
    page = await context.new_page()
    for name, path in scene.paths.items():
        await opened(page, scene.url + path)
        wide = await page.evaluate("document.scrollingElement.scrollWidth - document.scrollingElement.clientWidth")
        assert wide <= 0, f"{name} can be scrolled sideways by {wide} pixels"


async def test_every_control_is_reached_by_tab_and_seen_to_be(page: Page, scene: Scene) -> None:
    for name, path in scene.paths.items():
        await opened(page, scene.url + path)
        controls = await page.evaluate(
            """() => [...document.querySelectorAll('a[href], button, summary, [tabindex="0"]')]
                .filter((each) => each.checkVisibility()).length"""
        )
        await page.keyboard.press("Tab")
        assert await page.evaluate("document.activeElement.className") == "skip", name
        reached = 1
        while reached < min(controls, 40):
            await page.keyboard.press("Tab")
            seen = await page.evaluate(
                """() => { const at = document.activeElement, style = getComputedStyle(at);
                return at === document.body ? null : style.outlineStyle !== 'none' && style.outlineWidth !== '0px'; }"""
            )
            assert seen is not None, f"{name}: {reached} of {controls} controls are reached"
            assert seen, f"{name}: focus is not seen on {await page.evaluate('document.activeElement.outerHTML')}"
            reached += 1


async def test_a_run_is_found_and_read_without_a_pointer(page: Page, scene: Scene) -> None:
    await opened(page, scene.url)
    await page.keyboard.press("Tab")
    await page.keyboard.press("Enter")
    assert await page.evaluate("document.activeElement.id") == "main"
    await page.locator(f'a[href="/runs/{scene.succeeded}"]').focus()
    await page.keyboard.press("Enter")
    await expect(page).to_have_url(f"{scene.url}/runs/{scene.succeeded}")
    values = page.locator("#chart-kl summary")
    await values.focus()
    await page.keyboard.press("Enter")
    await expect(page.locator("#table-kl")).to_be_visible()
    assert await page.locator("#table-kl tbody tr").count() > 5


async def test_every_chart_says_in_words_what_it_shows(page: Page, scene: Scene) -> None:
    await opened(page, f"{scene.url}/runs/{scene.succeeded}")
    plots = await page.get_by_role("img").all()
    assert len(plots) == 7
    for plot in plots:
        assert await plot.locator("canvas").count() == 1
        described = await plot.get_attribute("aria-labelledby")
        assert "at step" in await page.locator(f"#{described}").inner_text()


async def test_a_chart_is_read_by_keys(page: Page, scene: Scene) -> None:
    await opened(page, f"{scene.url}/runs/{scene.succeeded}")
    step = page.locator("#chart-kl .at output")
    await page.locator("#chart-kl .plot").focus()
    seen: list[str] = []
    for key in ("Home", "ArrowRight", "End", "ArrowLeft", "+", "ArrowRight", "0", "Home", "ArrowLeft"):
        await page.keyboard.press(key)
        seen.append(await step.inner_text())
    assert seen == ["1", "2", "30", "29", "29", "30", "30", "1", "1"]
    await expect(page.locator("#chart-grad .at output")).to_have_text("1")  # the others follow


async def test_what_was_opened_stays_open_as_the_page_goes_on(page: Page, scene: Scene) -> None:
    await opened(page, f"{scene.url}/teachers")
    await page.get_by_text("What runs cost it").click()
    heard = page.locator("#teachers time").first
    before = await heard.inner_text()
    await expect(heard).not_to_have_text(before, timeout=20_000)
    assert await page.locator("#teachers details").first.evaluate("each => each.open")


async def test_a_dead_letter_is_replayed_by_a_key(page: Page, scene: Scene) -> None:
    """The teacher cannot read it the second time either, so it is there again."""
    await opened(page, f"{scene.url}/queue")
    replay = page.get_by_role("button", name="Replay browser-tests")
    await replay.focus()
    await page.keyboard.press("Enter")
    await expect(page.locator("#done")).to_have_text("browser-tests was put back to work.")
    await expect(replay).to_be_visible(timeout=20_000)


async def test_the_audit_is_sifted_by_a_form_without_a_pointer(page: Page, scene: Scene) -> None:
    await opened(page, f"{scene.url}/audit")
    await page.get_by_label("To what").fill(scene.paused)
    await page.keyboard.press("Enter")
    await expect(page.locator("tbody tr")).to_have_count(2)
    await expect(page.locator("tbody")).to_contain_text("run.pause")
    await expect(page.get_by_label("To what")).to_have_value(scene.paused)
    await page.get_by_label("What", exact=True).select_option("run.submit")
    await page.get_by_role("button", name="Show").press("Enter")
    await expect(page.locator("tbody tr")).to_have_count(1)


async def test_a_stream_that_was_cut_is_taken_up_again(page: Page, scene: Scene) -> None:
    async with FaultProxy(urlsplit(scene.url).port or 0) as proxy:
        await page.goto(f"http://127.0.0.1:{proxy.port}/runs/{scene.live}")
        fresh = page.locator("#connection")
        await expect(fresh).to_have_text("Live")
        before = await steps_done(page)
        await proxy.set(down=True)
        await expect(fresh).to_have_class("connection lost")
        await proxy.set()
        await expect(fresh).to_have_text("Live", timeout=20_000)
        await page.wait_for_function(
            "before => Number(document.querySelector('#head progress').value) > before", arg=before
        )
        shown = await page.locator("#events li bdi").all_inner_texts()
    told = await messages(scene)
    first = told.index(shown[-1])
    assert told[first : first + len(shown)] == shown[::-1], "none is missing, none is there twice"


async def messages(scene: Scene) -> list[str]:
    """Of every event of the live run but those of metrics, in order."""
    found: list[str] = []
    after: str | None = "0"
    async with scene.up.client() as client:
        while after is not None:
            events = await client.event_page(scene.live, after=int(after), limit=1000)
            found += [each.message for each in events.data if each.type != "metrics"]
            after = events.next
    return found


async def steps_done(page: Page) -> float:
    return await page.evaluate("document.querySelector('#head progress').value")


async def test_a_page_in_the_background_gives_its_stream_up(page: Page, scene: Scene) -> None:
    streams: list[str] = []
    page.on("request", lambda request: streams.append("open") if "/events" in request.url else None)
    page.on("requestfailed", lambda request: streams.append("given up") if "/events" in request.url else None)
    await opened(page, f"{scene.url}/runs/{scene.live}")
    await expect(page.locator("#connection")).to_have_text("Live")
    async with page.expect_event("requestfailed", lambda request: "/events" in request.url):
        await hide(page, hidden=True)
    async with page.expect_request(lambda request: "/events" in request.url):
        await hide(page, hidden=False)
    assert streams == ["open", "given up", "open"]


async def test_hostile_text_is_shown_and_does_nothing(page: Page, scene: Scene) -> None:
    dialogs: list[str] = []
    page.on("dialog", lambda dialog: dialogs.append(dialog.message))
    hostile = [f"/runs/{scene.hostile}", f"/runs/{scene.hostile}/rollouts", scene.rollouts["hostile rollout"], "/"]
    for path in hostile:
        await opened(page, scene.url + path)
        assert await page.locator("main img, main iframe, main svg:not(.spark), main script:not([type])").count() == 0
        assert "<script>window.pwned" in await page.locator("main").inner_text(), path
        assert await page.evaluate("window.pwned") is None
        bidi = await page.evaluate(
            """() => { const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
            while (walker.nextNode()) {
              const { data, parentElement } = walker.currentNode;
              if (data.includes('\\u202e') && !parentElement.closest('bdi, script')) return parentElement.outerHTML;
            }
            return null; }"""
        )
        assert bidi is None, f"{path}: text that turns others round stands outside of its bdi"
    assert dialogs == []


async def test_pages_say_the_same_without_a_script(browser: Browser, scene: Scene) -> None:
    context = await browser.new_context(java_script_enabled=False)
    page = await context.new_page()
    for name in RUNS:
        await page.goto(f"{scene.url}/runs/{getattr(scene, name)}")
        await expect(page.locator("h1")).to_be_visible()
        await expect(page.locator("#events li").first).to_be_visible()
    await page.goto(f"{scene.url}/queue")
    await expect(page.get_by_role("button")).to_have_count(0)  # what needs a script is not offered without one


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A coordinator that has just been started."""
    with coordinator(tmp_path_factory.mktemp("empty")) as url:
        yield url


def test_the_vendored_axe_is_that_of_the_lock() -> None:
    """Without an address of a registry, so that whoever installs chooses theirs."""
    assert '"resolved"' not in (Path(__file__).parent / "package-lock.json").read_text()

"""The rollout inspector's page: what each token shows, says and hides, and two rollouts side by side."""

from __future__ import annotations

import json
import re
from base64 import b64decode
from collections.abc import Callable
from typing import Any

import httpx2
import numpy as np
import pytest
from dashboard_pages import HOSTILE, Page, shown

from tutelage.coordinator.dashboard import rendering, samples, words
from tutelage.coordinator.dashboard.likely import likely
from tutelage_client.wire import Inspection, Lease, Rollout, StepReport
from tutelage_client.worker import WorkerClient

MakeRollout = Callable[[str], Rollout]


async def show(worker: WorkerClient, lease: Lease, step: int, rollout: Rollout, inspection: Inspection | None) -> str:
    """The path of its page."""
    counted = {"metrics": {}, "student_tokens": 0, "teacher_tokens": 0}
    inspections = {} if inspection is None else {rollout.id: inspection}
    report = StepReport(epoch=lease.epoch, step=step, rollouts=[rollout], inspections=inspections, **counted)
    await worker.report_step(lease.run_id, report)
    return f"/runs/{lease.run_id}/rollouts/{rollout.id}"


def tokens(page: Page) -> list[dict[str, str | None]]:
    return [each for each in page.all("span") if each.get("role") == "option"]


def numbers(page: Page, side: int = 0) -> dict[str, Any]:
    """Arrays as lists, as the script reads them."""
    packed = [json.loads(data) for data in page.data if data.startswith('{"step"')][side]
    return {name: unpacked(name, value) if isinstance(value, str) else value for name, value in packed.items()}


def unpacked(name: str, value: str) -> Any:
    if name == "url":
        return value
    kind = {"ids": "<i4", "order": "<i4", "mask": "?"}.get(name, "<f4")
    return np.frombuffer(b64decode(value), kind).tolist()


async def test_each_token_is_coloured_and_told_by_its_gap(
    http: httpx2.AsyncClient, worker: WorkerClient, lease: Lease, rollout: MakeRollout, inspection: Inspection
) -> None:
    page = await shown(http, await show(worker, lease, 1, rollout("a"), inspection))
    assert [token["class"] for token in tokens(page)] == ["g2", "g0", " masked"]
    assert [token["aria-label"] for token in tokens(page)] == [
        "walk, gap −1.50",
        "new line, gap −∞",
        "ed, not scored, not learned from",
    ]
    at = page.data.index("↵")
    assert page.data[at - 2 : at + 3] == [" ", "walk", "↵", "\n", "ed"], "a space before a word, and the end of a line"
    assert "log-prob of the teacher minus that of the student" in page.text
    assert "−1.50 and −1.50" in page.text, "mean and least of the gaps that are finite"


async def test_the_numbers_of_the_token_in_focus_are_those_that_were_reported(
    http: httpx2.AsyncClient, worker: WorkerClient, lease: Lease, rollout: MakeRollout, inspection: Inspection
) -> None:
    told = numbers(await shown(http, await show(worker, lease, 1, rollout("a"), inspection)))
    assert told["ids"] == [3, 4, 5]
    assert told["mask"] == [True, True, False]
    assert told["order"] == [1, 0], "the worst first; the third is not learned from"
    assert told["teacher_logprob"] == [-2.0, -np.inf, pytest.approx(np.nan, nan_ok=True)]
    assert told["student_entropy"] == [0.75, 1.5, 0.125]
    assert told["contribution"] == [1.5, 0.0, pytest.approx(np.nan, nan_ok=True)]
    assert told["learned_tokens"] == 96


async def test_the_most_likely_tokens_are_read_by_the_block(
    http: httpx2.AsyncClient, worker: WorkerClient, lease: Lease, rollout: MakeRollout, inspection: Inspection
) -> None:
    url = numbers(await shown(http, await show(worker, lease, 1, rollout("a/b"), inspection)))["url"]
    told = (await http.get(url, params={"block": 0})).json()
    assert told["student"] == [[[3, -0.5], [1, -1.0]], [[4, -0.25], [0, -1.75]], [[5, -1.0], [0, -2.0]]]
    assert told["teacher"] == [[[1, -0.25], [3, -2.0]], [[0, 0.0]], None], "less what pads; the third was not scored"
    assert told["texts"] == {"0": "<eos>", "1": "␣a", "3": "␣walk", "4": "↵", "5": "ed"}
    assert (await http.get(url, params={"block": 1})).json() == {"student": [], "teacher": [], "texts": {}}
    refused = await http.get(url, params={"block": -1})
    assert (refused.status_code, refused.json()["field"]) == (422, "block")
    gone = await http.get(url.replace("a%2Fb", "none"), params={"block": 0})
    assert (gone.status_code, gone.json()["code"]) == (404, "rollout_not_found")


def test_what_is_impossible_or_was_never_asked_is_no_number(inspection: Inspection) -> None:
    nothing = {"teacher_topk_ids": None, "teacher_topk_logprob": None}
    impossible = np.array([[-0.5, -np.inf]] * 3, np.float32)
    told = likely(inspection.model_copy(update=nothing | {"student_topk_logprob": impossible}), 0)
    assert told["teacher"] is None
    assert told["student"][0] == [(3, -0.5), (1, None)]
    assert set(told["texts"]) == {0, 1, 3, 4, 5}


async def test_hostile_tokens_are_text(
    http: httpx2.AsyncClient, worker: WorkerClient, lease: Lease, rollout: MakeRollout, inspection: Inspection
) -> None:
    bad = inspection.model_copy(update={"texts": {3: HOSTILE, 4: "\u202e\u200f\x00\u200d", 5: '" onclick="x'}})
    named = rollout("a/b <i>").model_copy(update={"prompt": HOSTILE, "answer": HOSTILE, "tag": HOSTILE})
    path = await show(worker, lease, 1, named, bad)
    listed = await shown(http, f"/runs/{lease.run_id}/rollouts")
    [link] = [str(each["href"]) for each in listed.all("a") if "/rollouts/" in str(each["href"])]
    assert link != path, "its id is quoted"
    page = await shown(http, link)
    assert not page.all("img")
    assert "<script>alert(1)</script><img" in page.text
    own = [data for data in page.data if data.startswith(("<script>alert", "⟨U+202E"))]
    assert any(data.endswith(f"… +{len(HOSTILE) + 7 - 120}") and len(data) < 140 for data in own), "cut, and it says so"
    assert "⟨U+202E⟩⟨U+200F⟩⟨U+0000⟩⟨U+200D⟩" in own
    assert tokens(page)[2]["aria-label"] == '" onclick="x, not scored, not learned from'


async def test_without_an_inspection_tokens_are_ids_by_their_surprise(
    http: httpx2.AsyncClient, worker: WorkerClient, lease: Lease, rollout: MakeRollout
) -> None:
    assert "No rollout is shown yet" in (await shown(http, f"/runs/{lease.run_id}/rollouts")).text
    page = await shown(http, await show(worker, lease, 1, rollout("a"), None))
    assert [token["class"] for token in tokens(page)] == ["s2", "s1", "s3 masked"]
    assert tokens(page)[0]["aria-label"] == "token 3, surprise 0.50"
    assert numbers(page)["order"] == [0, 1]
    assert "shown by their ids, without the teacher" in page.text
    assert numbers(page)["url"] is None


async def test_without_a_teacher_tokens_are_coloured_by_the_students_surprise(
    http: httpx2.AsyncClient, worker: WorkerClient, lease: Lease, rollout: MakeRollout, inspection: Inspection
) -> None:
    nothing = {name: None for name in Inspection.model_fields if name.startswith("teacher")}
    alone = inspection.model_copy(update=nothing | {"valid": np.zeros(3, bool)})
    written = rollout("a").model_copy(update={"behaviour_logprob": None, "source": "teacher"})
    page = await shown(http, await show(worker, lease, 1, written, alone))
    assert [token["class"] for token in tokens(page)] == ["s2", "s1", "s3 masked"]
    assert "No teacher scored these tokens" in page.text
    assert numbers(page)["teacher_logprob"] is None
    assert numbers(page)["order"] == [0, 1], "by what the student finds least likely"


async def test_text_of_which_nobody_knows_anything_has_no_colours(
    http: httpx2.AsyncClient, worker: WorkerClient, lease: Lease, rollout: MakeRollout
) -> None:
    long = np.arange(10_000)
    text = rollout("long").model_copy(
        update={"completion_ids": long, "mask": long >= 0, "behaviour_logprob": None, "source": "teacher"}
    )
    page = await shown(http, await show(worker, lease, 1, text, None))
    assert len(tokens(page)) == 10_000
    assert {token["class"] for token in tokens(page)} == {""}
    assert numbers(page)["order"] == []
    assert [each["data-start"] for each in page.all("div") if each.get("role") == "group"][:2] == ["1", "251"]
    assert len([each for each in page.all("div") if each.get("tabindex") == "0"]) == 1, "one stop for all tokens"


async def test_the_same_prompt_at_two_steps_stands_side_by_side(
    http: httpx2.AsyncClient, worker: WorkerClient, lease: Lease, rollout: MakeRollout, inspection: Inspection
) -> None:
    first = await show(worker, lease, 1, rollout("a"), inspection)
    await show(worker, lease, 5, rollout("b"), inspection.model_copy(update={"learned_tokens": 7}))
    alone = await shown(http, first)
    [link] = [str(each["href"]) for each in alone.all("a") if "beside=" in str(each["href"])]
    page = await shown(http, link)
    assert "Rollout of step 1, beside step 5" in page.text
    assert [each["data-side"] for each in page.all("div") if each.get("role") == "listbox"] == ["0", "1"]
    assert len(tokens(page)) == 6
    assert (numbers(page)["step"], numbers(page, 1)["step"], numbers(page, 1)["learned_tokens"]) == (1, 5, 7)


async def test_an_answer_to_a_held_out_line_is_said_to_be_one(
    http: httpx2.AsyncClient, worker: WorkerClient, lease: Lease, rollout: MakeRollout, inspection: Inspection
) -> None:
    told = {"metrics": {}, "student_tokens": 0, "teacher_tokens": 0}
    for step in (0, 50):
        answer = rollout(f"held-out-1-at-{step}")
        seen = {answer.id: inspection}
        report = StepReport(epoch=lease.epoch, step=step, held_out=[answer], inspections=seen, **told)
        await worker.report_step(lease.run_id, report)
    rows = await shown(http, f"/runs/{lease.run_id}/rollouts")
    assert rows.text.count("to a held-out line") == 2
    beside = f"/runs/{lease.run_id}/rollouts/held-out-1-at-0?beside=held-out-1-at-50"
    page = await shown(http, beside)
    assert "Rollout of step 0, beside step 50" in page.text
    assert page.text.count("to a held-out line") == 2
    assert [numbers(page, side)["held_out"] for side in (0, 1)] == [True, True]


async def test_an_unknown_rollout_is_a_page_that_says_so(
    http: httpx2.AsyncClient, worker: WorkerClient, lease: Lease, rollout: MakeRollout
) -> None:
    assert "shows no rollout 'x'" in (await shown(http, f"/runs/{lease.run_id}/rollouts/x", 404)).text
    assert "there is no run 'y'" in (await shown(http, "/runs/y/rollouts", 404)).text
    assert "there is no run 'y'" in (await shown(http, "/runs/y/rollouts/x", 404)).text
    path = await show(worker, lease, 1, rollout("a"), None)
    assert "shows no rollout 'z'" in (await shown(http, f"{path}?beside=z", 404)).text


async def test_what_the_page_loads_is_there(http: httpx2.AsyncClient) -> None:
    script = (await http.get("/static/inspector.js")).text
    imported = re.findall(r'from "\./(.*)";', script)
    assert imported == ["likely.js"]
    for name in [*imported, "inspector.css"]:
        assert (await http.get(f"/static/{name}")).status_code == 200


def test_the_classes_of_the_scales_have_colours_in_light_and_dark() -> None:
    style = (rendering.HERE / "static" / "inspector.css").read_text()
    for letter, ends in (("g", samples.GAPS), ("s", samples.SURPRISE)):
        for at in range(len(ends) + 1):
            assert len(re.findall(rf"^ +--{letter}{at}: #", style, re.MULTILINE)) == 2
            assert f".{letter}{at} {{ background: var(--{letter}{at})" in style
    assert tuple(-end for end in reversed(samples.GAPS)) == samples.GAPS, "both directions are alike"


@pytest.mark.parametrize(
    ("text", "seen", "heard"),
    [
        (" walk", " walk", "walk"),
        (" ", " ", "space"),
        ("\n\n", "↵↵", "2 × new line"),
        ("\n\t", "↵⇥", "new line and tab"),
        ("", "⟨empty⟩", "⟨empty⟩"),
        ("\ufffd", "\ufffd", "\ufffd"),
        ("مر", "مر", "مر"),
        ("a\u2028b", "a⟨U+2028⟩b", "a⟨U+2028⟩b"),
        ("x" * 121, "x" * 120 + "… +1", "x" * 120 + "… +1"),
    ],
)
def test_a_token_is_shown_with_a_sign_for_what_has_none(text: str, seen: str, heard: str) -> None:
    assert (words.visible(text), words.aloud(text)) == (seen, heard)


@pytest.mark.parametrize(
    ("text", "seen"), [("  walk ", "␣␣walk␣"), ("  ", "␣␣"), ("a b", "a b"), ("\n ", "↵␣"), ("", "⟨empty⟩")]
)
def test_a_token_that_stands_alone_has_signs_for_its_outer_spaces(text: str, seen: str) -> None:
    assert words.alone(text) == seen


async def test_text_from_right_to_left_turns_nothing_around_it(
    http: httpx2.AsyncClient, worker: WorkerClient, lease: Lease, rollout: MakeRollout, inspection: Inspection
) -> None:
    turned = inspection.model_copy(update={"texts": {3: "שלום", 4: " 12", 5: "مر"}})
    page = await shown(http, await show(worker, lease, 1, rollout("a"), turned))
    assert [token.get("dir") for token in tokens(page)] == ["auto", None, "auto"]


@pytest.mark.parametrize(("value", "said"), [(-1.5, "−1.50"), (0.25, "+0.25"), (-np.inf, "−∞"), (np.inf, "+∞")])
def test_a_gap_has_its_sign(value: float, said: str) -> None:
    assert words.signed(value) == said

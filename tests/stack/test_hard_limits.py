"""What a run may cost and what an upstream lets through, in whole: real processes, and what its owner then sees."""

from __future__ import annotations

import asyncio
import hashlib
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
from embedded_stack import RUN_S, SKILL, Up, finished, removed, small_spec, until, until_registered
from prometheus_client.parser import text_string_to_metric_families

from tutelage.engines.fakes.toy import QUOTA_RETRY_AFTER_S
from tutelage_client.errors import ProblemResponse
from tutelage_client.teacher import TeacherClient
from tutelage_client.wire import EventView, RunStatus, ScoreRequest

SAMPLED = {"kind": "divergence", "support": {"kind": "sampled"}}
USD_A_TOKEN = 1e-6
RUN_BUDGET_USD = 2.5e-4  # two steps of the small run, and no more
OWN_BUDGET_USD = 1e-4  # below one step
KEY = "a key of somebody"
KEY_BUDGET_USD = 1e-5


@contextmanager
def serving(*argv: str) -> Iterator[str]:
    """A process that says where it listens; its address."""
    process = subprocess.Popen([sys.executable, "-m", *argv], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield process.stdout.readline().removeprefix("listening on ").strip()
    finally:
        process.terminate()
        process.communicate(timeout=60)


@contextmanager
def teacher(up: Up, name: str, *flags: str) -> Iterator[str]:
    """A teacher of this name beside those of the stack; its address."""
    reach = ("--redis-url", up.described["redis"]["url"], "--coordinator", up.url, "--port", "0")
    with serving("tutelage.teacher", "--name", name, *flags, *reach) as url:
        until_registered(up, {name})
        yield url
    removed(up, [name])


@pytest.fixture
def dear(up: Up, tmp_path: Path) -> Iterator[str]:
    """A teacher that costs a dollar a million tokens, of which every run and one key may spend a little."""
    keys = tmp_path / "keys.toml"
    digest = hashlib.sha256(KEY.encode()).hexdigest()
    keys.write_text(f'[[keys]]\nname = "alice"\nsha256 = "{digest}"\nbudget_usd = {KEY_BUDGET_USD:.7f}\n')
    served = ("--engine", "hf", "--model", str(SKILL / "teacher"), "--usd-per-million-input", "1")
    books = ("--accounts-file", str(tmp_path / "accounts.db"), "--keys-file", str(keys))
    with teacher(up, "dear", *served, *books, "--run-budget-usd", f"{RUN_BUDGET_USD:.7f}") as url:
        yield url


@pytest.fixture
def limited(up: Up) -> Iterator[str]:
    """A judge whose API refuses every call for a while, after the first few; its teacher's name."""
    with (
        serving("tutelage.engines.fakes", "judge", "--trap", "over_quota") as api,
        teacher(up, "limited", "--engine", "chat", "--upstream", api, "--upstream-model", "toy"),
    ):
        yield "limited"


async def spent_usd(url: str) -> dict[str, float]:
    """Dollars by account, as the teacher tells them."""
    async with httpx2.AsyncClient(base_url=url) as http:
        shown = (await http.get("/metrics")).text
    families = {family.name: family for family in text_string_to_metric_families(shown)}
    return {sample.labels["account"]: sample.value for sample in families["tutelage_teacher_spent_usd"].samples}


async def events_of(up: Up, run_id: str) -> list[EventView]:
    async with up.client() as client:
        return (await client.event_page(run_id)).data


async def test_a_run_stops_where_its_dollars_end_and_says_so(up: Up, dear: str, data: Path) -> None:
    spec = small_spec(data, "dear", teachers=[{"name": "dear"}], objective=SAMPLED, optim={"steps": 50}, eval=None)
    async with up.client() as client:
        run = await finished(up, (await client.submit(spec)).id)
        checkpoints = await client.checkpoints(run.id)
    assert run.status is RunStatus.FAILED
    assert run.error is not None
    assert (run.error.code, run.error.category) == ("no_scores", "teacher")
    limit = f"of {RUN_BUDGET_USD:g} USD and this request may take"
    for part in (f"run {run.id} has spent", limit, "--run-budget-tokens or -usd says how much"):
        assert part in run.error.message
    told = [event.message for event in await events_of(up, run.id) if event.level == "warning"]
    assert any("is left out" in message and limit in message for message in told)
    assert run.step >= 1, "it learned for as long as it could pay"
    assert checkpoints[-1].step == run.step, "and nothing of that is lost"
    spent = (await spent_usd(dear))[f"run {run.id}"]
    assert RUN_BUDGET_USD / 2 < spent <= RUN_BUDGET_USD
    assert spent == pytest.approx(run.teacher_tokens * USD_A_TOKEN), "what was reserved and not used was given back"

    async with up.client() as client:
        other = await finished(up, (await client.submit(spec | {"budget": {"teacher_usd": OWN_BUDGET_USD}})).id)
    assert other.status is RunStatus.SUCCEEDED, "another run has dollars of its own, and its own limit ends it well"
    assert other.step < 50
    assert OWN_BUDGET_USD <= other.metrics["teacher_usd"] == pytest.approx(other.teacher_tokens * USD_A_TOKEN)


async def test_a_key_stops_where_its_dollars_end_with_the_limit_in_the_answer(up: Up, dear: str) -> None:
    asked = ScoreRequest.model_validate({"sequences": [{"token_ids": [1, 2, 3, 4, 5, 6], "score_start": 1}]})
    async with TeacherClient(dear, key=KEY) as client:
        await client.score(asked)
        with pytest.raises(ProblemResponse) as refused:
            await client.score(asked)
        usage = await client.usage()
    assert (refused.value.status, refused.value.code) == (402, "budget_spent")
    assert "key alice has spent 0.000005 of 1e-05 USD and this request may take 0.000006" in refused.value.detail
    assert (usage.tokens, usage.usd, usage.budget_usd) == (5, pytest.approx(5 * USD_A_TOKEN), KEY_BUDGET_USD)
    assert (await spent_usd(dear))["key alice"] == usage.usd


async def test_a_run_that_waits_for_a_rate_limit_says_whose_and_for_how_long(up: Up, limited: str, data: Path) -> None:
    rewarded: dict[str, Any] = {
        "rollout": {"samples_per_prompt": 4},
        "objective": {"kind": "reward"},
        "reward": {"by": {"kind": "rubric", "rubric": "It says good."}, "advantage": "group_centred"},
    }
    spec = small_spec(data, "limited", teachers=[{"name": limited}], optim={"steps": 10_000}, eval=None, **rewarded)
    condition = f"teacher_within_limits/{limited}"
    async with up.client() as client, asyncio.timeout(RUN_S):
        run_id = (await client.submit(spec)).id
        waiting = await until(up, run_id, lambda run: run.conditions.get(condition) is False)
        assert waiting.status is RunStatus.RUNNING
        await until(up, run_id, lambda run: run.conditions.get(condition) is True)
        await client.cancel(run_id)
        assert (await finished(up, run_id)).status is RunStatus.CANCELLED
    begun, over = (event for event in await events_of(up, run_id) if "the upstream of teacher" in event.message)
    for part in ("'limited' takes no work", f"Retry-After {QUOTA_RETRY_AFTER_S} s", "status 429", "over your quota"):
        assert part in begun.message
    assert (begun.level, begun.data["retry_after_s"]) == ("warning", QUOTA_RETRY_AFTER_S)
    assert over.message == "the upstream of teacher 'limited' takes work again"

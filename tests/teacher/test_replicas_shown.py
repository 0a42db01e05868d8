"""A teacher over several upstreams: how they are named, and that one out of service is there for all to see."""

from __future__ import annotations

from typing import Any

import httpx2
import pytest
from pydantic import ValidationError
from pydantic_settings import CliApp

from tutelage.engines import FakeOptions, ReplicatedOptions, UpstreamOptions
from tutelage.engines.fake import FakeEngine
from tutelage.engines.replicas import Replica, ReplicatedEngine
from tutelage.teacher.build import build_app
from tutelage.teacher.settings import Settings
from tutelage_client.spec import explain


async def test_a_teacher_with_a_replica_out_of_service_is_ready_and_says_so() -> None:
    sound, odd, third = (FakeEngine(FakeOptions(seed=seed), "toy") for seed in (0, 5, 0))
    odd.provenance = sound.provenance
    engine = ReplicatedEngine([Replica("a:1", sound), Replica("b:2", odd), Replica("c:3", third)])
    app = build_app(Settings.model_validate({"name": "toy", "engine": "fake"}), engine)
    app.state.url = "http://127.0.0.1"
    transport = httpx2.ASGITransport(app, raise_app_exceptions=False)
    async with (
        app.router.lifespan_context(app),
        httpx2.AsyncClient(transport=transport, base_url="http://127.0.0.1") as http,
    ):
        body = {"sequences": [{"token_ids": [1, 2, 3], "score_start": 1}]}
        assert (await http.post("/v1/score", json=body)).status_code == 200
        assert (await http.get("/readyz")).status_code == 200
        a, b, _ = (await http.get("/v1/teacher")).json()["replicas"]
        assert (a["name"], a["up"], b["name"], b["up"]) == ("a:1", True, "b:2", False)
        assert "differently from the others" in b["reason"]
        shown = (await http.get("/metrics")).text
        assert 'tutelage_teacher_replica_up{replica="a:1"} 1.0' in shown
        assert 'tutelage_teacher_replica_up{replica="b:2"} 0.0' in shown
        assert 'tutelage_teacher_replica_events_total{event="quarantined",replica="b:2"} 1.0' in shown


FLAGS = ["--engine", "vllm", "--model", "m", "--upstream", "http://one:8000"]


def test_several_upstreams_are_replicas(monkeypatch: pytest.MonkeyPatch) -> None:
    one = CliApp.run(Settings, cli_args=FLAGS).engine_options()
    assert one == UpstreamOptions(kind="vllm", model="m", upstream="http://one:8000")
    flags = [*FLAGS, "--upstream", "http://two:8000", "--hedge-after-s", "0.5"]
    two = CliApp.run(Settings, cli_args=flags).engine_options()
    assert isinstance(two, ReplicatedOptions)
    assert [replica.upstream for replica in two.replicas] == ["http://one:8000", "http://two:8000"]
    assert (two.hedge_after_s, {replica.fail_fast for replica in two.replicas}) == (0.5, {True})
    monkeypatch.setenv("TUTELAGE_TEACHER_UPSTREAM", "http://one:8000,http://two:8000")
    assert CliApp.run(Settings, cli_args=[*FLAGS[:4], "--hedge-after-s", "0.5"]).engine_options() == two


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--hedge-after-s", "1"], "--hedge-after-s needs a second --upstream"),
        (["--upstream", "http://one:8000"], "--upstream names an address twice"),
        (["--upstream", "two:8000"], "upstream.1"),
    ],
)
def test_what_makes_no_sense_is_refused_with_a_sentence(more: list[str], said: str) -> None:
    with pytest.raises(ValidationError) as refused:
        CliApp.run(Settings, cli_args=[*FLAGS, *more])
    sentence: Any = " ".join(str(part) for part in explain(refused.value))
    assert said in sentence

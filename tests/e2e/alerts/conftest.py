"""A stack in which a run goes on, so that its coordinator tells of one, and the rules as Prometheus takes them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from deployed import K8S
from embedded_stack import Up, small_spec, until, until_registered


@pytest.fixture
def rules(tmp_path: Path) -> Path:
    """The rules of the component as a plain file."""
    resource = yaml.safe_load((K8S / "components" / "monitoring" / "alerts.yaml").read_text())
    path = tmp_path / "rules.yaml"
    path.write_text(yaml.safe_dump(resource["spec"]))
    return path


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    folder = tmp_path_factory.mktemp("stack")
    up = Up(folder / "data")
    try:
        until_registered(up, {"adder"})
        asyncio.run(_begin(up, folder / "problems.jsonl"))
        yield up
    finally:
        up.stop()


async def _begin(up: Up, problems: Path) -> None:
    problems.write_text('{"prompt": "3+4:", "completion": "7", "answer": "7"}\n')
    async with up.client() as client:
        run_id = (await client.submit(small_spec(problems, "goes-on", optim={"steps": 1_000_000}))).id
    await until(up, run_id, lambda run: run.step >= 2)

"""Published weights, and the models that are put where they are: one in this process, one behind a vLLM in small."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from peft import LoraConfig, get_peft_model
from students_elsewhere import published, snapshot_of, text_of

from tutelage.engines.fakes import listening
from tutelage.engines.fakes.student import StudentServer, StudentTrap, student_app
from tutelage.engines.loading import load_model
from tutelage.engines.snapshots import Base, Current, SnapshotGone, SnapshotRefused, read
from tutelage.engines.snapshots.local import LocalStudent
from tutelage.engines.snapshots.served import ServedStudent
from tutelage.engines.upstream.calls import Calls
from tutelage.engines.upstream.failures import UpstreamRefused
from tutelage.engines.upstream.http import UpstreamHttp
from tutelage_client.errors import InvalidInput
from tutelage_client.wire import SampledText, SampleRequest, SnapshotRef

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")
PLACES = 6
# What the server is told for three snapshots, one after the other.
UPDATES = {
    "whole": ["reload_weights", "reset_prefix_cache"] * 3,
    "adapters": ["load", "unload", "load", "unload", "load"],
}


@pytest.fixture(scope="module")
def student(model_dirs: dict[str, Path]) -> Path:
    return model_dirs["llama"]


def adapted(student: Path, root: Path, version: int, base: Path | None = None) -> SnapshotRef:
    """Adapters of their own of each version, on this student; base: where they say that it is."""
    below = load_model(str(student), None, "float32", torch.device("cpu"))
    model: Any = get_peft_model(
        below, LoraConfig(r=2, lora_alpha=8, target_modules="all-linear", task_type="CAUSAL_LM")
    )
    torch.manual_seed(version)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "lora_" in name:
                weight.normal_(std=0.3)
    return snapshot_of(model.eval(), root, version, Base(model=str(base or student)))


def of_version(kind: str, student: Path, root: Path, version: int) -> SnapshotRef:
    if kind == "adapters":
        return adapted(student, root, version)
    return published(student, root, version, shift=0.01 * version)


@asynccontextmanager
async def served(student: Path, *traps: StudentTrap) -> AsyncGenerator[tuple[ServedStudent, StudentServer]]:
    server = StudentServer(student, traps)
    async with listening(student_app(server)) as url:
        writer = ServedStudent(UpstreamHttp(Calls(url, 10.0, 8), None), "w", most_off=0.01, patience_s=0)
        try:
            yield writer, server
        finally:
            await writer.close()


async def written(student: Current, requests: Sequence[SampleRequest]) -> list[SampledText]:
    found = {index: text async for ended in student.write(requests) for index, text in ended}
    return [found[index] for index in range(len(requests))]


def asked(ref: SnapshotRef, places: Sequence[int] = range(PLACES), **changes: Any) -> list[SampleRequest]:
    return [text_of(ref, place, PLACES, prompt_ids=[5 + place, 9], **changes) for place in places]


@torch.no_grad()
def logprobs(model: Any, request: SampleRequest, text: SampledText) -> NDArray[np.float32]:
    ids = torch.from_numpy(np.concatenate([request.prompt_ids, text.token_ids])).long()[None]
    rows = model(input_ids=ids).logits[0, len(request.prompt_ids) - 1 : -1].log_softmax(-1)
    return rows.gather(-1, ids[0, len(request.prompt_ids) :, None])[:, 0].numpy()


@pytest.mark.parametrize("kind", ["whole", "adapters"])
@pytest.mark.parametrize("where", ["here", "served"])
async def test_text_is_drawn_from_the_snapshot_that_was_loaded_last(
    kind: str, where: str, student: Path, tmp_path: Path
) -> None:
    refs = [of_version(kind, student, tmp_path, version) for version in (1, 2)]
    async with served(student) as (remote, server):
        writer: Current = remote if where == "served" else LocalStudent("cpu", most_off=0.01)
        for ref in (*refs, refs[0]):
            await writer.load(ref)
            requests = asked(ref)
            fresh = LocalStudent("cpu", most_off=0.001)
            await fresh.load(ref)
            for request, text in zip(requests, await written(writer, requests), strict=True):
                assert text.policy_version == ref.policy_version
                np.testing.assert_allclose(text.logprobs, logprobs(fresh.model, request, text), atol=1e-4)
        if where == "served":
            updates = [word.partition(" ")[0] for word in server.told]
            expected = UPDATES[kind]
            assert updates == expected


async def test_what_is_drawn_does_not_depend_on_what_is_written_beside_it(student: Path, tmp_path: Path) -> None:
    ref, local = published(student, tmp_path, 1), LocalStudent("cpu")
    await local.load(ref)
    together = await written(local, asked(ref))
    apart = [text for place in reversed(range(PLACES)) for text in await written(local, asked(ref, [place]))]
    assert [text.token_ids.tolist() for text in together] == [text.token_ids.tolist() for text in reversed(apart)]
    mixed = [*asked(ref, [2]), *asked(ref, [3], max_new_tokens=2), *asked(ref, [4], seed=8)]
    cut = (await written(local, mixed))[1]
    assert cut.token_ids.tolist() == together[3].token_ids.tolist()[:2]


async def test_a_model_below_the_adapters_that_is_another_one_is_noticed(
    student: Path, model_dirs: dict[str, Path], tmp_path: Path
) -> None:
    other = load_model(str(student), None, "float32", torch.device("cpu"))
    with torch.no_grad():
        other.get_input_embeddings().weight += 0.1
    other.save_pretrained(tmp_path / "other")
    ref = adapted(student, tmp_path / "snapshots", 1, base=tmp_path / "other")
    with pytest.raises(SnapshotRefused, match=r"does not hold the weights of policy version 1: .* off by"):
        await LocalStudent("cpu").load(ref)


async def test_a_model_below_the_adapters_that_is_not_there_is_named(student: Path, tmp_path: Path) -> None:
    ref = adapted(student, tmp_path, 1, base=tmp_path / "nowhere")
    with pytest.raises(SnapshotRefused, match="nowhere is not a directory"):
        await LocalStudent("cpu").load(ref)


@pytest.mark.parametrize(("kind", "trap"), [("whole", "reload_garbles"), ("adapters", "adapter_ignored")])
async def test_an_update_that_the_server_only_says_it_made_is_refused(
    kind: str, trap: StudentTrap, student: Path, tmp_path: Path
) -> None:
    ref = of_version(kind, student, tmp_path, 1)
    async with served(student, trap) as (writer, _):
        with pytest.raises(
            SnapshotRefused, match=r"vLLM at http://127\.0\.0\.1:\d+ does not hold the weights of policy"
        ):
            await writer.load(ref)


async def test_a_server_that_lost_its_adapters_is_given_them_again(student: Path, tmp_path: Path) -> None:
    ref = adapted(student, tmp_path, 1)
    async with served(student, "forgetful") as (writer, server):
        await writer.load(ref)
        await written(writer, asked(ref, [0]))
        with pytest.raises(UpstreamRefused, match="does not exist"):
            await written(writer, asked(ref, [1]))
        await writer.load(ref)
        await written(writer, asked(ref, [1]))
    assert [word.partition(" ")[0] for word in server.told] == ["load", "unload", "load", "unload"]


async def test_text_of_another_distribution_than_the_server_tells_of_is_refused(student: Path, tmp_path: Path) -> None:
    ref = published(student, tmp_path, 1)
    async with served(student) as (writer, _):
        await writer.load(ref)
        with pytest.raises(InvalidInput, match="top_p to 1, or use --engine hf"):
            await written(writer, asked(ref, [0], temperature=0.7))


def test_a_snapshot_is_whole_or_refused_or_gone(student: Path, tmp_path: Path) -> None:
    ref = published(student, tmp_path, 4)
    assert read(ref).policy_version == 4
    assert Path(ref.path).name == f"00000004-{ref.sha256[:12]}"
    assert not list(tmp_path.glob(".*"))
    with pytest.raises(SnapshotRefused, match="is not the one that was published"):
        read(ref.model_copy(update={"sha256": "0" * 64}))
    (Path(ref.path) / "model" / "config.json").write_text("{}")
    with pytest.raises(SnapshotRefused, match=r"config\.json is not the file that was published"):
        read(ref)
    shutil.rmtree(ref.path)
    with pytest.raises(SnapshotGone):
        read(ref)


async def test_a_snapshot_that_is_seen_late_is_waited_for(student: Path, tmp_path: Path) -> None:
    ref = published(student, tmp_path / "out", 4)
    hidden = Path(ref.path).rename(tmp_path / "late")
    reading = asyncio.create_task(asyncio.to_thread(read, ref, 20.0))
    await asyncio.sleep(0)
    hidden.rename(ref.path)
    assert (await reading).policy_version == 4

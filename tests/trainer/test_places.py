"""What a run names is held to the lease's places again where it is read, by where it leads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from recording_worker import lease

from tutelage.trainer.inputs import local_model, local_path
from tutelage_client.errors import InvalidInput
from tutelage_client.spec import Model
from tutelage_client.wire import Lease

NOBODY: Any = None  # nothing is downloaded


@pytest.fixture
def held(tmp_path: Path) -> Lease:
    """A lease that shares `models` and keeps `own`, both with a file."""
    for name in ("models", "own"):
        (tmp_path / name / "student").mkdir(parents=True)
        (tmp_path / name / "student" / "config.json").write_text("{}")
    places = {"own": str(tmp_path / "own"), "shared": [str(tmp_path / "models"), str(tmp_path / "own")]}
    return lease({}, str(tmp_path / "own" / "artefacts"), places=places)


async def test_what_is_shared_is_read(held: Lease, tmp_path: Path) -> None:
    for path in (tmp_path / "models" / "student", tmp_path / "models" / "student" / "config.json"):
        assert await local_path(str(path), NOBODY, held, "student.model") == path
    (tmp_path / "models" / "newest").symlink_to(tmp_path / "models" / "student")
    await local_path(str(tmp_path / "models" / "newest"), NOBODY, held, "student.model")


@pytest.mark.parametrize(("to", "said"), [("own", "own folder"), ("elsewhere", "in no folder that is shared")])
async def test_a_link_leads_nowhere_else(to: str, said: str, held: Lease, tmp_path: Path) -> None:
    """Neither one in the path, nor one to it, nor one in the folder that it names."""
    target = tmp_path / to / "secret"
    target.mkdir(parents=True)
    (target / "weights").write_text("theirs")
    (tmp_path / "models" / "in").symlink_to(target.parent)
    (tmp_path / "models" / "to").symlink_to(target / "weights")
    (tmp_path / "models" / "student" / "weights").symlink_to(target / "weights")
    for name in ("in/secret", "to", "student", "in/../../" + to):
        with pytest.raises(InvalidInput, match=said) as refused:
            await local_path(str(tmp_path / "models" / name), NOBODY, held, "data.train")
        assert refused.value.field == "data.train"


async def test_where_no_key_is_asked_for_all_but_the_own_is_read(held: Lease, tmp_path: Path) -> None:
    own = held.places.model_copy(update={"shared": None})
    free = held.model_copy(update={"places": own})
    await local_path(str(tmp_path / "anything"), NOBODY, free, "data.train")
    with pytest.raises(InvalidInput, match="own folder"):
        await local_path(str(tmp_path / "own" / "student"), NOBODY, free, "data.train")


async def test_a_hub_id_is_no_folder_of_this_machine(
    held: Lease, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub = Model(model="own/student", revision="0" * 40)
    assert await local_model(hub, NOBODY, held, "student.model") == Path("own/student")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InvalidInput, match="is a path where the trainer is"):
        await local_model(hub, NOBODY, held, "student.model")

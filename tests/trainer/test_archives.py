"""An uploaded model is unpacked file by file, and nothing of it lands anywhere else."""

from __future__ import annotations

import io
import random
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from recording_worker import lease

from tutelage.trainer.inputs import local_path
from tutelage_client.errors import InvalidInput

Add = Callable[[tarfile.TarFile], None]


@pytest.fixture
def upload(tmp_path: Path) -> Callable[[Add], Any]:
    """Put a tar archive where downloads go, and ask for the model in it."""

    async def put(add: Add) -> Path:
        archive = tmp_path / "artefacts/inputs/f1"
        archive.parent.mkdir(parents=True)
        with tarfile.open(archive, "w") as tar:
            add(tar)
        client: Any = None  # the file is there already, so nobody is asked for it
        return await local_path("file:f1", client, lease({}, str(tmp_path / "artefacts")), "student.model")

    return put


def add_file(tar: tarfile.TarFile, name: str, content: bytes = b"{}") -> None:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    tar.addfile(info, io.BytesIO(content))


def add_link(tar: tarfile.TarFile, kind: bytes) -> None:
    info = tarfile.TarInfo("model/config.json")
    info.type, info.linkname = kind, "/etc/hostname"
    tar.addfile(info)


async def test_the_folder_with_the_config_is_the_model(upload: Any) -> None:
    def add(tar: tarfile.TarFile) -> None:
        folder = tarfile.TarInfo("some/model")
        folder.type = tarfile.DIRTYPE
        tar.addfile(folder)
        add_file(tar, "some/model/config.json", b'{"a": 1}')
        add_file(tar, "some/model/weights", bytes(range(256)))

    model = await upload(add)
    assert (model / "config.json").read_bytes() == b'{"a": 1}'
    assert (model / "weights").read_bytes() == bytes(range(256))


@pytest.mark.parametrize("name", ["../config.json", "a/../../../config.json", "/tmp/tutelage-escaped/config.json"])
async def test_what_points_out_of_the_folder_is_refused(upload: Any, tmp_path: Path, name: str) -> None:
    with pytest.raises(InvalidInput, match="no plain file inside it") as refused:
        await upload(lambda tar: add_file(tar, name))
    assert refused.value.field == "student.model"
    assert not list(tmp_path.rglob("config.json"))
    assert not Path("/tmp/tutelage-escaped").exists()


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE], ids=["symlink", "link", "fifo"])
async def test_links_and_devices_are_refused_with_the_remedy(upload: Any, kind: bytes) -> None:
    with pytest.raises(InvalidInput, match="tar -h"):
        await upload(lambda tar: add_link(tar, kind))


async def test_an_archive_without_a_model_is_refused(upload: Any) -> None:
    with pytest.raises(InvalidInput, match=r"holds no config\.json"):
        await upload(lambda tar: add_file(tar, "README"))


async def test_a_file_that_is_no_archive_is_refused(tmp_path: Path) -> None:
    (tmp_path / "inputs").mkdir()
    (tmp_path / "inputs/f1").write_text("not a tar")
    client: Any = None
    with pytest.raises(InvalidInput, match="not a tar archive"):
        await local_path("file:f1", client, lease({}, str(tmp_path)), "student.model")


@pytest.mark.parametrize("mode", ["w:gz", "w:xz"])
async def test_a_compressed_archive_that_was_cut_off_is_said_to_be(tmp_path: Path, mode: Any) -> None:
    archive = tmp_path / "artefacts/inputs/f1"
    archive.parent.mkdir(parents=True)
    with tarfile.open(archive, mode) as tar:
        add_file(tar, "model/config.json")
        add_file(tar, "model/weights", random.Random(0).randbytes(100_000))
    whole = archive.read_bytes()
    archive.write_bytes(whole[: len(whole) // 2])
    nobody: Any = None
    with pytest.raises(InvalidInput, match="not a tar archive of a model: it is compressed, and damaged or cut off"):
        await local_path("file:f1", nobody, lease({}, str(tmp_path / "artefacts")), "student.model")

"""What a run's spec names, on this machine: a path as it is, a hub id, or an uploaded file that is fetched once."""

from __future__ import annotations

import asyncio
from pathlib import Path
from tarfile import TarError

from tutelage.places import hold_all
from tutelage_client.coordinator import CoordinatorClient
from tutelage_client.disk import unpack
from tutelage_client.errors import InvalidInput, ProblemResponse
from tutelage_client.spec import Model
from tutelage_client.wire import Lease


async def local_model(model: Model, coordinator: CoordinatorClient, lease: Lease, field: str) -> Path:
    """The folder of a model, or its hub id.

    Raises:
        InvalidInput: as `local_path`; or a hub id that is a folder here, which would be taken in its place.
    """
    if model.revision is None:
        return await local_path(model.model, coordinator, lease, field)
    if await asyncio.to_thread(Path(model.model).exists):
        sentence = f"{model.model!r} is a path where the trainer is, so that the hub would not be asked"
        raise InvalidInput(f"{field}: {sentence}; leave revision out, or start the trainer elsewhere", field)
    return Path(model.model)


async def local_path(value: str, coordinator: CoordinatorClient, lease: Lease, field: str) -> Path:
    """A path on this machine for a path or `file:ID`; a tar archive is unpacked to the folder that has config.json.

    Raises:
        InvalidInput: no such file, an archive that is not a model, or a path that the run may not name.
    """
    if not value.startswith("file:"):
        await asyncio.to_thread(hold_all, value, lease.places, field)
        return Path(value)
    path = Path(lease.artefacts) / "inputs" / value.removeprefix("file:")
    if not path.exists():
        try:
            await coordinator.download_file(value.removeprefix("file:"), path)
        except ProblemResponse as error:
            raise InvalidInput(f"{field}: {error.detail}", field) from error
    return await asyncio.to_thread(_unpacked, path, field) if field.endswith(".model") else path


def _unpacked(archive: Path, field: str) -> Path:
    folder = archive.with_name(archive.name + ".d")
    try:
        unpack(archive, folder)
    except (TarError, OSError) as error:
        sentence = f"the uploaded file is not a tar archive of a model: {error}; pack files and folders alone (tar -h)"
        raise InvalidInput(f"{field}: {sentence}", field) from error
    configs = sorted(folder.rglob("config.json"), key=lambda p: len(p.parts))
    if not configs:
        raise InvalidInput(f"{field}: the uploaded archive holds no config.json", field)
    return configs[0].parent

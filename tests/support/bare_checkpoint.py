"""The least that a coordinator takes for a whole checkpoint."""

from __future__ import annotations

from pathlib import Path


def bare_checkpoint(artefacts: str) -> str:
    """Below a run's artefacts, with a manifest of no files; its path."""
    folder = Path(artefacts) / "checkpoints" / "bare"
    folder.mkdir(parents=True)
    (folder / "manifest.json").write_text('{"files": {}}')
    return str(folder)

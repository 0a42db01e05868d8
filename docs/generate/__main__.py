"""`python -m docs.generate`: write docs/reference and docs/algorithms.md from the code, as `make docs` does."""

from __future__ import annotations

from pathlib import Path

from docs.generate.pages import pages

FOLDER = Path(__file__).parents[1]

if __name__ == "__main__":
    for name, text in pages().items():
        (FOLDER / name).write_text(text)

"""`python -m docs.generate`: write the reference, the page of methods and the boards, as `make docs` does."""

from __future__ import annotations

from pathlib import Path

from docs.generate.boards.files import boards
from docs.generate.pages import pages

ROOT = Path(__file__).parents[2]

if __name__ == "__main__":
    for name, text in ({f"docs/{name}": text for name, text in pages().items()} | boards()).items():
        (ROOT / name).write_text(text)

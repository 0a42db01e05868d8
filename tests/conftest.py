"""What several test folders share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from postgres import embedded_postgres


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """The URL of a PostgreSQL of this session's own."""
    with embedded_postgres() as url:
        yield url

"""Parameters that the lists share."""

from __future__ import annotations

from typing import Annotated

from fastapi import Header, Query

After = Annotated[str | None, Query(description="`next` of the page before")]
LIMIT = Query(ge=1, description="rows a page; a number above the longest page gives the longest")
Limit = Annotated[int, LIMIT]
IdempotencyKey = Annotated[str | None, Header(min_length=1, max_length=255)]
Actor = Annotated[str | None, Query(max_length=255, description="only what was done by this key: its id, or its name")]
Target = Annotated[str | None, Query(max_length=255, description="only what was done to this, such as a run's id")]

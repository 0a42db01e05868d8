"""Lists by keyset: a cursor is the key of the last row seen, so that rows added meanwhile neither shift nor repeat."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from pydantic import BaseModel
from sqlalchemy import Select, tuple_
from sqlalchemy.orm import InstrumentedAttribute, Session

from tutelage_client.errors import InvalidInput
from tutelage_client.wire import Page

Row = TypeVar("Row")
Item = TypeVar("Item", bound=BaseModel)
Key = InstrumentedAttribute[Any]

DEFAULT_LIMIT = 50
LONGEST = 200
LARGEST = 2**63 - 1


def page(
    session: Session,
    query: Select[Row],
    keys: Sequence[Key],
    view: Callable[[Row], Item],
    *,
    after: str | None,
    limit: int,
    longest: int = LONGEST,
    newest_first: bool = False,
) -> Page[Item]:
    """At most `limit` rows (and at most `longest`) behind the cursor `after`, in the order of `keys`.

    Raises:
        InvalidInput: not a cursor of this list.
    """
    size = min(limit, longest)
    if after is not None:
        edge = tuple_(*_read(after, keys))
        query = query.where(tuple_(*keys) < edge if newest_first else tuple_(*keys) > edge)
    query = query.order_by(*(key.desc() if newest_first else key.asc() for key in keys)).limit(size + 1)
    rows = session.scalars(query).all()
    cursor = "~".join(str(getattr(rows[size - 1], key.key)) for key in keys) if len(rows) > size else None
    return Page(data=[view(row) for row in rows[:size]], next=cursor)


def _read(cursor: str, keys: Sequence[Key]) -> list[Any]:
    parts = cursor.split("~", len(keys) - 1)
    try:
        return [_value(key, part) for key, part in zip(keys, parts, strict=True)]
    except ValueError as error:
        detail = f"after: {cursor!r} is not a cursor of this list; give the `next` of a page"
        raise InvalidInput(detail, "after") from error


def _value(key: Key, part: str) -> Any:
    value = key.type.python_type(part)
    if isinstance(value, int) and abs(value) > LARGEST:
        raise ValueError("a number beyond 64 bits is no row's")
    return value

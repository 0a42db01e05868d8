"""A run's metrics at every grain: buckets of 4, 16, 64, ... steps, each stored once the step behind it is there.

A bucket holds the number, the least, the mean and the largest of each metric's values over its steps, taken from four
of the next finer grain. So a run of any length is read at a given number of points from about that many rows, and a
report costs a third of a row more.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from itertools import groupby
from typing import Any, NamedTuple

from sqlalchemy import Delete, bindparam, delete, func, select
from sqlalchemy.orm import Session

from tutelage.coordinator.db import put
from tutelage.coordinator.tables import BucketRow, MetricRow
from tutelage_client.errors import InvalidInput
from tutelage_client.wire import GROWTH, MetricColumn, MetricSeries

Spread = list[float]  # count, least, mean, largest


class Bucket(NamedTuple):
    """first_step: a multiple of its width, or the one step that it is

    last_step: the newest that it has; last_at: when that was reported; spreads: by metric, of those that have a value
    """

    first_step: int
    last_step: int
    steps: int
    last_at: float
    spreads: Mapping[str, Spread]


class Grain(NamedTuple):
    """A run at one grain. width: steps that a bucket spans."""

    width: int
    buckets: list[Bucket]


def go_on(session: Session, run_id: str, step: int, epoch: int) -> None:
    """Store the buckets that end before this step, which was entered now; forget what older attempts made of it."""
    session.execute(_outlived(), {"run": run_id, "first": step, "newest": epoch})
    earlier = select(func.max(MetricRow.step)).where(MetricRow.run_id == run_id, MetricRow.step < step)
    before = session.scalar(earlier)
    width = GROWTH
    while before is not None and before // width != step // width:
        first = before // width * width
        bucket = _merged(width, _read(session, run_id, width // GROWTH, first, before))
        stored = {"last_step": bucket.last_step, "steps": bucket.steps, "created_at": bucket.last_at}
        keys = {"run_id": run_id, "width": width, "first_step": first}
        put(session, BucketRow, tuple(keys), **keys, **stored, epoch=epoch, metrics=dict(bucket.spreads))
        width *= GROWTH


@cache
def _outlived() -> Delete:
    """Made once. No session holds a row that it takes away."""
    where = BucketRow.run_id == bindparam("run"), BucketRow.last_step >= bindparam("first")
    outlived = delete(BucketRow).where(*where, BucketRow.epoch < bindparam("newest"))
    return outlived.execution_options(synchronize_session=False)


def grain(session: Session, run_id: str, most: int) -> Grain:
    """The finest grain at which the run has at most `most` buckets."""
    ends = select(func.min(MetricRow.step), func.max(MetricRow.step)).where(MetricRow.run_id == run_id)
    first, last = session.execute(ends).one()
    if last is None:
        return Grain(1, [])
    width = 1
    while last // width - first // width >= most:
        width *= GROWTH
    return Grain(width, _read(session, run_id, width, first, last))


def series(session: Session, run_id: str, most: int, names: Sequence[str]) -> MetricSeries:
    """The same for people, of these metrics or of all.

    Raises:
        InvalidInput: no step of the run has a metric of this name.
    """
    width, buckets = grain(session, run_id, most)
    known = _names(buckets)
    for name in names:
        if name not in known:
            has = f"it has {', '.join(sorted(known))}" if known else "it has none yet"
            raise InvalidInput(f"metric: no step of {run_id} has {name!r}; {has}", "metric")
    return MetricSeries(
        run_id=run_id,
        resolution=most,
        bucket_steps=width,
        first_step=[bucket.first_step for bucket in buckets],
        last_step=[bucket.last_step for bucket in buckets],
        steps=[bucket.steps for bucket in buckets],
        metrics={name: _column(name, buckets) for name in names or known},
    )


def _column(name: str, buckets: Sequence[Bucket]) -> MetricColumn:
    found = [bucket.spreads.get(name) for bucket in buckets]
    least, mean, most = ([None if each is None else each[at] for each in found] for at in (1, 2, 3))
    return MetricColumn(count=[0 if each is None else int(each[0]) for each in found], min=least, mean=mean, max=most)


def _read(session: Session, run_id: str, width: int, first: int, last: int) -> list[Bucket]:
    """The buckets with steps from `first` to `last`.

    What is not stored is made of finer ones: the newest, and what was reported before buckets were kept.
    """
    if width == 1:
        return _steps(session, run_id, first, last)
    within = BucketRow.first_step.between(first // width * width, last)
    query = select(BucketRow.first_step, BucketRow.last_step, BucketRow.steps, BucketRow.created_at, BucketRow.metrics)
    query = query.where(BucketRow.run_id == run_id, BucketRow.width == width, within).order_by(BucketRow.first_step)
    stored = [Bucket(*row) for row in session.execute(query)]
    begin = stored[0].first_step if stored else last + 1
    end = stored[-1].first_step + width if stored else last + 1
    older, newer = _finer(session, run_id, width, first, begin - 1), _finer(session, run_id, width, end, last)
    return [*older, *stored, *newer]


def _finer(session: Session, run_id: str, width: int, first: int, last: int) -> list[Bucket]:
    parts = _read(session, run_id, width // GROWTH, first, last) if first <= last else []
    return [_merged(width, list(each)) for _, each in groupby(parts, lambda part: part.first_step // width)]


def _steps(session: Session, run_id: str, first: int, last: int) -> list[Bucket]:
    query = select(MetricRow.step, MetricRow.created_at, MetricRow.metrics).order_by(MetricRow.step)
    rows = session.execute(query.where(MetricRow.run_id == run_id, MetricRow.step.between(first, last)))
    return [Bucket(step, step, 1, at, _alone(metrics)) for step, at, metrics in rows]


def _alone(metrics: Mapping[str, Any]) -> dict[str, Spread]:
    return {name: [1, value, value, value] for name, value in metrics.items() if value is not None}


def _merged(width: int, parts: Sequence[Bucket]) -> Bucket:
    spreads = {
        name: _together([part.spreads[name] for part in parts if name in part.spreads]) for name in _names(parts)
    }
    first, last = parts[0].first_step // width * width, parts[-1]
    return Bucket(first, last.last_step, sum(part.steps for part in parts), last.last_at, spreads)


def _together(spreads: Sequence[Spread]) -> Spread:
    """The mean stays between the least and the largest, and finite, however large they are."""
    count = sum(spread[0] for spread in spreads)
    mean = sum(spread[0] / count * spread[2] for spread in spreads)
    least, most = min(spread[1] for spread in spreads), max(spread[3] for spread in spreads)
    return [count, least, min(max(mean, least), most), most]


def _names(buckets: Iterable[Bucket]) -> dict[str, None]:
    """In the order of their first value."""
    return {name: None for bucket in buckets for name in bucket.spreads}

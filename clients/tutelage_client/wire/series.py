"""A run's metrics as columns over its steps, as many points as somebody wants to look at."""

from __future__ import annotations

from pydantic import Field

from tutelage_client.wire.message import Message

MOST_BUCKETS = 10_000
GROWTH = 4  # how many buckets of one width make one of the next


class MetricColumn(Message):
    """One metric, an entry a bucket; null where no step of the bucket has a value."""

    count: list[int] = Field(description="values that the bucket holds")
    min: list[float | None] = Field(description="the least of them")
    mean: list[float | None] = Field(description="their mean")
    max: list[float | None] = Field(description="the largest")


class MetricSeries(Message):
    """A run's metrics in buckets of equal width, counted from step 0. Nothing is sampled: each has all its values."""

    run_id: str = Field(description="whose")
    resolution: int = Field(description="the most buckets that were asked for")
    bucket_steps: int = Field(
        description="steps that a bucket spans: the least power of 4 that keeps to the resolution; 1: one step each"
    )
    first_step: list[int] = Field(description="where each bucket begins, a multiple of `bucket_steps`")
    last_step: list[int] = Field(description="the last step that each has; that of the newest bucket moves on")
    steps: list[int] = Field(description="how many steps it has")
    metrics: dict[str, MetricColumn] = Field(description="by name, those that were asked for, else all")

"""An engine call as a span: done for all requests that share it, so it links to them and is a child of none."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager

from tutelage.engines import Engine
from tutelage.teacher.queued import RewardRows, Waiting
from tutelage.tracing import Attributes, Span, is_recorded, span
from tutelage_client.wire import GenerateRequest, Usage


def of_batch(batch: Sequence[Waiting], engine: Engine) -> AbstractContextManager[Span]:
    """It is in the trace of its requests where they share one, as those of one run do; else in a trace of its own."""
    operation = _operation(batch[0])
    if not is_recorded():
        return span(operation, {})
    attributes = {"gen_ai.operation.name": operation, "gen_ai.request.model": engine.provenance.model}
    attributes |= {"opd.batch_tokens": sum(item.tokens for item in batch)}
    jobs = {item.job.id: item.job for item in batch if item.job is not None}
    links = list(dict.fromkeys(item.context for item in batch))
    if not jobs:
        return span(operation, attributes, links=links)
    queue = next(iter(jobs.values())).queue
    runs = {job.run_id for job in jobs.values()}
    attributes |= {
        "messaging.system": "redis",
        "messaging.destination.name": queue,
        "messaging.operation.name": "process",
        "messaging.operation.type": "process",
        "messaging.batch.message_count": len(jobs),
        "opd.teacher": queue,
    }
    if len(runs) == 1:
        attributes["opd.run_id"] = runs.pop()
    return span(f"process {queue}", attributes, "consumer", links=links)


def used(usage: Usage) -> Attributes:
    """What the call cost."""
    return {
        "gen_ai.usage.input_tokens": usage.forward_tokens + usage.cached_tokens,
        "gen_ai.usage.output_tokens": usage.generated_tokens,
        "opd.scored_tokens": usage.scored_tokens,
    }


def _operation(item: Waiting) -> str:
    if isinstance(item.work, GenerateRequest):
        return "text_completion"
    return "reward" if isinstance(item.work, RewardRows) else "score"

"""Work put into the queue, each piece as a span of its own, to which the span of whoever does it links."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from tutelage.queue.base import Job, Put, Queue
from tutelage.tracing import Attributes, Span, is_recorded, started
from tutelage_client.tracing import received


async def put(queue: Queue, jobs: Sequence[Job], told: Iterable[Attributes] = ()) -> list[Put]:
    """As `Queue.put`. told: of each job, for its span, which ends if the job comes in and is forgotten otherwise"""
    spans = [_producing(job, also) for job, also in zip(jobs, told, strict=True)] if is_recorded() else []
    results = await queue.put(jobs)
    for span, result in zip(spans, results, strict=bool(spans)):
        if result is Put.ADDED:
            span.end()
    return results


def _producing(job: Job, also: Attributes) -> Span:
    attributes = {
        "messaging.system": "redis",  # the conventions have no value for it
        "messaging.destination.name": job.queue,
        "messaging.operation.name": "send",
        "messaging.operation.type": "send",
        "messaging.message.id": job.id,
        "opd.tokens": job.tokens,
    }
    own = received(job.traceparent, job.tracestate)
    return started(f"send {job.queue}", attributes | dict(also), "producer", own=own)

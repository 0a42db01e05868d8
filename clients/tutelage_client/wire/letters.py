"""Dead letters: questions about a run's rollouts that a teacher gave up, with what came of each delivery."""

from __future__ import annotations

from datetime import datetime

from pydantic import Field

from tutelage_client.wire.message import Message


class FailedDelivery(Message):
    """How one delivery of a question ended without an answer."""

    worker: str = Field(description="the process that had it")
    reason: str = Field(description="what came of it")
    at: datetime = Field(description="when it ended, by the queue's clock")


class DeadLetterView(Message):
    """A question that was given up. It can be put back to work or forgotten, once."""

    job_id: str = Field(description="of the question")
    teacher: str = Field(description="the one that was asked; of a text that samplers NAME were to write, sampler/NAME")
    attempts: int = Field(description="deliveries since it was put to the queue")
    reason: str = Field(description="why it was given up")
    history: list[FailedDelivery] = Field(description="its deliveries, in order")

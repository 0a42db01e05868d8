"""What a caller has spent at a teacher, and may spend."""

from __future__ import annotations

from pydantic import Field

from tutelage_client.wire.message import Message

RUN_HEADER = "Tutelage-Run"  # names the run that an HTTP request is for, and that pays for it too


class Spending(Message):
    """The account of whoever asks. What is under way counts at the most that it can come to."""

    account: str = Field(description="who pays")
    tokens: int = Field(description="forward plus generated tokens so far")
    usd: float = Field(description="dollars so far, by the teacher's prices")
    budget_tokens: int | None = Field(default=None, description="the most tokens, ever; absent without a limit")
    budget_usd: float | None = Field(default=None, description="the most dollars, ever; absent without a limit")

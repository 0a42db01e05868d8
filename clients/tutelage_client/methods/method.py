"""One named method of the literature, as data."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, computed_field, model_validator

from tutelage_client.wire.message import Message

# The places of the survey arXiv:2604.00626, version 2 and later: by its three axes.
Section = Literal[
    "baseline",
    "4.1 fixed divergence",
    "4.2 adaptive divergence",
    "4.3 RL-augmented",
    "5.1 white-box teacher",
    "5.2 black-box teacher",
    "5.3.1 privileged self-distillation",
    "5.3.2 self-play",
    "5.3.3 external feedback",
    "6.1 weighting",
    "6.2 curriculum and dynamics",
    "6.3 compute",
    "8 systems",
    "not placed",
]
Need = Literal["nothing", "text", "sampled", "candidates", "top_k", "entropy", "full", "hidden"]
Status = Literal["built", "missing", "out of scope"]


class Method(Message):
    """A method: what it minimises, what it asks, where it stands, and how a spec composes it."""

    name: str = Field(pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$", description="as a preset names it")
    title: str = Field(min_length=1, description="as its paper or its readers call it")
    year: Annotated[int, Field(ge=2014, le=2100)] | None = Field(
        default=None, description="of the first version; absent for what was practice before it was named"
    )
    arxiv: Annotated[str, Field(pattern=r"^\d{4}\.\d{5}$")] | None = Field(
        default=None, description="id; absent where there is no paper, or where it was not looked up"
    )
    page: Annotated[str, Field(pattern=r"^https://\S+$")] | None = Field(
        default=None, description="address of what is not on arXiv"
    )
    formula: str = Field(min_length=1, description="the loss, reward or rule in one line; symbols as in the docs")
    section: Section = Field(description="place in the survey from version 2 on: its primary class")
    feedback: Literal["logit", "outcome", "self_play"] = Field(description="place in version 1: the feedback")
    access: Literal["white_box", "black_box", "none"] = Field(description="place in version 1: access to a teacher")
    granularity: Literal["token", "sequence", "hybrid"] = Field(description="place in version 1: the grain of credit")
    needs: tuple[Need, ...] = Field(min_length=1, description="what the teacher must return")
    on_policy: Literal["strict", "partial", "adjacent"] = Field(
        description="strict: every update on samples of the current student; partial: some; adjacent: none as published"
    )
    evidence: Literal["primary", "second_hand", "unchecked"] = Field(
        description="what formula and defaults rest on: paper or released code, others' summaries, or background"
    )
    defaults: str | None = Field(
        default=None,
        description="published settings and whose they are, or that there are none; always of what is built",
    )
    failures: str | None = Field(
        default=None, description="known failure modes and whose word they are, or that none are known; likewise"
    )
    composition: dict[str, Any] | None = Field(
        default=None, description="the keys of a spec that are this method: objective, rollout, stabilizers"
    )
    differs: str | None = Field(default=None, description="what the composition leaves out of the paper")
    missing: str | None = Field(default=None, description="which choice is not built")
    out_of_scope: str | None = Field(default=None, description="why it is no run of this project")

    @model_validator(mode="after")
    def _check(self) -> Self:
        if [self.composition, self.missing, self.out_of_scope].count(None) != 2:
            raise ValueError("give one of composition, missing and out_of_scope")
        if self.differs is not None and self.composition is None:
            raise ValueError("differs goes with a composition")
        if self.composition is not None and None in (self.defaults, self.failures):
            raise ValueError("what is built has defaults and failures; where none are published, say so")
        return self

    @computed_field
    @property
    def status(self) -> Status:
        """Whether a spec can ask for it today."""
        return "built" if self.composition is not None else "missing" if self.missing is not None else "out of scope"

    @computed_field
    @property
    def paper(self) -> str | None:
        """Address of its source."""
        return f"https://arxiv.org/abs/{self.arxiv}" if self.arxiv else self.page

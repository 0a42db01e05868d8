"""For what a written token answers in a policy gradient."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from tutelage_client.spec.ranges import Count
from tutelage_client.wire.message import ByKind, Message

Discount = Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)]
Floor = Annotated[float, Field(lt=0, allow_inf_nan=False)]
FLOOR = "no token's own advantage counts for less than this many nats; no floor if absent"


class TokenCredit(Message):
    """Each token for itself."""

    kind: Literal["token"] = "token"
    floor: Floor | None = Field(default=None, description=FLOOR)


class ReturnToGo(Message):
    """Each token for itself and for all that follow it in the rollout."""

    kind: Literal["return_to_go"] = "return_to_go"
    discount: Discount = Field(default=1.0, description="what the next token counts, compared with this one")
    length_normalised: bool = Field(default=False, description="the mean over the tokens instead of their sum")
    own: bool = Field(
        default=True, description="false: what follows alone, beside a term that has the token's own part"
    )
    floor: Floor | None = Field(default=None, description=FLOOR)


class KStepReturn(Message):
    """Each token for itself and for those that follow it, `steps` in all."""

    kind: Literal["k_step_return"] = "k_step_return"
    steps: Count = Field(default=8, description="tokens, this one included")
    discount: Discount = Field(default=1.0, description="what the next token counts, compared with this one")
    length_normalised: bool = Field(default=False, description="the mean over the tokens instead of their sum")
    floor: Floor | None = Field(default=None, description=FLOOR)


class ControlVariate(Message):
    """Each token for itself, less what the student does on average there: KL(p || q) is added (vOPD).

    It takes variance and changes no gradient in expectation. It needs the teacher's hidden states.
    """

    kind: Literal["control_variate"] = "control_variate"


Credit = Annotated[TokenCredit | ControlVariate | ReturnToGo | KStepReturn, ByKind()]

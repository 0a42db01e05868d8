"""Numbers of a spec with their bounds."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

Unit = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Decay = Annotated[float, Field(ge=0, lt=1)]
Count = Annotated[int, Field(ge=1)]
TopK = Annotated[int, Field(ge=1, le=4096)]

"""The output head as data, so that logits can be computed elsewhere from hidden states, and the proof that they agree.

Shapes: R rows, V vocabulary, H hidden size.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn


@dataclass(frozen=True, slots=True)
class Head:
    """logits = softcap * tanh(scale * (hidden @ weight.T + bias) / softcap), see `base.Engine.head`."""

    weight: Tensor
    bias: Tensor | None = None
    scale: float | None = None
    softcap: float | None = None

    def logits(self, hidden_RH: Tensor) -> Tensor:
        """Float32 logits [R, V]; the product is taken in the weights' own precision, as the model does."""
        logits_RV = nn.functional.linear(hidden_RH, self.weight, self.bias).float()
        if self.scale is not None:
            logits_RV *= self.scale
        if self.softcap is not None:
            logits_RV = logits_RV.div_(self.softcap).tanh_().mul_(self.softcap)
        return logits_RV

    def arrays(self) -> dict[str, NDArray[Any]]:
        """The parts that this model has, float32."""
        parts = {"weight": self.weight, "bias": self.bias, "scale": self.scale, "softcap": self.softcap}
        present = {name: torch.as_tensor(part) for name, part in parts.items() if part is not None}
        return {name: np.atleast_1d(part.detach().float().cpu().numpy()) for name, part in present.items()}


def proven_head(model: Any) -> Head | None:
    """The model's head if logits rebuilt from it are the model's own on a probe; None if they are not.

    What a config calls its scale or soft-cap differs between families, and a model may do more after its head than any
    list of names covers. Hence the comparison.
    """
    layer = model.get_output_embeddings()
    if not isinstance(layer, nn.Linear) or model.base_model is model:
        return None
    head = _from_config(layer, model.config.get_text_config(decoder=True))
    probe = torch.arange(1, 13, device=layer.weight.device)[None] % layer.weight.shape[0]
    with torch.inference_mode():
        own_RV = model(input_ids=probe, use_cache=False).logits[0].float()
        hidden_RH = model.base_model(input_ids=probe, use_cache=False).last_hidden_state[0]
        if hidden_RH.shape[-1] != layer.weight.shape[1]:
            return None
        rebuilt_RV = head.logits(hidden_RH)
    tolerance = 1e-4 if layer.weight.dtype == torch.float32 else 2e-2
    agree = own_RV.shape == rebuilt_RV.shape and torch.allclose(own_RV, rebuilt_RV, atol=tolerance, rtol=tolerance)
    return head if agree else None


def _from_config(layer: nn.Linear, config: Any) -> Head:
    """`logit_scale` multiplies, `logits_scaling` divides, `lm_head_multiplier` multiplies."""
    scale = getattr(config, "logit_scale", None) or getattr(config, "lm_head_multiplier", None)
    divisor = getattr(config, "logits_scaling", None)
    if divisor:
        scale = 1.0 / divisor
    return Head(layer.weight, layer.bias, scale, getattr(config, "final_logit_softcapping", None))

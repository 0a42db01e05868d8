"""The vector functions that torch takes from MKL on a CPU, settled before several threads call them.

MKL chooses a function's kernel at the first call of a process. Where that call comes from several threads at once, as
torch makes it for large tensors, one of them may compute its part at low precision, some 1e-4 off, that one time
(torch's issue 188792).
"""

from __future__ import annotations

import torch

FUNCTIONS = (
    torch.acos, torch.asin, torch.atan, torch.cos, torch.erf, torch.erfc, torch.erfinv, torch.exp, torch.expm1,
    torch.lgamma, torch.log, torch.log10, torch.log1p, torch.log2, torch.sin, torch.sqrt, torch.tan, torch.tanh,
)  # fmt: skip


def settle() -> None:
    """Call each function once on a few numbers, which a single thread does. Again changes nothing."""
    for dtype in (torch.float32, torch.float64):
        numbers = torch.full((16,), 0.5, dtype=dtype)
        for function in FUNCTIONS:
            function(numbers)

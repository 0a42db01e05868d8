"""Makes recorded.safetensors beside this file: what student, teacher and reference say of 24 tokens of four rollouts.

    python tests/support/references/record.py

The seed is fixed; the file is committed so that every machine computes on the same numbers.
"""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import save_file

RECORDED = Path(__file__).with_name("recorded.safetensors")
ROWS, VOCABULARY, ROLLOUTS, SEED = 24, 64, 4, 20_261_124


def main() -> None:
    draw = torch.Generator().manual_seed(SEED)
    student_RV = 2.5 * torch.randn(ROWS, VOCABULARY, generator=draw)
    teacher_RV, reference_RV = (
        student_RV + scale * torch.randn(ROWS, VOCABULARY, generator=draw) for scale in (2.5, 0.8)
    )
    token_ids_R = torch.multinomial(student_RV.softmax(-1), 1, generator=draw).squeeze(-1)
    token_ids_R[5] = 1  # special, so that a mask of special tokens has something to mask
    teacher_RV[7, token_ids_R[7]] -= 15  # beyond a clip of 6 nats
    behaviour_R = student_RV.log_softmax(-1).gather(-1, token_ids_R[:, None]).squeeze(-1)
    behaviour_R = behaviour_R + torch.randn(ROWS, generator=draw)
    behaviour_R[9] -= 3  # a ratio beyond 5
    mask_R = torch.ones(ROWS, dtype=torch.bool)
    mask_R[[3, 16]] = False
    named = {
        "student_logits": student_RV,
        "teacher_logits": teacher_RV,
        "reference_logits": reference_RV,
        "token_ids": token_ids_R,
        "behaviour_logprob": behaviour_R,
        "mask": mask_R,
        "rollout": torch.arange(ROWS) // (ROWS // ROLLOUTS),
    }
    save_file(named, RECORDED)


if __name__ == "__main__":
    main()

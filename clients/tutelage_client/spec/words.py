"""Parts of a run's spec in a few words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def objective(of: Mapping[str, Any]) -> str | None:
    """What is learned, such as: divergence, reverse_kl, full support."""
    if terms := of.get("terms"):
        return "sum of " + " + ".join(f"{term['weight']:g} x {objective(term['objective'])}" for term in terms)
    support = of.get("support") or {}
    parts = [of.get("kind"), of.get("divergence")]
    parts += [f"{support['kind']} support" if support else None, f"k {support['k']}" if "k" in support else None]
    return ", ".join(str(part) for part in parts if part) or None


def rollout(of: Mapping[str, Any]) -> str | None:
    """Whose text is learned from, and how much of it."""
    if not of:
        return None
    prompts, samples = of.get("prompts_per_step"), of.get("samples_per_prompt")
    size = f"{prompts} prompts x {samples} a step, up to {of.get('max_new_tokens')} tokens"
    return f"{of.get('source')} text, {size}"

"""Rewards for completions: what `/v1/reward` serves and evaluation counts."""

"""Processes for what cannot be trusted to end or to behave: algebra on a model's answers, and a model's code.

Nothing here imports more than the standard library while it starts, so that a process is there within a moment.
"""

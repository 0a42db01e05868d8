"""Processes for what cannot be trusted to end or to behave: algebra and searches on a model's answers, and its code.

Nothing here imports more than the standard library while it starts, so that a process is there within a moment.
"""

"""Answers that are given again: equal questions to an unchanged teacher are asked of the model once."""

from tutelage.teacher.cache.disk import DiskStore
from tutelage.teacher.cache.memory import MemoryStore
from tutelage.teacher.cache.scores import ScoreCache

__all__ = ["DiskStore", "MemoryStore", "ScoreCache"]

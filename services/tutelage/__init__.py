"""The services of Tutelage: teacher, trainer, coordinator and the stack that runs them on one machine."""

__version__ = "0.1.0"

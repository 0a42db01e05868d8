"""One teacher behind several upstreams that serve the same model."""

from tutelage.engines.replicas.engine import ReplicatedEngine
from tutelage.engines.replicas.replica import Event, Replica

__all__ = ["Event", "Replica", "ReplicatedEngine"]

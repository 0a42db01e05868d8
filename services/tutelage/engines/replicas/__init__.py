"""One teacher behind several upstreams that serve the same model."""

from tutelage.engines.replicas.engine import ReplicatedEngine
from tutelage.engines.replicas.replica import Replica

__all__ = ["Replica", "ReplicatedEngine"]

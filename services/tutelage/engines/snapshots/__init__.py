"""Students as they are published while they learn, and the models that are put where the newest snapshot is."""

from tutelage.engines.snapshots.current import Current, Ended
from tutelage.engines.snapshots.files import Base, Snapshot, SnapshotGone, SnapshotRefused, publish, read

__all__ = ["Base", "Current", "Ended", "Snapshot", "SnapshotGone", "SnapshotRefused", "publish", "read"]

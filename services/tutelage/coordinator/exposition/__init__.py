"""What Prometheus finds at the coordinator's /metrics: the process itself, the runs that go on, teachers and queues."""

from tutelage.coordinator.exposition.families import FLEET, RUNS, Family
from tutelage.coordinator.exposition.scraping import Scraping

__all__ = ["FLEET", "RUNS", "Family", "Scraping"]

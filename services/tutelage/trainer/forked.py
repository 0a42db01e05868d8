"""What a fork takes over from the checkpoint of the other run, beyond weights, moments and step.

What the loss and the schedules depend on goes on where the settings that it follows from are the same. Totals, the
fates of rollouts and the cursor of pushed ones are this run's own: what was under way there is learned from there.
"""

from __future__ import annotations

from collections.abc import Mapping

from tutelage.trainer.ledger import Ledger
from tutelage.trainer.origin import Origin
from tutelage_client.spec import touches
from tutelage_client.wire import ForkPoint, Provenance

OBJECTIVE = ("objective",)
SCHEDULE = ("rollout.source", "rollout.adaptive")

# The settings without which a part of the origin must be what it was. `student.model` holds the weights of a reference
# that is the student as it was at the start, too.
FOLLOWS = {
    "student.model": ("objective", "stabilizers", "reference"),
    "reference.model": ("objective", "stabilizers", "reference"),
    "data.train": ("data.train",),
    "data.eval": ("data.eval",),
}


def carried(ledger: Ledger, point: ForkPoint) -> Ledger:
    """The ledger that the fork begins with."""
    own = Ledger()
    if not touches(point.changed, *OBJECTIVE):
        own.first_gaps, own.clock = ledger.first_gaps, ledger.clock
    if not touches(point.changed, *SCHEDULE):
        own.share = ledger.share
    return own


def keeps_older_text(point: ForkPoint) -> bool:
    """Whether the buffer of an adaptive source goes on."""
    return not touches(point.changed, *SCHEDULE)


def held(origin: Origin, point: ForkPoint) -> Origin:
    """Of what this attempt found, that which must be what the other run began with."""
    same = {
        name: sha256
        for name, sha256 in origin.parts.items()
        if name in FOLLOWS and not touches(point.changed, *FOLLOWS[name])
    }
    return Origin(same, origin.versions)


def replaced(began: Mapping[str, Provenance], found: Mapping[str, Provenance]) -> list[str]:
    """The teachers of both runs that are not what they were, by name."""
    return sorted(name for name, who in found.items() if name in began and began[name] != who)

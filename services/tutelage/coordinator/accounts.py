"""What the runs of a key may cost in all: reserved at its most when one is submitted, settled when it has ended.

While a run goes on its trainer holds it to the budget in its spec, so the account need not be looked at meanwhile.
"""

from __future__ import annotations

from typing import NamedTuple

from sqlalchemy import case, func, select
from sqlalchemy.orm import Session

from tutelage.coordinator.tables import KeyRow, RunRow
from tutelage.serving import ServiceProblem
from tutelage_client.spec import RunSpec


class Account(NamedTuple):
    """Of one key. spent: by runs that have ended; reserved: the most that those which go on may spend"""

    spent_tokens: int
    reserved_tokens: int
    spent_usd: float
    reserved_usd: float


def account(session: Session, key_id: str) -> Account:
    """What the runs cost that were submitted with this key."""
    has_ended = RunRow.ended_at.is_not(None)
    sums = [
        func.coalesce(func.sum(case((which, charged), else_=0)), 0)
        for charged in (RunRow.charged_tokens, RunRow.charged_usd)
        for which in (has_ended, ~has_ended)
    ]
    row = session.execute(select(*sums).where(RunRow.submitted_by == key_id)).one()
    spent, reserved, spent_usd, reserved_usd = tuple(row)
    return Account(int(spent), int(reserved), float(spent_usd), float(reserved_usd))


def within(session: Session, key_id: str | None, spec: RunSpec) -> RunSpec:
    """The spec with the budget that its run has on this account: its own, or where it sets none all that is left.

    Raises:
        ServiceProblem: 402 `budget_spent`: the key has not that much left.
    """
    key = None if key_id is None else session.get(KeyRow, key_id, with_for_update=True)  # one submission at a time
    if key is None or not spec.teachers:
        return spec
    held = account(session, key.id)
    units = (
        ("teacher_tokens", key.budget_tokens, held.spent_tokens, held.reserved_tokens),
        ("teacher_usd", key.budget_usd, held.spent_usd, held.reserved_usd),
    )
    limits = {
        unit: _limit(key, unit, most, spent, reserved, getattr(spec.budget, unit))
        for unit, most, spent, reserved in units
        if most is not None
    }
    return spec.model_copy(update={"budget": spec.budget.model_copy(update=limits)})


def _limit(key: KeyRow, unit: str, most: float, spent: float, reserved: float, wanted: float | None) -> float:
    """What the run may spend of one unit, in tokens or dollars."""
    left = most - spent - reserved
    if left > 0 and (wanted is None or wanted <= left):
        return left if wanted is None else wanted
    asked = "" if wanted is None else f", and this one may take {_plain(wanted)}"
    detail = (
        f"the key {key.id} ({key.name}) may spend {_plain(most)} in all; its runs have spent {_plain(spent)} and "
        f"reserved {_plain(reserved)}{asked}: set a lower budget.{unit}, wait until a run has ended, or use another key"
    )
    raise ServiceProblem(402, "budget_spent", f"budget.{unit}: {detail}", field=f"budget.{unit}")


def _plain(amount: float) -> str:
    return f"{amount:.6f}".rstrip("0").rstrip(".")


def reserved(spec: RunSpec) -> dict[str, float]:
    """What a run begins with on the account, as columns of its row."""
    return {"charged_tokens": spec.budget.teacher_tokens or 0, "charged_usd": spec.budget.teacher_usd or 0.0}


def settle(run: RunRow) -> None:
    """A run has ended: what it has spent takes the place of what it might have."""
    run.charged_tokens, run.charged_usd = run.teacher_tokens, run.metrics.get("teacher_usd", 0.0)

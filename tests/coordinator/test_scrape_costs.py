"""What a scrape costs: as many statements for many runs as for one, and no table read whole."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import httpx2
from exposed import ROW, report, scraped
from sqlalchemy import text

from tutelage.coordinator import leases, reports, runs
from tutelage.coordinator.db import Database
from tutelage.coordinator.settings import Settings

Spec = Callable[..., dict[str, Any]]


async def test_a_scrape_asks_as_much_of_many_runs_as_of_one(
    http: httpx2.AsyncClient,
    database: Database,
    settings: Settings,
    spec: Spec,
    statements: Callable[[], list[str]],
) -> None:
    counts = []
    for more, begun in ((1, 1), (30, 31)):
        with database.write() as session:
            for _ in range(more):
                runs.submit(session, spec(), None)
                lease = leases.claim(session, settings, "w")
                assert lease is not None
                for step in range(3):
                    reports.step(session, lease.run_id, report(1, step, ROW))
        heard = statements()
        told = await scraped(http)
        assert sum(name == "tutelage_train_loss" for name, _ in told.values) == begun
        counts.append([each for each in heard if each.lstrip().startswith("SELECT")])
    assert len(counts[0]) == len(counts[1]) == 3


STEPS = "WITH RECURSIVE n(step) AS (SELECT 1 UNION ALL SELECT step + 1 FROM n WHERE step < 20000)"
MANY = (
    "INSERT INTO metrics (run_id, step, epoch, metrics, student_tokens, teacher_tokens, created_at) "
    f"{STEPS} SELECT id, n.step, 1, '{{}}', 1, 1, 1.0 FROM runs, n",
    "INSERT INTO checkpoints (run_id, step, epoch, path, weights_sha256, created_at) "
    f"{STEPS} SELECT id, n.step, 1, 'p', 'w', 1.0 FROM runs, n",
)
WHOLE = re.compile(r"Seq Scan on (metrics|checkpoints)|SCAN (?!.*INDEX)")  # in the words of either database


async def test_a_scrape_finds_what_it_reads_by_an_index(
    http: httpx2.AsyncClient, database: Database, statements: Callable[[], list[str]], spec: Spec
) -> None:
    """SQLite plans by its indexes alone; PostgreSQL reads small tables whole, so these are large."""
    is_sqlite = database.engine.dialect.name == "sqlite"
    with database.write() as session:
        run_id = runs.submit(session, spec(), None)[0].id
        for each in MANY:
            session.execute(text(each))
    if not is_sqlite:
        with database.write() as session:
            session.execute(text("ANALYZE"))
    heard = statements()
    assert (await scraped(http)).value("tutelage_run_step", run_id=run_id) == 0
    explain = "EXPLAIN QUERY PLAN" if is_sqlite else "EXPLAIN"
    told = [each for each in heard if "FROM runs" in each]
    assert len(told) == 2
    with database.read() as session:
        for each in (*told, "SELECT * FROM metrics WHERE epoch = 7"):
            plan = "\n".join(str(step[-1]) for step in session.execute(text(f"{explain} {each}")))
            assert bool(WHOLE.search(plan)) == (each not in told), plan

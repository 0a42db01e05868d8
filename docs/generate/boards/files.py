"""Every board by its path below the repository, as it is mounted for Grafana."""

from __future__ import annotations

import json

from docs.generate.boards.control_plane import CONTROL_PLANE
from docs.generate.boards.grafana import dashboard
from docs.generate.boards.queue import QUEUE
from docs.generate.boards.runs import RUNS
from docs.generate.boards.teachers import TEACHERS

FOLDER = "k8s/components/monitoring/boards"
BOARDS = (RUNS, QUEUE, TEACHERS, CONTROL_PLANE)


def boards() -> dict[str, str]:
    return {
        f"{FOLDER}/{board.name}.json": json.dumps(dashboard(board), indent=1, ensure_ascii=False) + "\n"
        for board in BOARDS
    }

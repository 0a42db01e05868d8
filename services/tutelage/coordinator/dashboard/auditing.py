"""The audit as a page: who did what, with a form that asks for less of it."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import urlencode

from fastapi import APIRouter, Query
from fastapi.responses import HTMLResponse

from tutelage.coordinator import audit
from tutelage.coordinator.callers import CallerOf
from tutelage.coordinator.dashboard.rendering import Show, no_such
from tutelage.coordinator.db import Database
from tutelage.coordinator.routes.params import After
from tutelage_client.errors import InvalidInput
from tutelage_client.wire import Action

ENTRIES_A_PAGE = 50
Asked = Annotated[str, Query(max_length=255)]  # empty, as a form sends what was left empty: any


def add_audit(api: APIRouter, database: Database, show: Show) -> None:
    @api.get("/audit")
    def audit_page(
        caller: CallerOf, after: After = None, actor: Asked = "", action: Asked = "", target: Asked = ""
    ) -> HTMLResponse:
        asked = {"actor": actor, "action": action, "target": target}
        wanted = {name: value for name, value in asked.items() if value}
        with database.read() as session:
            try:
                found = audit.entries(session, caller, wanted, after, ENTRIES_A_PAGE)
            except InvalidInput as error:
                return no_such(show, "page of the audit", error)
        newest = urlencode(wanted) if after else None
        older = urlencode(wanted | {"after": found.next}) if found.next else None
        shown = {"entries": found.data, "asked": asked, "some": bool(wanted), "newest": newest, "older": older}
        return show("audit.html", here="audit", actions=Action, **shown)

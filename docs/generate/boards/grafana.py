"""A board as the JSON that Grafana reads, of schema 39, which is Grafana 10.3 and newer."""

from __future__ import annotations

from collections.abc import Iterator
from string import ascii_uppercase
from typing import Any

from docs.generate.boards.model import Board, Limit, Panel, Row, Variable

Json = dict[str, Any]
WIDTH = 24
HEIGHT = 8
PER_LINE = 4
SOURCE: Json = {"type": "prometheus", "uid": "${datasource}"}
KINDS = {"lines": "timeseries", "numbers": "stat", "states": "state-timeline", "table": "table"}


def dashboard(board: Board) -> Json:
    return {
        "uid": f"tutelage-{board.name}",
        "title": board.title,
        "description": board.says,
        "tags": ["tutelage"],
        "schemaVersion": 39,
        "editable": False,
        "graphTooltip": 1,  # one crosshair for all panels
        "refresh": "30s",
        "time": {"from": "now-6h", "to": "now"},
        "timezone": "",
        "links": [{"type": "dashboards", "title": "Tutelage", "tags": ["tutelage"], "keepTime": True}],
        "annotations": {"list": []},
        "templating": {"list": [_source(), *map(_variable, board.variables)]},
        "panels": list(_laid_out(board.rows)),
    }


def _source() -> Json:
    return {"name": "datasource", "label": "Prometheus", "type": "datasource", "query": "prometheus"}


def _variable(variable: Variable) -> Json:
    asked = f"label_values({variable.of}, {variable.name})"
    return {
        "name": variable.name,
        "label": variable.title,
        "type": "query",
        "datasource": SOURCE,
        "definition": asked,
        "query": {"query": asked, "refId": variable.name},
        "refresh": 2,  # when the time range changes, as series come and go
        "sort": 1,
        "multi": True,
        "includeAll": True,
        "allValue": ".+",
        "current": {"text": ["All"], "value": ["$__all"]},
    }


def _laid_out(rows: tuple[Row, ...]) -> Iterator[Json]:
    """Row by row from the top, the panels of each side by side, in as many lines as they take."""
    number, top = 1, 0
    for row in rows:
        at = {"x": 0, "y": top, "w": WIDTH, "h": 1}
        yield {"id": number, "type": "row", "title": row.title, "collapsed": False, "gridPos": at, "panels": []}
        number, top = number + 1, top + 1
        for start in range(0, len(row.panels), PER_LINE):
            line = row.panels[start : start + PER_LINE]
            wide = WIDTH // len(line)
            for place, panel in enumerate(line):
                at = {"x": place * wide, "y": top, "w": wide, "h": HEIGHT}
                yield {"id": number, "gridPos": at} | _panel(panel)
                number += 1
            top += HEIGHT


def _panel(panel: Panel) -> Json:
    defaults: Json = {"unit": panel.unit, "color": {"mode": "palette-classic"}, "thresholds": _thresholds(panel.limits)}
    ends = {"min": panel.least, "max": panel.most}
    defaults |= {name: value for name, value in ends.items() if value is not None}
    if panel.words is not None:
        defaults["mappings"] = [_mapping(panel.words)]
        defaults["color"] = {"mode": "thresholds"}
    options, custom = _looks(panel)
    return {
        "type": KINDS[panel.kind],
        "title": panel.title,
        "description": panel.says,
        "datasource": SOURCE,
        "fieldConfig": {"defaults": defaults | {"custom": custom}, "overrides": list(_columns(panel))},
        "options": options,
        "targets": list(_targets(panel)),
        "transformations": list(_merged(panel)),
    }


def _thresholds(limits: tuple[Limit, ...]) -> Json:
    first = "red" if limits and limits[-1].colour == "green" else "green"
    steps = [{"color": first, "value": None}, *({"color": each.colour, "value": each.value} for each in limits)]
    return {"mode": "absolute", "steps": steps}


def _mapping(words: tuple[str, str]) -> Json:
    return {"type": "value", "options": {str(value): {"text": word} for value, word in enumerate(words)}}


def _looks(panel: Panel) -> tuple[Json, Json]:
    """The options of the panel, and those of its fields."""
    below = {"displayMode": "list", "placement": "bottom", "showLegend": True}
    match panel.kind:
        case "lines":
            custom: Json = {"fillOpacity": 30 if panel.stacked else 8, "showPoints": "never", "lineWidth": 1}
            custom["stacking"] = {"mode": "normal" if panel.stacked else "none"}
            custom["thresholdsStyle"] = {"mode": "line" if panel.limits else "off"}
            return {"legend": below, "tooltip": {"mode": "multi", "sort": "desc"}}, custom
        case "numbers":
            reduced = {"calcs": ["lastNotNull"], "fields": "", "values": False}
            colour = "background" if panel.limits else "none"
            return {"reduceOptions": reduced, "colorMode": colour, "graphMode": "none", "textMode": "auto"}, {}
        case "states":
            return {"legend": below | {"showLegend": False}, "mergeValues": True, "showValue": "never"}, {
                "fillOpacity": 70,
                "lineWidth": 0,
            }
        case "table":
            return {"showHeader": True, "cellHeight": "sm"}, {"align": "auto"}


def _targets(panel: Panel) -> Iterator[Json]:
    for name, query in zip(ascii_uppercase, panel.queries, strict=False):
        target: Json = {"refId": name, "datasource": SOURCE, "expr": query.expr, "legendFormat": query.legend}
        if panel.kind == "table":
            target |= {"format": "table", "instant": True, "range": False}
        yield target


def _merged(panel: Panel) -> Iterator[Json]:
    """Of a table: its queries side by side, by the labels that they share."""
    if panel.kind == "table":
        names = {f"Value #{name}": query.legend for name, query in zip(ascii_uppercase, panel.queries, strict=False)}
        yield {"id": "merge", "options": {}}
        yield {"id": "organize", "options": {"excludeByName": {"Time": True}, "renameByName": names}}


def _columns(panel: Panel) -> Iterator[Json]:
    for column, unit in panel.units:
        yield {"matcher": {"id": "byName", "options": column}, "properties": [{"id": "unit", "value": unit}]}

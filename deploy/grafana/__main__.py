"""Generates `dashboards/` from `boards/`: `python -m deploy.grafana [--check]`.

A board is written once for all backends, and a dashboard is for one set of backends. With `--check` nothing is written,
and the exit status is 1 when a dashboard differs from its board.
"""

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import yaml

FOLDER: Final = Path(__file__).parent
BOARDS: Final = FOLDER / "boards"
DASHBOARDS: Final = FOLDER / "dashboards"

SETS: Final = {
    "grafana": ("prometheus", "loki", "tempo"),
    "victoria": ("prometheus", "victoria-logs", "victoria-traces"),
}
"""The backends of each set, under their names in boards."""

SOURCES: Final = {
    "prometheus": {"type": "prometheus", "uid": "prometheus"},
    "loki": {"type": "loki", "uid": "loki"},
    "tempo": {"type": "tempo", "uid": "tempo"},
    "victoria-logs": {"type": "victoriametrics-logs-datasource", "uid": "victorialogs"},
    "victoria-traces": {"type": "jaeger", "uid": "victoriatraces"},
}
"""Type and fixed id of each data source, as provisioned."""

_WIDTH: Final = 24
_SIZE: Final = {"stat": (6, 5), "timeseries": (8, 7)}
_LINES: Final = {"showTime": True, "enableLogDetails": True, "sortOrder": "Descending", "wrapLogMessage": False}
_OPTIONS: Final = {
    "stat": {"colorMode": "background", "reduceOptions": {"calcs": ["lastNotNull"]}},
    "logs": _LINES,
}
_IN_QUERY: Final = frozenset({"tempo", "jaeger"})
"""Data sources that take the query text in `query`; the others take it in `expr`."""

Spec = Mapping[str, Any]


def made() -> Mapping[Path, str]:
    """Return the path and text of every dashboard."""
    files: dict[Path, str] = {}
    for board in sorted(BOARDS.glob("*.yaml")):
        spec = yaml.safe_load(board.read_text(encoding="utf-8"))
        for name, backends in SETS.items():
            text = json.dumps(_dashboard(spec, backends), indent=2, ensure_ascii=False)
            files[DASHBOARDS / name / f"{board.stem}.json"] = f"{text}\n"
    return files


def _dashboard(spec: Spec, backends: Sequence[str]) -> Spec:
    return {
        "uid": spec["uid"],
        "title": spec["title"],
        "description": spec["what"],
        "tags": ["auditrace"],
        "schemaVersion": 39,
        "version": 1,
        "editable": True,
        "graphTooltip": 1,
        "refresh": "30s",
        "time": {"from": "now-1h", "to": "now"},
        "timezone": "utc",
        "links": [{"type": "dashboards", "tags": ["auditrace"], "title": "auditrace", "asDropdown": False}],
        "templating": {"list": [_variable(variable) for variable in spec.get("variables", ())]},
        "panels": list(_panels(spec["panels"], backends)),
    }


def _panels(specs: Sequence[Spec], backends: Sequence[str]) -> Iterator[Spec]:
    """Yield the panels in rows from left to right; a panel that does not fit begins a new row."""
    x = y = height = 0
    for number, spec in enumerate(specs, start=1):
        kind = spec.get("kind", "timeseries")
        width, own_height = spec.get("size") or _SIZE[kind]
        if x + width > _WIDTH:
            x, y, height = 0, y + height, 0
        place = {"x": x, "y": y, "w": width, "h": own_height}
        yield {"id": number, "type": kind, "gridPos": place, **_content(spec, kind, backends)}
        x, height = x + width, max(height, own_height)


def _content(spec: Spec, kind: str, backends: Sequence[str]) -> Spec:
    (backend,) = (name for name in backends if name in spec)
    defaults: dict[str, Any] = {"unit": spec.get("unit", "short")}
    if "limits" in spec:
        # Yellow from the first limit on, red from the second limit on.
        colours = zip(("green", "yellow", "red"), (None, *spec["limits"]), strict=True)
        steps = [{"color": colour, "value": value} for colour, value in colours]
        defaults |= {"thresholds": {"mode": "absolute", "steps": steps}, "color": {"mode": "thresholds"}}
    queries = [query if isinstance(query, dict) else {"query": query} for query in spec[backend]]
    return {
        "title": spec["title"],
        "description": spec["what"],
        "datasource": SOURCES[backend],
        "fieldConfig": {"defaults": defaults, "overrides": []},
        "options": {**_OPTIONS.get(kind, {}), **spec.get("options", {})},
        "targets": [_target(at, SOURCES[backend], query) for at, query in enumerate(queries)],
    }


def _target(at: int, source: Mapping[str, str], query: Spec) -> Spec:
    where = "query" if source["type"] in _IN_QUERY else "expr"
    legend = {"legendFormat": query["legend"]} if "legend" in query else {}
    return {
        "refId": "ABCDEFGH"[at],
        "datasource": source,
        where: query["query"],
        **legend,
        **query.get("more", {}),
    }


def _variable(spec: Spec) -> Spec:
    current = {"text": spec["default"], "value": spec["default"]}
    return {
        "type": "textbox",
        "name": spec["name"],
        "label": spec["label"],
        "query": spec["default"],
        "current": current,
        "options": [{**current, "selected": True}],
    }


def main(arguments: list[str]) -> int:
    """Write the files, or with `--check` compare them; return the exit status."""
    stale = {
        path: text for path, text in made().items() if not path.exists() or path.read_text(encoding="utf-8") != text
    }
    if "--check" in arguments:
        sys.stderr.write("".join(f"{path} is out of date: run `python -m deploy.grafana`\n" for path in stale))
        return 1 if stale else 0
    for path, text in stale.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

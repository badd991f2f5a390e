"""A results folder as one HTML page that needs no network: tables, charts, configs, filters.

python analysis/report.py RESULTS [--out FILE]
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import io
import json
import math
import sys
from collections.abc import Hashable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import pandas as pd

if not __package__:
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from analysis.aims import Target
from analysis.curves import LINES, Curve, best
from analysis.formats import NOTHING, Spread, cell_text
from analysis.load import LoadError, Results, holds, load
from analysis.metrics import (
    CONTROL_NORM,
    COSINE,
    GLOBAL,
    SIMULATED,
    TITLES,
    axis_label,
)
from analysis.panels import by_setting
from analysis.places import output
from analysis.plots import PICTURES, Drawing, figures
from analysis.tables import TITLES as TABLE_TITLES
from analysis.tables import WHAT, add_baseline, add_target, notes, tables, target_of

MOST_POINTS = 200
"""Of a line: enough for a chart of 500 pixels; longer runs are thinned evenly."""

_HERE = Path(__file__).resolve().parent
_DASHES = dict(zip(LINES, ("", "7 3", "7 3 2 3", "2 3", "10 3 2 3 2 3"), strict=True))
_INTERACTIVE = ("rounds", "bytes", "simulated")
_SHARED = ("dataset", "model", "target", "own_test_mean_over")
_KINDS = ("algorithm", "partition", "dataset")
_XS = {
    "round": "communication round (from 0)",
    "megabytes": "sent up and down so far (MB)",
    "simulated": "simulated time so far (s)",
}


def report(
    results: Results,
    target: Target = None,
    metric: str | None = None,
    baselines: Sequence[str] = (),
) -> str:
    """The page.

    Args:
        results: a results folder, or several.
        target: the value of `metric` to reach; None: in each setting the hardest that all runs reach.
        metric: one of `metrics.BETTER`; None: the own-split accuracy.
        baselines: algorithms or methods that savings and significance are against.

    Raises:
        LoadError: the folder cannot be read, or has no rounds, no such metric or no such baseline.
    """
    of = Drawing(results, metric, target)
    runs = load(results, "runs")
    runs["status"] = runs["run_id"].map(of.runs.set_index("run_id")["status"])
    drawn = {run_id: curve for curve in of.drawn for run_id in curve.runs}
    algorithms = dict(zip(of.runs["label"], of.runs["algorithm"], strict=True))
    made = tables(of.compared, WHAT, baselines)
    parts = [
        _heading(runs, notes(of.compared, WHAT, baselines)),
        _filters(runs),
        "<section><h2>Charts</h2>" + _controls(of) + "</section>",
        *(_table(name, table, algorithms) for name, table in made.items()),
        _pictures(of),
        "<section><h2>Configs and environments</h2>"
        + _details(runs, drawn, results)
        + "</section>",
    ]
    return _page("\n".join(parts), _data(of, runs))


# --- the frame of the page ---------------------------------------------------------------------------


def _page(body: str, data: Mapping[str, Any]) -> str:
    """All in one file. The policy lets nothing run or load but the one style and script that are here."""
    style, script = ((_HERE / f"report.{e}").read_text(encoding="utf-8") for e in ("css", "js"))
    policy = (
        f"default-src 'none'; img-src data:; style-src {_digest(style)}; "
        f"script-src {_digest(script)}; base-uri 'none'; form-action 'none'"
    )
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width">
<link rel="icon" href="data:,">
<title>Federated runs</title>
<style>{style}</style>
</head>
<body>
{body}
<div id="tip" hidden></div>
<script type="application/json" id="data">{_inline(data)}</script>
<script>{script}</script>
</body>
</html>
"""


def _digest(text: str) -> str:
    digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    return f"'sha256-{digest}'"


def _inline(data: object) -> str:
    """JSON that cannot end the element that it stands in."""
    text = json.dumps(data, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _heading(runs: pd.DataFrame, told: Sequence[str]) -> str:
    counts = runs["status"].value_counts()
    states = ", ".join(f"{n} {escape(str(status))}" for status, n in counts.items())
    lines = [f"{len(runs)} runs: {states}."]
    if "finished" not in counts or len(counts) > 1:
        lines.append("Means over seeds are of finished runs only; charts show the others apart.")
    lines += told
    span = f"{runs['start'].min():%Y-%m-%d %H:%M} to {runs['start'].max():%Y-%m-%d %H:%M} UTC"
    lines.append(f"Started {span}.")
    said = "".join(f'<p class="note">{line}</p>' for line in map(_kept, lines))
    return f"<header><h1>Federated runs</h1>{said}</header>"


def _kept(note: str) -> str:
    return escape(note, quote=False)


def _filters(runs: pd.DataFrame) -> str:
    """A checkbox for each algorithm and partition, and for data sets if there are several."""
    sets = []
    for kind in _KINDS:
        values = sorted(set(runs[kind]))
        if kind == "dataset" and len(values) == 1:
            continue
        boxes = "".join(
            f'<label><input type="checkbox" checked data-kind="{kind}" value="{escape(value)}"> '
            f"{escape(value)}</label>"
            for value in values
        )
        sets.append(f"<fieldset><legend>{kind}</legend>{boxes}</fieldset>")
    return f'<form id="filters">{"".join(sets)}</form>'


# --- charts --------------------------------------------------------------------------------------------


def _metrics(of: Drawing) -> list[str]:
    """What can be chosen: accuracies, the target's metric, and drift; if some run knows it."""
    wanted = [of.compared.own, GLOBAL, of.metric, COSINE, CONTROL_NORM]
    return [m for m in dict.fromkeys(wanted) if m and of.rounds[m].notna().any()] or [GLOBAL]


def _controls(of: Drawing) -> str:
    xs = [x for x in _XS if x != "simulated" or of.rounds[SIMULATED].notna().any()]
    choices = {
        "metric": [(m, TITLES.get(m, m)) for m in _metrics(of)],
        "x": [(x, _XS[x]) for x in xs],
    }
    selects = " against ".join(
        f'<select id="choose-{name}" aria-label="{name}">'
        + "".join(f'<option value="{escape(v)}">{escape(t)}</option>' for v, t in pairs)
        + "</select>"
        for name, pairs in choices.items()
    )
    note = "Click a name to hide or show it; point at a line for its numbers."
    if hidden := len(_hidden(of)):
        note += (
            f" {hidden} methods are hidden at first: in each setting, they are not among the best."
        )
    return (
        f'<div id="controls">{selects} <span class="note">{note}</span></div>'
        '<div id="legend"></div><div id="charts"></div>'
    )


def _hidden(of: Drawing) -> set[str]:
    """The methods that are not told apart in pictures of any setting."""
    told = {c.label for own in by_setting(of.drawn).values() for c in best(own, of.compared.own)}
    return {curve.label for curve in of.drawn} - told


def _data(of: Drawing, runs: pd.DataFrame) -> dict[str, Any]:
    """What the script draws."""
    metrics = _metrics(of)
    by_id = {run["run_id"]: run for run in runs.to_dict("records")}
    hidden = _hidden(of)
    return {
        "hidden": sorted(hidden),
        "metrics": [{"name": m, "label": axis_label(m)} for m in metrics],
        "xs": [{"name": name, "label": label} for name, label in _XS.items()],
        "series": [
            {
                "label": curve.label,
                "setting": curve.setting,
                "colour": curve.colour,
                "dash": _DASHES[curve.line],
                "seeds": curve.seeds,
                **_of(by_id[next(iter(curve.runs))]),
                "metrics": {m: _points(curve, m) for m in metrics},
            }
            for curve in sorted(of.drawn, key=lambda curve: curve.label in hidden)
        ],
    }


def _points(curve: Curve, metric: str) -> dict[str, list[float | None]]:
    """The line of a metric, against all that it can be drawn against."""
    lines = {x: curve.points(x, metric) for x in ("round", "megabytes", SIMULATED)}
    mean = lines["round"]
    step = max(1, math.ceil(len(mean) / MOST_POINTS))
    keep = sorted({*range(0, len(mean), step), *range(len(mean))[-1:]})
    columns = {
        "round": mean["x"],
        "megabytes": lines["megabytes"]["x"],
        "simulated": lines[SIMULATED]["x"],
        "mean": mean["mean"],
        "std": mean["high"] - mean["mean"],
    }
    return {name: [_number(column.iloc[i]) for i in keep] for name, column in columns.items()}


def _number(value: float) -> float | None:
    return float(f"{value:.6g}") if math.isfinite(value) else None


def _of(run: Mapping[Hashable, Any]) -> dict[str, Any]:
    """What the filters go by."""
    return {
        "algorithms": [run["algorithm"]],
        "partition": run["partition"],
        "dataset": run["dataset"],
    }


# --- tables --------------------------------------------------------------------------------------------


def _table(name: str, table: pd.DataFrame, algorithms: Mapping[str, str]) -> str:
    """A table whose rows the filters find; a data set or model that all rows share is said above it."""
    if NOTHING in table:
        return ""
    shared = [c for c in _SHARED if c in table and len(table) > 1 and table[c].nunique() == 1]
    rows_of = [json.dumps(_of_row(row, algorithms)) for row in table.to_dict("records")]
    said = ", ".join(f"{_words(c)}: {cell_text(table[c].iloc[0])}" for c in shared)
    said += "" if "partition" in table else "Over all partitions, whatever the filters say."
    table = table.drop(columns=shared)
    kinds = ["number" if _is_number(table[c]) else "text" for c in table.columns]
    heads = "".join(
        f'<th class="{kind}" scope="col"><button type="button">{escape(_words(column))}</button></th>'
        for column, kind in zip(table.columns, kinds, strict=True)
    )
    rows = []
    for row, about in zip(table.to_dict("records"), rows_of, strict=True):
        cells = "".join(
            f'<td class="{kind}" data-value="{escape(_value(value))}">{escape(cell_text(value))}</td>'
            for value, kind in zip(row.values(), kinds, strict=True)
        )
        rows.append(f'<tr data-of="{escape(about)}">{cells}</tr>')
    return (
        f"<section><h2>{escape(TABLE_TITLES[name])}</h2>"
        f'<p class="note">{escape(said)}</p><p class="note" id="count-{name}"></p>'
        f'<div class="scroll"><table data-name="{name}">'
        f"<thead><tr>{heads}</tr></thead><tbody>{''.join(rows)}</tbody></table></div></section>"
    )


def _is_number(column: pd.Series) -> bool:
    """Whether a column holds numbers, beside texts that say why there is none."""
    return bool(column.map(lambda v: isinstance(v, int | float | Spread)).any())


def _words(column: object) -> str:
    return str(column).replace("_", " ")


def _value(value: object) -> str:
    """What a cell is sorted by."""
    return repr(value.mean) if isinstance(value, Spread) else str(value)


def _of_row(row: Mapping[Hashable, Any], algorithms: Mapping[str, str]) -> dict[str, Any]:
    """What the filters go by: each method that the row is about."""
    methods = [algorithms[row[c]] for c in ("method", "against") if row.get(c) in algorithms]
    return {
        "algorithms": [row["algorithm"]] if "algorithm" in row else methods,
        "partition": row.get("partition"),
        "dataset": row.get("dataset"),
    }


# --- pictures, configs ---------------------------------------------------------------------------------


def _pictures(of: Drawing) -> str:
    """The pictures that are not interactive; they show all runs, whatever the filters say."""
    parts = []
    for name in PICTURES:
        if name in _INTERACTIVE:
            continue
        for stem, figure in figures(of, [name]).items():
            buffer = io.BytesIO()
            figure.savefig(buffer, format="png", dpi=110)
            source = base64.b64encode(buffer.getvalue()).decode()
            parts.append(
                f'<figure class="picture"><img alt="{escape(_words(stem))}" '
                f'src="data:image/png;base64,{source}"></figure>'
            )
    note = '<p class="note">Of all runs, whatever the filters say.</p>'
    return f"<section><h2>Pictures</h2>{note}{''.join(parts)}</section>"


def _details(runs: pd.DataFrame, drawn: Mapping[str, Curve], results: Results) -> str:
    """Config, versions, hardware, errors and events of each run."""
    events = load(results, "events") if holds(results, "events") else None
    parts = []
    for run in runs.to_dict("records"):
        run_id = run["run_id"]
        fields = {
            "status": run["status"],
            "error": run["error"] if isinstance(run["error"], str) else "none",
            "start": run["start"],
            "end": run["end"],
            "parameters": f"{run['shared_parameters']} shared, {run['local_parameters']} local",
            "fingerprint": run["fingerprint"],
            "config hash": run["config_hash"],
            "data fingerprint": run["data_fingerprint"],
        }
        lines = "\n".join(f"{k}: {cell_text(v)}" for k, v in fields.items())
        blocks = [lines, *(f"{k}: {_pretty(run[k])}" for k in ("versions", "hardware", "config"))]
        if events is not None and len(own := events[events["run_id"] == run_id]):
            told = own[["time", "round", "client", "kind", "message"]]
            blocks.insert(1, f"{len(own)} events, the first of them:\n{told.head(20).to_string()}")
        label = f" - {drawn[run_id].label}" if run_id in drawn else " - no rounds yet"
        body = "".join(f"<pre>{escape(block)}</pre>" for block in blocks)
        parts.append(
            f'<details data-of="{escape(json.dumps(_of(run)))}"><summary>'
            f"{escape(run_id + label)}</summary>{body}</details>"
        )
    return "".join(parts)


def _pretty(text: str) -> str:
    """JSON with an entry a line; what is none as it is."""
    try:
        return json.dumps(json.loads(text), indent=1)
    except ValueError:
        return text


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the page that the command line asks for; 1 if it cannot be read or written."""
    parser = argparse.ArgumentParser(description="One HTML page of results, for any browser.")
    parser.add_argument("results", nargs="+", help="results folder or address, or several")
    parser.add_argument(
        "--out",
        type=Path,
        help="file (default: RESULTS/report.html; here if that is an address)",
    )
    add_target(parser)
    add_baseline(parser)
    options = parser.parse_args(arguments)
    out: Path = options.out or output(options.results[0], "report.html")
    try:
        page = report(options.results, target_of(options), options.metric, options.baseline)
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(page, encoding="utf-8")
    except (LoadError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(out)
    return 0


if __name__ == "__main__":
    sys.exit(main())

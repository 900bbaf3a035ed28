"""The page: tables of the latest run on each machine, and the data that the script draws."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup, escape

from bench.dashboard import trends
from bench.records import name_of
from fastxent.results.report.page import Cell, Column, HtmlTable, Section, page, table
from fastxent.results.text import count

_HERE = Path(__file__).resolve().parent
_TONES = {"NO": "bad", "yes": "good", "aim": "good"}
_LABELS = {"figure": "ratio"}  # of filters whose name is not their id
_WORDS = {"NO": "no", "yes": "yes", "aim": "aim", "-": "–"}


def html(found: Sequence[dict[str, Any]]) -> str:
    """Return the dashboard as HTML.

    Args:
        found: sequence of dict. Records of runs, oldest first.
    """
    from plotly.offline import get_plotlyjs

    drawn = trends.groups(found)
    newest = [_newest(found, group) for group in drawn]
    data = json.dumps({"groups": drawn}, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
    over = (
        "All runs on one machine, each a dot. The band is the range expected from the noise of earlier runs. "
        "A run below its band is marked as slower."
    )
    scaling = (
        "The latest run: fraction of the ceiling, and speed-up of all threads over one thread, by number of classes."
    )
    sections = [
        Section("marks", "Marks", _filters(found, drawn) + _each(drawn, newest, _marks)),
        Section("runs", "History", _charts("over", over) + _each(drawn, newest, _regressions)),
        Section("scaling", "Scaling", _charts("scaling", scaling)),
        Section("peers", "Peers", _charts("peers", "The latest run: speed relative to each peer.")),
        Section("process", "Start-up and memory", _charts("process", "Measured in new processes, for each run.")),
        Section("cases", "Cases of the latest run", _each(drawn, newest, _cases)),
        Section("history", "Runs", _runs(found) + Markup(f'<script type="application/json" id="data">{data}</script>')),
    ]
    machines = len({run["machine"]["id"] for run in found})
    subtitle = f"{_plural(len(found), 'run')} on {_plural(machines, 'machine')}; latest run {_when(found[-1])}"
    return page(
        "fastxent benchmarks", subtitle, sections, style=_own("dashboard.css"),
        scripts=[get_plotlyjs().strip(), _own("dashboard.js")],
    )  # fmt: skip


def _plural(n: int, what: str) -> str:
    return f"{count(n)} {what}{'s' * (n != 1)}"


def _own(name: str) -> str:
    return (_HERE / name).read_text(encoding="utf-8").strip()


def _newest(found: Sequence[dict[str, Any]], group: dict[str, Any]) -> dict[str, Any]:
    last = group["runs"][-1]["date"]
    return next(run for run in reversed(found) if run["date"] == last and run["machine"]["id"] == group["machine"])


def _when(run: dict[str, Any]) -> str:
    changed = " with changes" if run["changed"] else ""
    return f"{run['date'][:16].replace('T', ' ')} UTC, commit {run['commit'][:10] or 'unknown'}{changed}"


def _each(drawn: list[dict[str, Any]], newest: list[dict[str, Any]], make: Any) -> Markup:
    """Return one element per group. The script shows the selected one; without it the first one is shown."""
    parts = []
    for group, run in zip(drawn, newest, strict=True):
        hidden = " hidden" if parts else ""
        parts.append(f'<div data-group="{group["machine"]} {group["mode"]}"{hidden}>{make(group, run)}</div>')
    return Markup("".join(parts))


def _filters(found: Sequence[dict[str, Any]], drawn: list[dict[str, Any]]) -> Markup:
    machines = {
        run["machine"]["id"]: f"{run['machine']['processor']}, {run['machine']['cpus']} CPUs, "
        f"{run['machine']['memory_gb']} GB ({run['machine']['id']})"
        for run in found
    }
    series = [s for group in drawn for s in group["series"]]
    choices = {
        "machine": {group["machine"]: machines[group["machine"]] for group in drawn},
        "mode": {mode: f"{mode} runs" for mode in dict.fromkeys(group["mode"] for group in drawn)},
        "figure": {"ceiling": "fraction of the ceiling", "peer": "ratio to the best peer"},
        "job": {"": "all jobs"} | {job: job for job in dict.fromkeys(s["job"] for s in series)},
        "dtype": {d: d for d in ("float32", *(s["dtype"] for s in series))} | {"": "all dtypes"},
        "threads": {"all": "all threads", "one": "one thread", "": "any number of threads"},
    }  # fmt: skip
    selects = [
        f'<label><span>{_LABELS.get(name, name)}</span><select id="by-{name}">'
        + "".join(f'<option value="{escape(value)}">{escape(text)}</option>' for value, text in options.items())
        + "</select></label>"
        for name, options in choices.items()
    ]
    return Markup('<div class="controls filters" role="group" aria-label="filters">' + "".join(selects) + "</div>")


def _charts(name: str, said: str) -> Markup:
    return Markup(f'<p class="note">{said}</p><div class="charts" id="charts-{name}"></div>')


def _marks(group: dict[str, Any], run: dict[str, Any]) -> Markup:
    held = [mark["met"] for mark in run["marks"] if mark["met"] != "-"]
    newest = len(group["runs"]) - 1
    slower = sum(newest in s["ceiling"]["below"] for s in group["series"])
    read = max((value for name, value in run["ceilings"].items() if name.startswith("read")), default=math.nan)
    peak = {name: f"{value / 1e6:.0f} MB" for name, value in run["peak_memory"].items()}
    cards = [
        ("Marks met", f"{len(held) - held.count('NO')} of {len(held)}", f"{held.count('aim')} reach the aim"),
        ("Slower than before", str(slower), f"of {len(group['series'])} cases, more than noise explains"),
        ("Memory reads", f"{read:.3g} GB/s", "the ceiling, with all threads"),
        ("Import", f"{1e3 * run['startup']['import']:.3g} ms", "of fastxent"),
        ("Peak memory", peak["peak"], f"memory limit {peak['memory']}, row group {peak['size']}"),
    ]
    card = Markup('<div class="card"><div class="name">{}</div><div class="value">{}</div>'
                  '<div class="interval">{}</div></div>')  # fmt: skip
    shown = Markup("").join(card.format(*texts) for texts in cards)
    busy = " The machine was busy, so the numbers are not reliable." if run["load"] > 0.5 else ""
    quick = " This is a quick run; its numbers are not for comparison." if run["quick"] else ""
    rows = []
    for k, mark in enumerate(run["marks"]):
        sign = "≤" if mark["most"] else "≥"
        name = (
            mark["job"]
            if mark["job"].strip() != "the same"
            else f"{run['marks'][k - 1]['job']}, relative to reading the file"
        )
        limits = [_number(mark[key]) for key in ("mark", "aim") if mark[key] is not None]
        only_aim = "aim " if mark["mark"] is None else ""
        limit = f"{only_aim}{sign} {' / '.join(limits)}" if limits else "–"
        rows.append([
            Cell(name), Cell(_WORDS[mark["met"]], tone=_TONES.get(mark["met"], "")),
            Cell(_number(mark["figure"]), _key(mark["figure"])), Cell(mark["unit"]),
            Cell(limit, _key(mark["mark"])), Cell(mark["ours"]),
            Cell("–" if mark["peer"] == "-" else mark["peer"]),
        ])  # fmt: skip
    columns = [
        Column("job", "text"), Column("met", "text", "mark or aim"), Column("ratio"), Column("of", "text"),
        Column("mark / aim"), Column("ours", "text"), Column("best peer", "text", "our relative speed in parentheses"),
    ]  # fmt: skip
    said = Markup('<p class="note">{}</p><div class="cards">{}</div>').format(f"{_when(run)}.{busy}{quick}", shown)
    return said + table(HtmlTable("Marks", columns, rows, paged=False))


def _regressions(group: dict[str, Any], run: dict[str, Any]) -> Markup:
    rows = []
    for s in group["series"]:
        for i in s["ceiling"]["below"]:
            value, low = s["ceiling"]["values"][i], s["ceiling"]["low"][i]
            rows.append([
                Cell(s["name"]), Cell(group["runs"][i]["date"][:10]), Cell(group["runs"][i]["commit"]),
                Cell(f"{value:.3g}", repr(value)), Cell(f"{low:.3g}", repr(low)),
                Cell(f"{100 * (value / low - 1):+.1f} %", repr(value / low)),
            ])  # fmt: skip
    rows.sort(key=lambda row: row[1].text, reverse=True)
    if not rows:
        said = "No run is slower than expected from noise."
        if len(group["runs"]) <= trends.FEWEST:
            said = f"A band needs {trends.FEWEST} earlier runs; this machine has {len(group['runs'])} runs in all."
        return Markup('<p class="note">{}</p>').format(said)
    columns = [Column("slower case", "text"), Column("run", "text"), Column("commit", "text"),
               Column("of ceiling"), Column("band from"), Column("below band by")]  # fmt: skip
    return table(HtmlTable("Regressions", columns, rows))


def _cases(group: dict[str, Any], run: dict[str, Any]) -> Markup:
    rows = []
    for case in run["cases"]:
        best = trends.best_peer(case)
        rows.append([
            Cell(name_of(case)), Cell(case["job"]), Cell(count(case["classes"]), str(case["classes"])),
            Cell(case["dtype"]), Cell(case["threads"]), _cell(case["gb_per_second"]),
            Cell(_number(case["ceiling"]), _key(case["ceiling"]), 0.0, 100 * min(1.0, case["ceiling"])),
            Cell(case["bound"]), _cell(best and best[1]), Cell(best[0] if best else "–"),
            _cell(case.get("speed_up")), _cell(case.get("spread")),
        ])  # fmt: skip
    columns = [
        Column("case", "text"), Column("job", "text"), Column("C"), Column("dtype", "text"), Column("threads", "text"),
        Column("GB/s"), Column("of ceiling", "bar"), Column("ceiling", "text"), Column("× best peer"),
        Column("best peer", "text"), Column("speed-up", hint="all threads relative to one"),
        Column("spread", hint="relative range that contains half of the rounds"),
    ]  # fmt: skip
    return Markup('<div class="rows">{}</div>').format(table(HtmlTable("Cases", columns, rows, paged=False)))


def _runs(found: Sequence[dict[str, Any]]) -> Markup:
    rows = []
    for run in reversed(found):
        held = [mark["met"] for mark in run["marks"] if mark["met"] != "-"]
        rows.append([
            Cell(run["date"][:16].replace("T", " ")), Cell(run["commit"][:10] + ("*" if run["changed"] else "")),
            Cell("quick" if run["quick"] else "full"), Cell(run["machine"]["processor"] or "–"),
            Cell(str(run["machine"]["cpus"]), str(run["machine"]["cpus"])), Cell(run["machine"]["id"]),
            Cell(f"{sum(met != 'NO' for met in held)} of {len(held)}", str(sum(met != "NO" for met in held))),
            _cell(run["load"]), Cell(f"{run['seconds']:.0f}", repr(run["seconds"])),
            Cell(", ".join(f"{name} {run['versions'][name]}" for name in ("python", "numpy", "numba")
                           if name in run["versions"])),
        ])  # fmt: skip
    columns = [
        Column("run (UTC)", "text"), Column("commit", "text", "* with changes"), Column("mode", "text"),
        Column("processor", "text"), Column("CPUs"), Column("machine", "text"), Column("marks met"),
        Column("load", hint="at the start of the run"), Column("seconds"), Column("versions", "text"),
    ]  # fmt: skip
    return table(HtmlTable("Runs", columns, rows))


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def _key(value: float | None) -> str:
    return "" if value is None else repr(value)


def _cell(value: float | None) -> Cell:
    return Cell(_number(value), _key(value))

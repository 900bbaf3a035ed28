"""Records to series: each case over the runs of one kind of machine, with the band that noise explains.

Only runs of the same machine and the same mode (full or quick) share a series.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple

from bench.records import name_of

Value = float | None
WINDOW = 20  # runs before that tell the noise
RECENT = 9  # runs before that tell what to expect: after half of them, a change is the rule
FEWEST = 5
WIDE = 5.0  # times the spread of the runs before
LEAST = 0.05  # a band reaches at least this far, relatively

FIGURES = ("ceiling", "peer")  # the fraction of the ceiling; the ratio to the best peer


class Band(NamedTuple):
    """What noise explains at each run, from those before it; None where they are too few. ``below``: regressions."""

    low: list[Value]
    high: list[Value]
    below: list[int]


def band(values: Sequence[Value]) -> Band:
    """The median of recent runs, times or over 5 robust standard deviations (1.4826 median) of one run.

    Those are taken from the differences of neighbouring runs, so that a trend or a step is not taken for noise.
    """
    low: list[Value] = []
    high: list[Value] = []
    below = []
    for i, value in enumerate(values):
        logs = [math.log(v) for v in values[max(0, i - WINDOW) : i] if v]
        if len(logs) < FEWEST:
            low.append(None), high.append(None)
            continue
        middle = statistics.median(logs[-RECENT:])
        spread = 1.4826 * statistics.median(abs(b - a) for a, b in pairwise(logs)) / math.sqrt(2)
        half = max(WIDE * spread, math.log1p(LEAST))
        low.append(_short(math.exp(middle - half))), high.append(_short(math.exp(middle + half)))
        if value and value < math.exp(middle - half):
            below.append(i)
    return Band(low, high, below)


def best_peer(case: dict[str, Any]) -> tuple[str, float] | None:
    """(name, ratio to it) of the fastest peer of a case."""
    return min(case["peers"].items(), key=lambda entry: entry[1], default=None)


def groups(found: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Runs of the same machine and mode, newest group first, with a series for each case in any of them."""
    keys = dict.fromkeys((run["quick"], run["machine"]["id"]) for run in reversed(found))
    return [
        _group([run for run in found if (run["quick"], run["machine"]["id"]) == key])
        for key in sorted(keys, key=lambda key: key[0])
    ]


def _group(runs: list[dict[str, Any]]) -> dict[str, Any]:
    by_name = [{name_of(case): case for case in run["cases"]} for run in runs]
    names = dict.fromkeys(name for cases in reversed(by_name) for name in cases)
    files = {name for cases in by_name for name, case in cases.items() if case["job"] == "evaluate"}
    series = []
    for name in sorted(names, key=files.__contains__):
        cases = [run.get(name) for run in by_name]
        newest = next(case for case in reversed(cases) if case is not None)
        values = {
            "ceiling": [case and case["ceiling"] for case in cases],
            "peer": [(best := case and best_peer(case)) and best[1] for case in cases],
        }
        figures = {
            figure: {"values": values[figure], **band(values[figure])._asdict()}
            for figure in FIGURES
            if any(value is not None for value in values[figure])
        }
        about = {key: newest.get(key) for key in ("job", "classes", "dtype", "threads", "layout", "bound")}
        series.append({"name": name, **about, "peers": newest["peers"], "rate": newest["gb_per_second"], **figures})
    return {
        "machine": runs[-1]["machine"]["id"],
        "mode": "quick" if runs[-1]["quick"] else "full",
        "runs": [{"date": run["date"], "commit": run["commit"][:10], "changed": run["changed"]} for run in runs],
        "series": series,
        "startup": {
            name: [run["startup"].get(name) for run in runs]
            for name in dict.fromkeys(name for run in runs for name in run["startup"])
        },
        "memory": {
            "peak": [_short(run["peak_memory"]["peak"] / 1e6) for run in runs],
            "limit": [_short(run["peak_memory"]["memory"] / 1e6 + 250) for run in runs],
        },
    }


def _short(value: float) -> float:
    return float(f"{value:.4g}")

"""Series made from records: each case over the runs on one machine, with the range expected from noise.

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
WINDOW = 20  # earlier runs that the noise is estimated from
RECENT = 9  # earlier runs whose median is expected; after half as many runs a change is the new normal
FEWEST = 5
WIDE = 5.0  # half width of a band, in spreads of the earlier runs
LEAST = 0.05  # smallest relative half width of a band

FIGURES = ("ceiling", "peer")  # the fraction of the ceiling; the ratio to the best peer


class Band(NamedTuple):
    """The range expected at each run from earlier runs; None for too few of them.

    Attributes:
        low, high: list of float or None. Ends of the range at each run.
        below: list of int. Runs below the range: regressions.
    """

    low: list[Value]
    high: list[Value]
    below: list[int]


def band(values: Sequence[Value]) -> Band:
    """Return the median of recent runs, times and divided by exp(5 robust standard deviations) of one run.

    The robust standard deviation is 1.4826 median |difference of neighbouring runs| / √2, of logarithms, so that trends
    and steps do not count as noise.

    Args:
        values: sequence of float or None. One value per run, oldest first; None for a run without the case.
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
    """Return the name of the fastest peer of a case, and our speed relative to it."""
    return min(case["peers"].items(), key=lambda entry: entry[1], default=None)


def groups(found: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return one group per machine and mode, latest first, with a series per case."""
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

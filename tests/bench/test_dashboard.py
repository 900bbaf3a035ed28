"""What the dashboard is made of: bands that know noise from change, groups of runs that may be compared, one page."""

from __future__ import annotations

import json
import re

import numpy as np

import bench_records
from bench import records
from bench.dashboard import trends
from bench.dashboard.page import html


def series(seed: int, count: int = 60, noise: float = 0.02) -> list[float]:
    return list(0.5 * np.exp(np.random.default_rng(seed).normal(0, noise, count)))


def test_noise_is_within_its_band() -> None:
    outside = sum(len(trends.band(series(seed)).below) for seed in range(50))
    assert outside <= 50 * 60 // 500


def test_a_step_is_marked_until_it_is_the_rule() -> None:
    values = series(3, 40)
    values[30:] = [0.8 * value for value in values[30:]]
    below = trends.band(values).below
    assert below[:4] == [30, 31, 32, 33]
    assert below[-1] <= 30 + trends.RECENT // 2 + 1


def test_a_trend_is_not_noise() -> None:
    rising = [v * 1.02**i for i, v in enumerate(series(2, 60, 0.005))]
    found = trends.band(rising)
    assert found.below == []
    assert all(high < 1.3 * low for low, high in zip(found.low, found.high, strict=True) if low is not None)


def test_few_runs_have_no_band_and_missing_ones_no_say() -> None:
    assert trends.band([0.5] * 5) == trends.Band([None] * 5, [None] * 5, [])
    found = trends.band([None, 0.5, None, 0.5, 0.5, 0.5, 0.5, None, 0.1])
    assert found.low[:6] == [None] * 6
    assert found.below == [8]


def test_only_runs_of_one_machine_and_mode_share_a_series() -> None:
    runs = bench_records.runs(40)
    found = trends.groups(runs)
    assert [group["mode"] for group in found] == ["full"] * 3 + ["quick"] * 3
    assert sum(len(group["runs"]) for group in found) == 40
    for group in found:
        dates = [run["date"] for run in group["runs"]]
        assert dates == sorted(dates)
        own = [r for r in runs if r["machine"]["id"] == group["machine"] and r["quick"] == (group["mode"] == "quick")]
        for case in group["series"]:
            assert case["ceiling"]["values"] == [
                next(c["ceiling"] for c in run["cases"] if records.name_of(c) == case["name"]) for run in own
            ]


def test_a_case_that_came_later_has_no_figures_before() -> None:
    old, new = bench_records.runs(4)[0::3]
    old["cases"] = [case for case in old["cases"] if case["job"] != "record"]
    (group,) = trends.groups([old, new])
    late = next(s for s in group["series"] if s["job"] == "record")
    assert late["ceiling"]["values"][0] is None
    assert late["ceiling"]["values"][1] is not None


def test_the_page_names_nothing_outside_and_lets_nothing_in() -> None:
    runs = bench_records.runs(2)
    runs[1]["machine"]["processor"] = "</script><script>alert(1)</script>"
    text = html(runs)
    assert "<script>alert" not in text
    head = text.split("<script>", 1)[0]
    assert re.findall(r"<(?:script|link|img|iframe)[^>]*(?:src|href)=[^>]*>", head) == [
        '<link rel="icon" href="data:,">'
    ]
    data = re.search(r'id="data">(.*?)</script>', text, re.DOTALL)
    assert data is not None
    assert json.loads(data[1])["groups"] == trends.groups(runs)


def test_the_page_of_hundreds_of_runs_is_not_much_larger_than_the_library() -> None:
    few, more = (len(html(bench_records.runs(count))) for count in (30, 60))
    assert few + 9 * (more - few) < 8_000_000  # at 300

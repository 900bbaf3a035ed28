"""The report of a comparison: its plots, its agreement with the JSON, and damaged JSON."""

from __future__ import annotations

import copy
import json
import math
import random
import re
import xml.etree.ElementTree as ET
from dataclasses import replace

import numpy as np
import pytest

import fastxent as fx
from fastxent.cli.program import run
from fastxent.results.compare import CompareResult
from fastxent.results.comparison_text import terminal
from fastxent.results.report import comparison_html as html
from fastxent.results.report.comparison_plots import relative
from fastxent.results.values import Metric
from report_cases import HOSTILE
from tests.results.test_damaged import mutant, places
from tests.results.test_report import Page
from tests.verbs import pairs


@pytest.fixture(scope="module")
def result():
    a, b = pairs.both()
    return fx.compare(a, b, by="kind", id="id", largest=3, names=("base", "new"), cluster="doc")


@pytest.fixture(scope="module")
def page(result):
    return html(result)


def plots_of(text):
    """The SVG elements of a page; each must be well-formed."""
    return list(map(ET.fromstring, re.findall(r"<svg.*?</svg>", text, flags=re.DOTALL)))


def test_every_section_has_its_plots(page):
    titles = [plot.get("aria-label").split(",")[0].split(":")[0].split(".")[0] for plot in plots_of(page)]
    assert titles == [
        "Change of each metric from base to new", "Quantiles of the divergence of a row",
        "Rows by whether base and new predict the target",
        "Change of the probability of the target from base to new",
        "Change of cross entropy in each slice with its 95 % interval",
    ]  # fmt: skip
    assert "Input and options" in Page(page).text
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(ids) == len(set(ids))


def test_slices_are_named_in_80_columns(result):
    names = ["documents", "dialogues", "questions"]
    text = terminal(replace(result, slices={"kind": dict(zip(names, result.slices["kind"].values(), strict=False))}))
    begins = [line[:5] for line in text.splitlines()]
    assert [begin for begin in begins if begin in ("docum", "dialo", "quest")] == ["docum", "dialo", "quest"]


def test_the_plots_show_the_numbers(page, result):
    shown = [title.text for plot in plots_of(page) for title in plot.iter("title")]
    flips, target = result.flips, result.target_probability
    assert f"right → wrong: {flips.right_to_wrong} rows, {100 * flips.right_to_wrong / 319:.3g} %" in shown
    assert f"both right: {flips.both_right} rows, {100 * flips.both_right / 319:.3g} %" in shown
    metric = result.metrics["accuracy"]
    change, *ends = (100 * x / metric.a.value for x in (metric.difference.value, *metric.difference.ci95))
    assert f"accuracy: {change:.5g} ({ends[0]:.4g} … {ends[1]:.4g})" in shown
    for value, part in result.slices["kind"].items():
        m = part.metrics["cross_entropy"].difference
        name = "null" if value is None else value
        assert f"{name}: {m.value:.5g} ({m.ci95[0]:.4g} … {m.ci95[1]:.4g})" in shown
    js = result.divergences["js_divergence"].quantiles
    assert [text for text in shown if text.startswith("Jensen-Shannon")] == [
        f"Jensen-Shannon, quantile {100 * q:g} %: {value:.4g} nats" for q, value in js.items()
    ]
    bars = [re.fullmatch(r"(-?[\d.]+) to (-?[\d.]+): (\d+) rows", text) for text in shown]
    assert sum(int(bar[3]) for bar in bars if bar) == sum(target.histogram[1]) == 319


def test_a_change_in_percent(result):
    m = result.metrics["cross_entropy"]
    assert relative(replace(m, a=Metric(-4.0), difference=Metric(1.0, 0.5, (0.0, 2.0)))) == Metric(
        25.0, ci95=(0.0, 50.0)
    )
    for a in (0.0, math.inf, math.nan):
        assert math.isnan(relative(replace(m, a=Metric(a))).value)
    none = html(replace(result, metrics={"cross_entropy": replace(m, a=Metric(0.0))}, slices={}))
    assert "Metrics without a finite change in percent (1) are only in the table." in none


def test_dumps_without_targets_and_without_rows():
    a, b = (table.select(["logits"]) for table in pairs.both())
    found = fx.compare(a, b)
    assert len(plots_of(html(found))) == 2
    ignored = np.full(pairs.ROWS, -100)
    empty = fx.compare(pairs.dump(pairs.A, ignored, **pairs.COLUMNS), pairs.dump(pairs.B, ignored), by="kind")
    assert empty.rows.used == 0
    assert len(plots_of(html(empty))) == 4
    for each in (found, empty):
        assert CompareResult.from_json(each.to_json()) == each


def test_equal_dumps_have_plots():
    a, _ = pairs.both()
    found = fx.compare(a, a)
    assert found.divergences["js_divergence"].max == 0.0
    assert "largest 0</li>" in html(found)
    assert len(plots_of(html(found))) == 3  # no divergence that a logarithmic axis can show


def test_dumps_of_scores():
    rng = np.random.default_rng(2)
    a, b = ({"acc": rng.integers(0, 2, 60), "kind": np.array(["x", "y"] * 30)} for _ in "ab")
    found = fx.compare(a, b, scores="acc", by="kind")
    back = CompareResult.from_json(found.to_json())
    assert back == found
    assert back.score_rows == found.score_rows
    text = html(back)
    assert text == html(found)
    flips = found.metrics["acc"].flips
    assert f"wrong → right: {flips.wrong_to_right} rows, {100 * flips.wrong_to_right / 60:.3g} %" in text
    assert len(plots_of(text)) == 3
    values = found.to_dict()
    values["scores"]["acc"]["used"] = 3
    with pytest.raises(fx.StateError, match=r"scores\.acc must add up"):
        CompareResult.from_dict(values)


@pytest.mark.parametrize("k", [0, 2, 6])
def test_names_are_text(result, k):
    a, b = HOSTILE[k : k + 2]
    slices = {a: dict(zip(HOSTILE, result.slices["kind"].values(), strict=False))}
    text = html(replace(result, names=(a, b), warnings=tuple(HOSTILE), slices=slices))
    Page(text)
    assert "<b onmouse" not in text
    assert "<img" not in text
    assert len(plots_of(text)) == 5


# ---- the JSON --------------------------------------------------------------------------------------------------------


def test_a_comparison_is_read_back(result, page):
    back = CompareResult.from_json(result.to_json())
    assert type(back) is CompareResult
    assert back == result
    assert back.to_dict() == result.to_dict()
    assert str(back) == str(result)
    assert html(back) == page
    assert back.divergences["js_divergence"].quantiles == result.divergences["js_divergence"].quantiles
    assert back.largest == result.largest
    assert back.state is None


def test_infinite_and_undefined_numbers_are_read_back(result):
    m = result.metrics["cross_entropy"]
    odd = replace(m, b=Metric(math.inf), difference=Metric(math.inf), p_value=math.nan)
    kl = replace(result.divergences["kl_divergence_ab"], max=math.inf, mean=Metric(math.inf))
    changed = replace(
        result, metrics={**result.metrics, "cross_entropy": odd},
        divergences={**result.divergences, "kl_divergence_ab": kl},
        largest=(replace(result.largest[0], size=math.inf, id=3, target=None, nll_a=math.nan),),
    )  # fmt: skip
    back = CompareResult.from_json(changed.to_json())
    assert back == changed
    assert back.metrics["cross_entropy"] == odd
    assert (back.largest[0].size, back.largest[0].id, back.largest[0].target) == (math.inf, 3, None)
    assert html(back) == html(changed)


@pytest.mark.parametrize(
    ("path", "value", "told"),
    [
        (("schema",), "fastxent/eval/1", "its schema is not 'fastxent/compare/1'"),
        (("metrics", "accuracy", "a", "value"), "x", "metrics.accuracy.a.value must be a number, got 'x'"),
        (("metrics", "accuracy", "extra"), 1, "'extra'"),
        (("rows", "bad"), 5, "rows must add up"),
        (("slices", "kind", "a", "rows", "bad"), 5, "slices.kind.a.rows must add up"),
        (("slices", "kind", "a", "value"), "b", "the slices of kind must have different values"),
        (("slices", "kind", "a", "metrics"), {}, "slices.kind.a.metrics must be of cross_entropy, "),
        (("divergences", "js_divergence", "quantiles"), {}, "divergences.js_divergence.quantiles must be of 0.001"),
        (("divergences",), {}, "same_top_1 must be an object with divergences, and null without"),
        (("slices", "kind", "a", "same_top_1"), None, "slices.kind.a.same_top_1 must be an object"),
        (("flips", "both_right"), -1, "flips must not be negative"),
        (("target_probability", "histogram"), [[0.0], [1]], "one more than counts"),
        (("names",), ["a"], "names must be a list of 2 values, got ('a',)"),
        (("names",), ["a", 3], "names.1 must be a text, got 3"),
        (("largest", 0, "row"), 1.5, "largest.0.row must be a whole number, got 1.5"),
        (("config", "bins"), "many", "bins must be a whole number"),
    ],
)
def test_what_is_wrong_is_named(result, path, value, told):
    values = copy.deepcopy(result.to_dict())
    holder = values
    for key in path[:-1]:
        holder = holder[key]
    holder[path[-1]] = value
    with pytest.raises(fx.StateError, match=f"^cannot read the comparison: .*{re.escape(told)}"):
        CompareResult.from_dict(values)


def test_a_missing_part_is_named(result):
    values = result.to_dict()
    for name in values.keys() - {"schema", "task"}:
        with pytest.raises(fx.StateError, match=f"cannot read the comparison: it lacks '{name}'"):
            CompareResult.from_dict({key: value for key, value in values.items() if key != name})


@pytest.mark.parametrize("text", ["[" * 100_000, "", "3", '{"schema": 3}', "NaN"])
def test_what_is_no_comparison(text):
    with pytest.raises(fx.StateError, match="cannot read the comparison"):
        CompareResult.from_json(text)


def test_a_mutant_is_refused_or_shown(result):
    rng, original = random.Random(3), json.loads(result.to_json())
    where = [path for path in places(original) if path]
    refused = drawn = 0
    for _ in range(100):
        try:
            found = CompareResult.from_json(json.dumps(mutant(original, where, rng)))
        except fx.StateError:
            refused += 1
        else:
            assert str(found)
            assert found.to_markdown()
            if drawn < 5:
                assert html(found).startswith("<!doctype html>")
                drawn += 1
    assert refused > 30
    assert drawn == 5


def test_the_command_writes_the_same_page(result, tmp_path, capsys):
    result = replace(result, files=(("first.parquet",), ("second.parquet",)), timing={"seconds": 1.5})
    page, file = html(result), tmp_path / "compare.json"
    assert page.index("first.parquet") < page.index("second.parquet") < page.index("elapsed (s)")
    file.write_text(result.to_json(), encoding="utf-8")
    assert run(["report", str(file), "-q"]) == 0
    assert (tmp_path / "compare.html").read_text(encoding="utf-8") == page
    file.write_text(result.to_json().replace('"both_right"', '"both_wright"'), encoding="utf-8")
    assert run(["report", str(file), "-o", str(tmp_path / "no.html")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"fastxent: error: {file}: cannot read the comparison: ")
    assert not (tmp_path / "no.html").exists()

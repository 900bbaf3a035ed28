"""The forms of a result: JSON, Arrow, text and Markdown agree, and JSON can be read again."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pyarrow as pa
import pytest

from fastxent.errors import StateError
from fastxent.results.evaluation import SCHEMA
from fastxent.results.result import EvalResult
from fastxent.state.evaluation import EvalState
from scored_cases import CONFIGS, case, config


def result_of(name: str, n: int = 400) -> EvalResult:
    cfg, rows = case(name, n)
    return EvalState.empty(cfg).add(rows).result(timing={"seconds": 0.5}, files=["a.parquet"])


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("n", [0, 1, 400])
def test_json_round_trip(name, n):
    result = result_of(name, n)
    text = result.to_json()
    values = json.loads(text, parse_constant=lambda word: pytest.fail(f"{word} is no JSON"))
    assert values["schema"] == SCHEMA == "fastxent/eval/1"
    back = EvalResult.from_json(text)
    assert back.to_json() == text
    assert back.config == result.config
    assert repr(back) == repr(result)
    if n == 400:
        assert back.metrics["accuracy"] == result.metrics["accuracy"]
        assert {k: v.rows for k, v in back.slices.items() for v in v.values()} == {
            k: v.rows for k, v in result.slices.items() for v in v.values()
        }


def test_undefined_and_infinite_numbers_are_valid_json():
    cfg, rows = case("plain", dirty=False)
    rows.loss[0] = rows.nll[0] = math.inf
    result = EvalState.empty(cfg).add(rows).result()
    values = json.loads(result.to_json())
    assert values["metrics"]["cross_entropy"] == {"value": "inf", "stderr": None, "ci95": [None, None]}
    assert values["nll_quantiles"]["1.0"] == "inf"
    back = EvalResult.from_dict(values)
    assert back.metrics["cross_entropy"].value == math.inf
    assert math.isnan(back.metrics["cross_entropy"].stderr)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"schema": "other/1"}', '{"schema": "fastxent/eval/1"}'])
def test_other_json_is_refused(text):
    with pytest.raises(StateError):
        EvalResult.from_json(text)


def test_slices_of_json_are_keyed_by_text():
    values = result_of("by").to_dict()["slices"]
    assert set(values) == {"kind", "fold"}
    assert set(values["kind"]) == {"code", "prose", "null"}
    assert values["kind"]["null"]["value"] is None
    assert list(values["fold"]) == ["0", "1", "2", "3", "4"]
    assert values["fold"]["3"]["value"] == 3


def test_class_names():
    names = ("zero", "one", "two", "three", "four", "five", "six")
    cfg, rows = case("plain")
    result = EvalState.empty(replace(cfg, classes=names)).add(rows).result()
    assert result.per_class.name == tuple(names[c] for c in result.per_class.class_id)
    assert EvalResult.from_json(result.to_json()).per_class == result.per_class


def test_arrow():
    result = result_of("everything")
    table = result.to_arrow()
    names = ["column", "slice", "metric", "value", "stderr", "ci95_low", "ci95_high", "bounds_low", "bounds_high"]
    assert table.schema.names == names
    assert table.num_rows == len(result.metrics) * (1 + 3 + 5)
    whole = table.filter(pa.compute.is_null(table["column"]))
    assert whole["metric"].to_pylist() == list(result.metrics)
    assert whole["value"].to_pylist() == [metric.value for metric in result.metrics.values()]
    one = [r for r in table.to_pylist() if (r["column"], r["slice"], r["metric"]) == ("fold", "3", "accuracy")]
    metric = result.slices["fold"][3].metrics["accuracy"]
    assert [(r["value"], r["stderr"], r["ci95_low"], r["ci95_high"]) for r in one] == [
        (metric.value, metric.stderr, *metric.ci95)
    ]


@pytest.mark.parametrize("name", CONFIGS)
def test_repr_is_a_table_of_80_columns(name):
    cfg, rows = case(name)
    if "kind" in rows.by:
        rows.by["kind"] = pa.array(["[red]a very\x1b[31m long name of a kind that no table has room for"] * 400)
    result = EvalState.empty(cfg).add(rows).result()
    text = repr(result)
    assert max(map(len, text.splitlines())) <= 80
    assert "400 rows" in text
    assert "\x1b" not in text
    assert ("[red]a very" in text) == ("kind" in rows.by)
    for metric_name, metric in result.metrics.items():
        line = next(line for line in text.splitlines() if line.split()[:1] == [metric_name])
        assert f"{metric.value:.5g}" in line.split()
    for column in result.slices:
        assert any(line.split()[:2] == [column, "rows"] for line in text.splitlines())


def test_repr_of_nothing():
    text = repr(EvalState.empty(config("everything")).result())
    assert "0 rows" in text
    assert "no row was used" in text


def test_long_slice_tables_are_cut_with_a_word():
    cfg, rows = case("by")
    rows.by["fold"] = pa.array(range(400))
    text = repr(EvalState.empty(cfg).add(rows).result())
    assert "and 380 more values of fold" in text


def test_markdown():
    cfg, rows = case("by")
    rows.by["kind"] = pa.array(["a|b\nc"] * 400)
    result = EvalState.empty(cfg).add(rows).result()
    lines = result.to_markdown().splitlines()
    assert "| metric | value | stderr | 95 % interval |" in lines
    assert any(line.startswith(f"| `accuracy` | {result.metrics['accuracy'].value:.5g} |") for line in lines)
    assert any(line.startswith("| a\\|b c |") for line in lines)
    widths = {line.replace("\\|", "").count("|") for line in lines if line.startswith(("| `", "| met"))}
    assert widths == {5}

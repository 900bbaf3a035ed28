"""The report, the tables and the trackers of a binary dump."""

import json
import re
import xml.etree.ElementTree as ET

import numpy as np
import pytest

import fastxent as fx
from fastxent.results.report import html
from fastxent.results.trackers import log


@pytest.fixture(scope="module")
def result():
    rng = np.random.default_rng(5)
    odds = rng.normal(size=800)
    target = rng.random(800) < 1 / (1 + np.exp(-odds))
    kind = np.array(["ads", "mail"])[rng.integers(0, 2, 800)]
    return fx.evaluate({"logits": odds, "target": target, "kind": kind}, by="kind")


def test_the_report_draws_the_curves(result):
    text = html(result)
    assert "Cumulative gains" in text
    assert f"The dot is the threshold {result.curves.best_f1.threshold:.4g} with the best F1" in text
    assert f"equal error: threshold {result.curves.equal_error.threshold:.4g}" in text
    assert "ROC curve: share of the positive rows" in text
    assert "Precision and recall at each threshold" in text
    assert "Bins of the prediction" in text
    assert f"{result.metrics['roc_auc'].value:.5g}" in text
    for drawing in re.findall(r"<svg.*?</svg>", text, re.DOTALL):
        ET.fromstring(drawing)
    assert html(fx.EvalResult.from_json(result.to_json())) == text


def test_a_report_of_one_class_has_no_curves():
    result = fx.evaluate({"logits": np.float64([1, 2]), "target": [1, 1]})
    assert "ROC curve" not in html(result)
    with pytest.raises(fx.ConfigError, match="cannot plot a curve: the result has none"):
        result.plot_roc_curve()


def test_a_notebook_shows_the_curves(result):
    assert "ROC curve" in result._repr_html_()
    assert result.plot_roc_curve().axes
    assert result.plot_precision_recall_curve().axes
    assert result.plot_gains_curve().axes


def test_tables_name_what_binary_bins_hold(result):
    text = str(result)
    assert "800 rows · 800 used · binary" in text
    assert re.search(r"prediction bin\s+rows\s+prediction\s+positive", text)
    assert re.search(r"kind\s+rows\s+cross-entropy\s+stderr\s+norm[.] entropy\s+roc_auc\s+calib[.] ratio", text)
    assert max(map(len, text.splitlines())) <= 80
    assert "| `roc_auc` |" in result.to_markdown()


def test_a_tracker_takes_every_metric(result, tmp_path):
    log(result, f"jsonl:{tmp_path / 'runs.jsonl'}")
    line = json.loads((tmp_path / "runs.jsonl").read_text(encoding="utf-8"))
    assert "roc_auc" in json.dumps(line)


@pytest.mark.parametrize(
    "change",
    [
        lambda found: found["curves"]["roc"]["threshold"].pop(),
        lambda found: found["curves"].pop("roc"),
        lambda found: found["curves"].update(roc=3),
        lambda found: found["curves"]["gains"]["lift"].pop(),
        lambda found: found["curves"].update(best_f1=[1]),
        lambda found: found["curves"]["best_f1"].update(threshold="x"),
        lambda found: found["curves"]["equal_error"].pop("recall"),
        lambda found: found["metrics"]["roc_auc"].update(method=3),
        lambda found: found["metrics"]["roc_auc"].update(bounds=[0.5]),
        lambda found: found["config"].update(task="other"),
    ],
)
def test_a_damaged_result_is_refused(result, change):
    values = json.loads(result.to_json())
    change(values)
    with pytest.raises(fx.StateError, match="cannot read the result"):
        fx.EvalResult.from_dict(values)


def test_bounds_are_read_back(result):
    values = json.loads(result.to_json())
    assert "bounds" not in values["metrics"]["roc_auc"]
    values["metrics"]["roc_auc"]["bounds"] = [0.25, 0.75]
    assert fx.EvalResult.from_dict(values).metrics["roc_auc"].bounds == (0.25, 0.75)
    assert result.metrics["matthews_corrcoef"].stderr > 0

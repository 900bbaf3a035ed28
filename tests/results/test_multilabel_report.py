"""The report and the tables of a multilabel dump."""

import re
import xml.etree.ElementTree as ET

import pytest

import fastxent as fx
from fastxent.results.report import html
from tests.verbs.tags import C, table


@pytest.fixture(scope="module")
def result():
    names = [f"tag {j}" for j in range(C)]
    return fx.evaluate(table(), task="multilabel", by="kind", classes=names)


def test_the_report_shows_labels(result):
    text = html(result)
    for shown in ("Micro F1", "Macro F1", "Mean average precision", "tag 4", "positive share of the labels"):
        assert shown in text
    assert f"{result.metrics['macro_f1'].value:.5g}" in text
    for drawing in re.findall(r"<svg.*?</svg>", text, re.DOTALL):
        ET.fromstring(drawing)
    again = fx.EvalResult.from_json(result.to_json())
    assert again == result
    assert html(again) == text


def test_tables_name_what_bins_hold(result):
    text = str(result)
    assert "400 rows · 400 used · 5 labels" in text
    assert re.search(r"prediction bin\s+labels\s+prediction\s+positive", text)
    assert re.search(r"kind\s+rows\s+cross-entropy\s+stderr\s+micro F1\s+macro F1\s+mAP", text)
    assert max(map(len, text.splitlines())) <= 80
    assert "| `mean_average_precision` |" in result.to_markdown()

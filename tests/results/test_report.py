"""The HTML report: its contents, its agreement with the JSON, and its size and safety for any names."""

from __future__ import annotations

import json
import math
import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

import report_cases
from fastxent.cli.program import run
from fastxent.errors import ConfigError, OutputError
from fastxent.results.report import drawing, html, plots, svg
from fastxent.results.result import EvalResult
from fastxent.results.text import number
from fastxent.results.values import Metric, labels
from fastxent.state.evaluation import EvalState
from scored_cases import CONFIGS, case

VOID = {"meta", "link", "input", "br", "img"}


class Page(HTMLParser):
    """Elements by tag, the tables as (key, text) cells, and all that is not closed as it was opened."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.tables: dict[str, list[list[tuple[str | None, str]]]] = {}
        self.text = ""
        self.open: list[str] = []
        self._caption = ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "table":
            self._caption = ""
        elif tag == "tr" and self._caption:
            self.tables.setdefault(self._caption, []).append([])
        elif tag == "td":
            self.tables[self._caption][-1].append((dict(attrs).get("data-v"), ""))

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] not in ("style", "script"):
            self.text += data
        if "caption" in self.open:
            self._caption += data
        elif "td" in self.open:
            key, text = self.tables[self._caption][-1][-1]
            self.tables[self._caption][-1][-1] = key, text + data

    def rows(self, caption: str) -> list[list[tuple[str | None, str]]]:
        return [row for row in self.tables[caption] if row]


def page_of(result: EvalResult) -> Page:
    text = html(result)
    page = Page(text)
    page.rawdata_all = text
    return page


def key(value: object) -> str | None:
    """A JSON number as a cell carries it."""
    return None if value is None else value if isinstance(value, str) else repr(value)


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("n", [0, 1, 300])
def test_every_kind_of_result_makes_a_page(name, n):
    cfg, rows = case(name, n)
    page = page_of(EvalState.empty(cfg).add(rows).result())
    sections = [attrs["id"] for tag, attrs in page.elements if tag == "section"]
    assert sections[:2] == ["metrics", "input"]
    assert ("slices" in sections) == bool(n and cfg.by)
    links = [attrs["href"] for tag, attrs in page.elements if tag == "a"]
    assert links == [f"#{section}" for section in sections]


def test_ids_are_used_once_and_references_meet_them():
    text = html(report_cases.ordinary())
    ids = re.findall(r'\bid="([^"]+)"', text)
    assert len(ids) == len(set(ids))
    used = set(re.findall(r"url\(#([^)]+)\)", text)) | set(re.findall(r'href="#([^"]+)"', text))
    assert used
    assert used <= set(ids)


def test_nothing_outside_the_file_is_named():
    text = html(report_cases.ordinary())
    assert "http" not in text.replace("http-equiv", "")
    assert "//" not in re.sub(r"^\s*//.*$", "", text, flags=re.MULTILINE)  # nor any address without a scheme
    assert "@import" not in text
    for tag, attrs in Page(text).elements:
        assert tag not in ("img", "iframe", "object", "embed", "base", "form")
        assert "src" not in attrs
        for name in ("href", "xlink:href"):
            assert (attrs.get(name) or "#").startswith("#") or (tag, attrs[name]) == ("link", "data:,")


def test_the_report_comes_from_the_json_alone():
    result = report_cases.ordinary()
    assert html(EvalResult.from_json(result.to_json())) == html(result)


def test_the_figures_are_those_of_the_json():
    result = report_cases.ordinary()
    values = json.loads(result.to_json())
    page = page_of(result)
    shown = page.rows("Metrics with standard errors and 95 % intervals")
    assert [row[0][1] for row in shown] == list(values["metrics"])
    for row, metric in zip(shown, values["metrics"].values(), strict=True):
        assert row[1] == (key(metric["value"]), number(metric["value"]))
        assert row[2][0] == key(metric["stderr"])
        assert row[3][0] == key(metric["ci95"][0])

    bins = values["calibration"]
    used = [i for i, n in enumerate(bins["count"]) if n]
    assert [(row[1][0], row[2][0], row[3][0]) for row in page.rows("Bins of the confidence")] == [
        (key(bins["count"][i]), key(bins["confidence"][i]), key(bins["accuracy"][i])) for i in used
    ]
    assert [row[1][0] for row in page.rows("Quantiles of the NLL")] == [
        key(v) for v in values["nll_quantiles"].values()
    ]

    for column, entries in values["slices"].items():
        rows = page.rows(f"Slices by {column}")
        assert [row[0][1] for row in rows] == list(entries)
        for row, entry in zip(rows, entries.values(), strict=True):
            metrics = entry["metrics"]
            assert row[1][0] == str(entry["rows"]["used"])
            assert row[2][0] == key(metrics["cross_entropy"]["value"])
            low, high = metrics["cross_entropy"]["ci95"]
            assert row[3] == (key(high - low), f"{number(low, 3)} … {number(high, 3)}")

    by = values["per_class"]
    assert [[cell[0] for cell in row] for row in page.rows("Classes")] == [
        [key(cell) for cell in row]
        for row in zip(*(by[name] for name in ("class_id", "support", "predicted", "correct", "precision", "recall",
                                               "f1", "nll")), strict=True)
    ]  # fmt: skip


def test_what_was_read_is_said():
    result = report_cases.ordinary(files=tuple(f"part-{i}.parquet" for i in range(30)))
    text = page_of(result).text
    for said in ("part-19.parquet", "and 10 more", "label_smoothing=0.0", f"{result.rows.bad_logits}",
                 *result.versions, *result.versions.values()):  # fmt: skip
        assert said in text
    assert "part-20.parquet" not in text


# -- plots -----------------------------------------------------------------------------------------------------------


def test_marks_of_the_reliability_diagram_are_the_bins():
    result = report_cases.ordinary()
    drawn = plots.reliability(result)
    bins = result.calibration
    used = [i for i, n in enumerate(bins.count) if n]
    top, below = drawn.axes
    points = next(c for c in top.collections if c.get_gid() == "bins").get_offsets().tolist()
    assert points == [[bins.confidence[i], bins.accuracy[i]] for i in used]
    assert [patch.get_height() for patch in below.patches] == [bins.count[i] for i in used]
    assert len(drawn.tips["bins"]) == len(used)


@pytest.mark.parametrize("rows", [5, 40, 600, 20_000])
def test_bars_of_the_histogram_have_the_area_of_their_rows(rows):
    cfg, scored = case("plain", rows, dirty=False)
    result = EvalState.empty(cfg).add(scored).result()
    top, below = plots.nll_histogram(result).axes
    area = sum(bar.get_height() * math.log2((bar.get_x() + bar.get_width()) / bar.get_x()) for bar in top.patches)
    assert area == pytest.approx(1, rel=1e-12)
    x, y = below.lines[0].get_data()
    assert y[-1] == 1.0
    edges, counts = result.nll_histogram.edges, result.nll_histogram.counts
    for at, share in zip(x, y, strict=True):  # each point of the curve is a count of the histogram
        assert share == sum(n for edge, n in zip(edges, counts, strict=False) if edge < at) / rows
    assert len(top.patches) <= 66


def test_a_histogram_from_zero_to_infinity_is_drawn():
    cfg, rows = case("plain", 100, dirty=False)
    rows.nll[:10], rows.nll[10:20], rows.nll[20:30] = 0.0, 1e9, math.inf
    result = EvalState.empty(cfg).add(rows).result()
    assert (result.nll_histogram.edges[0], result.nll_histogram.edges[-1]) == (0.0, math.inf)
    drawn = plots.nll_histogram(result)
    assert drawn.axes[1].lines[0].get_ydata()[-1] == 0.9
    assert "10 rows with an infinite NLL are not shown" in page_of(result).text
    svg.inline(drawn, "")


def test_the_forest_is_sorted_and_has_every_interval():
    result = report_cases.ordinary()
    drawn = plots.forest(result, "fold", "accuracy")
    ax = drawn.axes[0]
    parts = sorted(result.slices["fold"].items(), key=lambda entry: entry[1].metrics["accuracy"].value)
    assert [text.get_text() for text in ax.get_yticklabels()] == labels(dict(parts))
    segments = ax.collections[0].get_segments()
    assert [(s[0][0], s[1][0]) for s in segments] == [part.metrics["accuracy"].ci95 for _, part in parts]


def test_one_wild_interval_does_not_squeeze_the_rest():
    calm = [Metric(1.0 + i / 10, 0.1, (0.8 + i / 10, 1.2 + i / 10)) for i in range(5)]
    wild = Metric(1.2, 1e6, (-2e6, 2e6))
    low, high = drawing.limits([*calm, wild], Metric(1.2))
    assert low < 0.8
    assert high > 1.6
    assert high - low < 4
    assert drawing.limits([], Metric(math.nan)) == (0.0, 1.0)
    assert drawing.limits([Metric(math.inf)], Metric(math.nan)) == (0.0, 1.0)
    low, high = drawing.limits([Metric(0.0)], Metric(0.0))
    assert low < 0 < high


def test_plots_of_a_result_are_figures_for_notebooks():
    result = report_cases.ordinary()
    for drawn in (result.plot_reliability(), result.plot_nll_histogram(), result.plot_slices()):
        ET.fromstring(drawn._repr_svg_())
    assert result.plot_slices("fold", "accuracy").axes[0].get_xlabel() == "accuracy"
    with pytest.raises(ConfigError, match="invalid column 'other'; expected one of: kind, fold"):
        result.plot_slices("other")
    with pytest.raises(ConfigError, match="invalid metric 'other'; expected one of: cross_entropy"):
        result.plot_slices(metric="other")
    with pytest.raises(ConfigError, match="cannot plot slices: the result has none"):
        replace(result, slices={}).plot_slices()


def test_the_session_keeps_its_own_style():
    import matplotlib

    with matplotlib.rc_context({"axes.facecolor": "red", "font.size": 33, "text.parse_math": True}):
        drawn = report_cases.ordinary().plot_reliability()
        assert matplotlib.rcParams["font.size"] == 33
        assert drawn.axes[0].yaxis.label.get_fontsize() < 15


def test_a_notebook_shows_figures_without_scripts():
    text = report_cases.ordinary()._repr_html_()
    assert "<script" not in text
    assert text.count("<svg") >= 3
    Page(text)


def test_figures_take_their_colours_from_the_page():
    text = html(report_cases.ordinary())
    for element in re.findall(r"<svg.*?</svg>", text, flags=re.DOTALL):
        assert re.findall(r"#[0-9a-f]{6}\b", element) == []
        assert "var(--accent)" in element


# -- hostile, broken and large ---------------------------------------------------------------------------------------


def test_names_are_text_wherever_they_stand():
    result = report_cases.hostile()
    text = html(result)
    page = Page(text)
    assert [tag for tag, _ in page.elements].count("script") == 1
    assert not any(name.startswith("on") for _, attrs in page.elements for name in attrs)
    assert {"img", "b"} & {tag for tag, _ in page.elements} == set()
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f\u202e\ud800-\udfff]", text)
    for name in ("<script>alert(1)</script>", "&amp;", "$\\frac{1}{0}$", "{{ 7 * 7 }}{% raw %}", "中文 😀"):
        assert name in page.text
        assert name in [row[0][1] for row in page.rows("Slices by <script>alert(1)</script>")]
    assert "n" * 1000 not in text
    text.encode("utf-8")


def test_a_lone_surrogate_is_written(tmp_path):
    result = report_cases.ordinary(files=("caf\udce9.parquet",))
    result.to_html(tmp_path / "report.html")
    assert "caf\N{REPLACEMENT CHARACTER}.parquet" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_figures_that_are_infinite_or_undefined():
    result = report_cases.broken()
    page = page_of(result)
    metrics = {row[0][1]: row for row in page.rows("Metrics with standard errors and 95 % intervals")}
    assert metrics["cross_entropy"][1] == ("inf", "inf")
    assert metrics["cross_entropy"][2] == (None, "–")
    slices = {row[0][1]: row for row in page.rows("Slices by kind")}
    assert slices["empty"][1][0] == "0"
    assert slices["empty"][2] == (None, "–")
    assert slices["one row"][3] == (None, "–")
    assert "Slices without a finite value (2) are only in the table" in page.text
    assert "nan" not in page.text.lower()


def test_metrics_that_were_not_asked_for_are_not_missed():
    cfg, rows = case("by")
    for names in (("accuracy",), ("z_loss",), ("expected_calibration_error",)):
        result = EvalState.empty(replace(cfg, metrics=names)).add(rows).result()
        assert len(page_of(result).rows("Metrics with standard errors and 95 % intervals")) == 1


@pytest.fixture(scope="module")
def large() -> tuple[EvalResult, str]:
    result = report_cases.large()
    return result, html(result)


def test_a_large_result_stays_small(large):
    result, text = large
    assert len(text.encode()) < 5_000_000
    page = Page(text)
    assert len(page.rows("Slices by language")) == 200
    assert len(page.rows("Classes")) == 1000
    assert len(plots.forest(result).tips["slices"]) == 200


def test_even_larger_results_say_what_they_leave_out(large):
    result, _ = large
    by = result.per_class
    many = {
        name: getattr(by, name) * 50 for name in ("support", "predicted", "correct", "precision", "recall", "f1", "nll")
    }
    parts = {f"{label} {i}": part for i in range(15) for label, part in result.slices["language"].items()}
    text = html(
        replace(result, per_class=replace(by, class_id=tuple(range(50_000)), **many), slices={"language": parts})
    )
    assert len(text.encode()) < 5_000_000
    assert "Only the 2,000 classes with the most rows are shown, of 50,000; the JSON has all." in text
    assert "Only the 2,000 slices with the most rows are shown, of 3,000; the JSON has all." in text
    assert "Only the 200 slices with the most rows are shown, of 3,000." in text


# -- the command and the packages ------------------------------------------------------------------------------------


def test_the_command_writes_beside_the_result_or_where_told(tmp_path, capsys):
    result = report_cases.ordinary()
    saved = tmp_path / "figures.json"
    saved.write_text(result.to_json(), encoding="utf-8")
    assert run(["report", str(saved)]) == 0
    assert run(["report", str(saved), "-o", str(tmp_path / "other.html")]) == 0
    assert capsys.readouterr().out == ""
    assert (tmp_path / "figures.html").read_text(encoding="utf-8") == html(result)
    assert (tmp_path / "other.html").read_bytes() == (tmp_path / "figures.html").read_bytes()


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (None, "cannot read the result"),
        (b"{}", "its schema is not 'fastxent/eval/1'"),
        (b"\xff\xfe", "not UTF-8 text"),
        (b'{"schema": "fastxent/eval/1"}', "cannot read the result: it lacks 'rows'"),
    ],
)
def test_the_command_refuses_what_is_no_result(tmp_path, capsys, content, complaint):
    saved = tmp_path / "figures.json"
    if content is not None:
        saved.write_bytes(content)
    assert run(["report", str(saved)]) == 2
    error = capsys.readouterr().err
    assert complaint in error
    assert str(saved) in error
    assert len(error.splitlines()) == 1
    assert not (tmp_path / "figures.html").exists()


def test_a_report_that_cannot_be_written_is_one_line(tmp_path):
    with pytest.raises(OutputError, match="does not exist"):
        report_cases.ordinary().to_html(tmp_path / "nowhere" / "report.html")


@pytest.mark.parametrize("package", ["matplotlib", "jinja2"])
def test_without_its_packages_the_report_names_the_command_that_installs_them(package):
    code = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parents[1])!r})
sys.modules[{package!r}] = None  # as if it were not installed
import report_cases
from fastxent.errors import OutputError
result = report_cases.ordinary()
plots = [result.plot_reliability, result.plot_nll_histogram, result.plot_slices]
for draw in [lambda: result.to_html("never.html"), *plots]:
    try:
        draw()
    except OutputError as error:
        print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=True)
    assert done.stdout.splitlines() == [
        f"cannot draw reports: {package} is not installed; run pip install 'fastxent[report]'"
    ] * 4  # fmt: skip
    assert not Path("never.html").exists()


def test_nothing_has_no_bar():
    result = report_cases.ordinary()
    by = result.per_class
    support = (0, *by.support[1:])
    page = html(replace(result, per_class=replace(by, support=support)))
    classes = page.split('id="classes"')[1].split("<h2>")[1]
    assert classes.count('class="track"') == sum(n > 0 for n in support)

"""The report of an evaluation: its sections, and the plots and tables in each."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import fields
from os.path import basename
from typing import NamedTuple, TypeVar

from markupsafe import Markup

from fastxent.options.config import EvalConfig
from fastxent.results.comparison import CompareValues
from fastxent.results.evaluation import EvalValues
from fastxent.results.report import details, drawing, plots
from fastxent.results.report.page import Cell, Column, HtmlTable, Section, render
from fastxent.results.report.svg import Drawing, inline
from fastxent.results.text import count, metric_cells, notes, number, value_text
from fastxent.results.values import Metric, labels

MOST_ROWS = 2000  # in a table; the JSON has all
_TEMPLATE = "evaluation.html.j2"
_MOST_FILES = 20
_FEW = 40  # slices of a column that a notebook shows
_NAMES = {
    "cross_entropy": "Cross-entropy (nats)",
    "perplexity": "Perplexity",
    "bits_per_byte": "Bits per byte",
    "accuracy": "Accuracy",
    "brier_score": "Brier score",
    "expected_calibration_error": "Calibration error (ECE)",
    "coverage": "Coverage (target is listed)",
    "covered_mass": "Covered probability",
}
_BINARY_NAMES = {
    "cross_entropy": "Cross-entropy (nats)",
    "normalized_entropy": "Normalized entropy",
    "roc_auc": "ROC AUC",
    "average_precision": "Average precision",
    "brier_score": "Brier score (0 to 1)",
    "calibration_ratio": "Mean prediction / base rate",
}
_MULTILABEL_NAMES = {
    "cross_entropy": "Cross-entropy (nats)",
    "exact_match": "Exact match",
    "micro_f1": "Micro F1",
    "macro_f1": "Macro F1",
    "mean_average_precision": "Mean average precision",
    "brier_score": "Brier score (0 to 1)",
}
_TIMING = {
    "seconds": "elapsed (s)",
    "rows_per_second": "rows/s",
    "gb_per_second": "GB/s of logits",
    "read_seconds": "reading (s)",
    "decode_seconds": "decoding (s)",
    "kernel_seconds": "computing (s)",
    "state_seconds": "aggregation (s)",
    "write_seconds": "writing (s)",
}
_TITLES = {"multiclass": _NAMES, "binary": _BINARY_NAMES, "multilabel": _MULTILABEL_NAMES}
_WITH_INTERVAL = ("cross_entropy", "accuracy")

T = TypeVar("T")


class Card(NamedTuple):
    """A metric in the headline."""

    title: str
    value: str
    interval: str


def title(result: EvalValues) -> str:
    """Return the title of the report: the name of the input file."""
    if len(result.files) == 1:
        return f"Evaluation of {basename(result.files[0]) or result.files[0]}"
    return f"Evaluation of {count(len(result.files))} files" if result.files else "Evaluation"


def sections(result: EvalValues) -> list[Section]:
    """Return the sections of the report that are not empty."""
    found = [("metrics", "Metrics", _headline(result)), ("input", "Input and options", inputs(result, result.files))]
    if result.curves is not None:
        found.append(("curves", "Curves", render(_TEMPLATE, part="calibration", plots=_curves(result), bins=None)))
    if result.has_calibration:
        found.append(("calibration", "Calibration", _calibration(result)))
    if any(result.slices.values()):
        found.append(("slices", "Slices", _slices(result)))
    if result.per_class.class_id:
        found.append(("classes", "Classes", _classes(result)))
    if result.most_confused is not None:
        found.append(("confusion", "Confusion", details.confused(result)))
    if result.worst:
        found.append(("worst", "Rows of largest loss", details.worst(result)))
    return [Section(*section) for section in found]


def summary(result: EvalValues) -> Markup:
    """Return the metrics and plots of the report, without its long tables."""
    found = _curves(result)
    found += [_reliability(result)] if result.has_calibration else []
    few = [column for column, parts in result.slices.items() if 0 < len(parts) <= _FEW]
    found += [_forest(result, column, metric) for column in few for metric in _forests(result)]
    return _headline(result) + render(_TEMPLATE, part="calibration", plots=found, bins=None)


def _shown(result: EvalValues) -> list[str]:
    """Return the metrics of the headline and of the tables of slices."""
    names = _TITLES.get(result.task, _NAMES)
    return [name for name in (*names, *result.config.scores) if name in result.metrics] or list(result.metrics)[:6]


def _headline(result: EvalValues) -> Markup:
    names = _shown(result)
    cards = []
    for name in names:
        metric = result.metrics[name]
        low, high = metric.ci95
        interval = "" if math.isnan(low) else f"95 % CI: {number(low, 3)} … {number(high, 3)}"
        cards.append(
            Card(
                _TITLES.get(result.task, _NAMES).get(name, name.replace("_", " ")), value_text(metric, ends=3), interval
            )
        )
    table = HtmlTable(
        "Metrics with standard errors and 95 % intervals",
        [Column("metric", "text"), Column("value"), Column("stderr"), Column("95 % interval")],
        [
            [Cell(name), _value(m), Cell(error or "–", _key(m.stderr)), Cell(interval or "–", _key(m.ci95[0]))]
            for name, m in result.metrics.items()
            for _, error, interval in [metric_cells(m)]
        ],
        paged=False,
    )
    return render(
        _TEMPLATE, part="headline", warnings=result.warnings, caution=" ".join(notes(result)), cards=cards,
        metrics=table, plots=[_nll(result)] if result.has_losses else [], quantiles=_quantiles(result),
    )  # fmt: skip


def inputs(result: EvalValues | CompareValues, files: Sequence[str]) -> Markup:
    """Return the counts of rows, the input files, the options, versions and the timing of a run."""
    rows = result.rows
    counts = [("total", rows.total), ("used", rows.used), ("ignored", rows.ignored), ("bad", rows.bad)]
    if rows.bad:
        counts += [("bad logits", rows.bad_logits), ("bad targets", rows.bad_target)]
    if result.clusters is not None:
        counts.append(("clusters", result.clusters))
    options = [(option.name, getattr(result.config, option.name), option.default) for option in fields(EvalConfig)]
    if isinstance(result, EvalValues):
        options = [option for option in options if option[0] != "renormalize"]  # of comparisons
    return render(
        _TEMPLATE, part="input", rows=[(name, count(n)) for name, n in counts],
        chosen=[(name, _option(value)) for name, value, default in options if value != default],
        defaults=", ".join(f"{name}={_option(value)}" for name, value, default in options if value == default),
        shown_files=files[:_MOST_FILES], more_files=max(0, len(files) - _MOST_FILES),
        versions=result.versions.items(),
        timing=[
            (_TIMING.get(name, name.replace("_", " ")), f"{value:,.4g}")
            for name, value in (result.timing or {}).items()
            if isinstance(value, int | float)
        ],
    )  # fmt: skip


def _option(value: object) -> str:
    if isinstance(value, tuple):
        short = ", ".join(map(str, value[:12]))
        return short if len(value) <= 12 else f"{short}, … ({count(len(value))} values)"
    return "–" if value is None else str(value)


def _calibration(result: EvalValues) -> Markup:
    bins = result.calibration
    mean, share = plots.calibrated(result)
    table = HtmlTable(
        f"Bins of the {mean}",
        [Column("bin", "text"), Column(_binned(result), "bar"), Column(mean), Column(share), Column("gap")],
        [
            [
                Cell(f"({number(low, 3)}, {number(high, 3)}]"),
                _bar(n, max(bins.count)),
                *(_number(value) for value in (confidence, accuracy, accuracy - confidence)),
            ]
            for low, high, n, confidence, accuracy in zip(
                bins.lower, bins.upper, bins.count, bins.confidence, bins.accuracy, strict=True
            )
            if n
        ],
        paged=False,
    )
    found = [_reliability(result)]
    confidence, right = (result.metrics.get(name) for name in ("confidence", "accuracy"))
    if confidence is not None and right is not None:
        gap = 100 * (confidence.value - right.value)
        verdict = f"{'over' if gap > 0 else 'under'}confident by {abs(gap):.2g} points" if gap else "well calibrated"
        said = f" On average {verdict}: " if math.isfinite(gap) else " "
        found.append(drawn(
            plots.confidence_accuracy(result),
            f"Accuracy against mean confidence.{said}mean confidence {number(confidence.value, 4)}, "
            f"accuracy {number(right.value, 4)}. Points below the line are overconfident.",
        ))  # fmt: skip
    return render(_TEMPLATE, part="calibration", plots=found, bins=table)


def _binned(result: EvalValues) -> str:
    """Return what bins of calibration count: a row of a multilabel dump has many labels."""
    return "labels" if result.task == "multilabel" else "rows"


def line_of(result: EvalValues) -> str:
    """Return what the isotonic line of the reliability diagram is; empty without one."""
    if result.reliability is None:
        return ""
    mean, share = plots.calibrated(result)
    found = f"The line is the isotonic regression of the {share} on the {mean}, without bins. "
    if plots.has_band(result):
        return (
            f"{found}It lies within the band for 90 % of calibrated dumps with these {_binned(result)}, at each point. "
        )
    return f"{found}It has no band, because {'labels' if result.task == 'multilabel' else 'rows'} are not independent. "


def _reliability(result: EvalValues) -> tuple[Markup, str]:
    mean, share = plots.calibrated(result)
    what = _binned(result)
    caption = (
        f"Reliability: {share} of the {what} in each bin of {mean}. {line_of(result)}"
        f"Below: number of {what} in each bin."
    )
    return drawn(plots.reliability(result), caption)


def _curves(result: EvalValues) -> list[tuple[Markup, str]]:
    if result.curves is None:
        return []
    best, equal = result.curves.best_f1, result.curves.equal_error
    area, precision = (result.metrics.get(name) for name in ("roc_auc", "average_precision"))
    under = "" if area is None else f" The area under it is {number(area.value)}."
    mean = "" if precision is None else f" The average precision is {number(precision.value)}."
    return [
        drawn(
            plots.roc_curve(result),
            "ROC curve: share of the positive rows against share of the negative rows that are predicted positive, at "
            f"each threshold.{under} The dot is the threshold {number(equal.threshold, 4)}, where both error rates are "
            f"about {number((equal.false_positive_rate + equal.false_negative_rate) / 2, 3)}.",
        ),
        drawn(
            plots.precision_recall_curve(result),
            "Precision and recall at each threshold. The dashed line is the share of positive rows, which a random "
            f"score has.{mean} The dot is the threshold {number(best.threshold, 4)} with the best F1, "
            f"{number(best.f1, 4)}.",
        ),
        drawn(
            plots.gains_curve(result),
            "Cumulative gains: share of the positive rows among the rows of the highest scores. The dashed line is a "
            "random order.",
        ),
    ]


def _nll(result: EvalValues) -> tuple[Markup, str]:
    more = result.nll_histogram.infinite
    unknown = " or unknown" if result.config.partial else ""
    caption = "Distribution of the NLL of a row: the area of a bar is its share of the rows. Below: cumulative share."
    return drawn(
        plots.nll_histogram(result),
        caption + (f" {count(more)} rows with an infinite{unknown} NLL are not shown." if more else ""),
    )


def _quantiles(result: EvalValues) -> HtmlTable:
    return HtmlTable(
        "Quantiles of the NLL",
        [Column("quantile"), Column("NLL (nats)")],
        [[Cell(f"{100 * q:g} %", _key(q)), _number(value)] for q, value in result.nll_quantiles.items()],
        paged=False,
    )


def _slices(result: EvalValues) -> Markup:
    columns = [
        (column, _slice_table(result, column), [_forest(result, column, metric) for metric in _forests(result)])
        for column, parts in result.slices.items()
        if parts
    ]
    return render(_TEMPLATE, part="slices", columns=columns)


def _forests(result: EvalValues) -> list[str]:
    names = (*_WITH_INTERVAL, *result.config.scores)
    return [name for name in names if name in result.metrics] or list(result.metrics)[:1]


def _forest(result: EvalValues, column: str, metric: str) -> tuple[Markup, str]:
    shown = metric.replace("_", " ")
    caption = (
        f"{shown[0].upper()}{shown[1:]} of each slice with its 95 % interval. The dashed line is the value of all rows."
    )
    parts = result.slices[column]
    if len(parts) > drawing.MOST_SLICES:
        caption += f" Only the {drawing.MOST_SLICES} slices with the most rows are shown, of {count(len(parts))}."
    undefined = sum(not drawing.finite_ends(part.metrics[metric]) for part in parts.values())
    if any(part.metrics[metric].bounds and math.isnan(part.metrics[metric].value) for part in parts.values()):
        caption += " A wide bar holds the exact value of a slice of which only bounds are known."
    if undefined:
        caption += f" Slices without a finite value ({count(undefined)}) are only in the table."
    return drawn(plots.forest(result, column, metric), caption)


def _slice_table(result: EvalValues, column: str) -> HtmlTable:
    parts = result.slices[column]
    chosen = _shown(result)
    bounds = {
        name: drawing.limits([part.metrics[name] for part in parts.values()], result.metrics[name])
        for name in _forests(result)
    }
    columns = [Column(column, "text"), Column("rows", "bar")]
    for name in chosen:
        columns.append(Column("ECE" if name == "expected_calibration_error" else name.replace("_", " ")))
        if name in bounds:
            columns.append(Column("95 % interval", "interval", f"of {name}"))
    named = list(zip(labels(parts), parts.values(), strict=True))
    shown = _most(named, [part.rows.used for _, part in named])
    most = max(part.rows.used for _, part in named)
    rows = []
    for label, part in shown:
        cells = [Cell(label), _bar(part.rows.used, most)]
        for name in chosen:
            cells.append(_value(part.metrics[name]))
            if name in bounds:
                cells.append(_interval(part.metrics[name], *bounds[name]))
        rows.append(cells)
    return HtmlTable(f"Slices by {column}", columns, rows, note=_note(len(shown), len(named), "slices"))


def _classes(result: EvalValues) -> Markup:
    by, several = result.per_class, result.task == "multilabel"
    columns = [
        Column("class", "number" if by.name is None else "text"), Column("rows", "bar", "rows with this target"),
        Column("predicted"), Column("correct"), Column("precision"), Column("recall"), Column("F1"),
        Column("NLL", hint="mean of all rows" if several else "mean of the rows with this target"),
    ]  # fmt: skip
    most = max(by.support, default=0)
    order = _most(range(len(by.class_id)), by.support)
    rows = [
        [
            Cell(str(by.class_id[i]) if by.name is None else by.name[i], str(by.class_id[i])),
            _bar(by.support[i], most),
            *(Cell(count(column[i]), str(column[i])) for column in (by.predicted, by.correct)),
            *(_number(column[i]) for column in (by.precision, by.recall, by.f1, by.nll)),
        ]
        for i in order
    ]
    table = HtmlTable("Classes", columns, rows, note=_note(len(order), len(by.class_id), "classes"))
    return render(_TEMPLATE, part="classes", classes=table)


def _most(items: Sequence[T], rows: Sequence[int]) -> list[T]:
    """Return the items with the most rows, at most `MOST_ROWS`, in their order."""
    kept = sorted(sorted(range(len(items)), key=lambda i: -rows[i])[:MOST_ROWS])
    return [items[i] for i in kept]


def _note(shown: int, there: int, what: str) -> str:
    return (
        ""
        if shown == there
        else f"Only the {count(shown)} {what} with the most rows are shown, of {count(there)}; the JSON has all."
    )


def _number(value: float) -> Cell:
    return Cell(number(value), _key(value))


def _value(metric: Metric) -> Cell:
    """Return the value of a metric, or its bounds if they are all that is known."""
    bounds = metric.bounds or (math.nan, math.nan)
    return Cell(value_text(metric), _key(bounds[0] if math.isnan(metric.value) else metric.value))


def _bar(rows: int, most: int) -> Cell:
    return Cell(count(rows), str(rows), *((0.0, 100 * rows / most) if rows else ()))


def _interval(metric: Metric, low: float, high: float) -> Cell:
    """Return the interval as text, and as a bar within the range of its column."""
    start, end = metric.ci95
    if math.isnan(start):
        return Cell("–")
    left, right = (100 * (min(max(x, low), high) - low) / (high - low) for x in (start, end))
    return Cell(f"{number(start, 3)} … {number(end, 3)}", _key(end - start), left, right)


def _key(value: float) -> str:
    """Return the text that a column is sorted by: the number as in the JSON, empty for NaN."""
    return "" if math.isnan(value) else repr(value)


def drawn(plot: Drawing, caption: str) -> tuple[Markup, str]:
    """Return a plot as HTML, with its caption."""
    return Markup(inline(plot, caption)), caption

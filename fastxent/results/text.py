"""A result as text: tables for a terminal of 80 columns, and Markdown."""

from __future__ import annotations

import html
import io
import itertools
import math
import re
from collections.abc import Iterable, Iterator, Sequence

from rich import box
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from fastxent.names import printable
from fastxent.options.config import MOST_CLASSES, EvalConfig
from fastxent.results.details import MostConfused
from fastxent.results.evaluation import EvalValues
from fastxent.results.values import Metric, RowCounts, labels

WIDTH = 80
_SLICE_METRICS = ("cross_entropy", "perplexity", "accuracy", "expected_calibration_error")
_BINARY_SLICE_METRICS = ("cross_entropy", "normalized_entropy", "roc_auc", "calibration_ratio")
_MULTILABEL_SLICE_METRICS = ("cross_entropy", "micro_f1", "macro_f1", "mean_average_precision")
_SHORT = {
    "mean_average_precision": "mAP",
    "micro_f1": "micro F1",
    "macro_f1": "macro F1",
    "expected_calibration_error": "ECE",
    "cross_entropy": "cross-entropy",
    "normalized_entropy": "norm. entropy",
    "calibration_ratio": "calib. ratio",
}
MAX_SLICES = MAX_WORST = 20  # in a table
BOUNDS = "A range in place of a value holds the exact value."
_BIN_HEADERS = {
    "multiclass": ("confidence bin", "rows", "confidence", "accuracy"),
    "binary": ("prediction bin", "rows", "prediction", "positive"),
    "multilabel": ("prediction bin", "labels", "prediction", "positive"),
}
_CODE = re.compile(r"`\w+`")  # the cell of a metric's name
_MARKUP = re.compile(r"[\\`*\[\]|~]")
_LONGEST = 26  # the longest name of a metric; slice tables then fit in 80 columns


def number(value: float, digits: int = 5) -> str:
    """Return a number with some digits; NaN is a dash."""
    return "–" if math.isnan(value) else f"{value:.{digits}g}"


def count(value: int) -> str:
    """Return a whole number with thousands separators."""
    return f"{value:,}"


def heading(result: EvalValues) -> str:
    """Return the counts of rows, classes and clusters in one line."""
    rows = result.rows
    parts = [f"{count(rows.total)} rows", f"{count(rows.used)} used"]
    parts += [f"{count(n)} {name}" for n, name in ((rows.ignored, "ignored"), (rows.bad, "bad")) if n]
    parts += classes_of(result.config)
    if result.clusters is not None:
        parts.append(f"{count(result.clusters)} clusters ({printable(str(result.config.cluster))})")
    return " · ".join(parts)


def classes_of(config: EvalConfig) -> list[str]:
    """Return the number of classes or labels as a part of the heading; empty without logits."""
    classes = count(config.n_classes)
    known = f"{classes} classes" if config.n_classes < MOST_CLASSES else "number of classes unknown"
    kinds = {"multiclass": [known], "binary": ["binary"], "multilabel": [f"{classes} labels"]}
    return kinds.get(config.task, [])


def notes(result: EvalValues) -> list[str]:
    """Return the sentences below the table of metrics."""
    parts = (part.metrics for values in result.slices.values() for part in values.values())
    bounded = any(m.bounds and math.isnan(m.value) for metrics in (result.metrics, *parts) for m in metrics.values())
    found = [BOUNDS] if bounded else []
    found += [] if result.until is None else [result.until.sentence]
    return found + ([] if result.caution is None else [result.caution])


def missing_scores(used: int, score_rows: dict[str, RowCounts]) -> list[str]:
    """Return a line for each score that is null in some of the used rows."""
    return [
        f"{printable(name)}: {count(rows.used)} rows, {count(used - rows.used)} without a value"
        for name, rows in score_rows.items()
        if rows.used < used
    ]


def value_text(metric: Metric, digits: int = 5, ends: int = 4) -> str:
    """Return the value of a metric as text, or its bounds, with ``ends`` digits, if they are all that is known."""
    if metric.bounds is None or not math.isnan(metric.value):
        return number(metric.value, digits)
    low, high = (number(end, ends) for end in metric.bounds)
    return f"{low} … {high}"


def metric_cells(metric: Metric) -> tuple[str, str, str]:
    """Return value, standard error and interval as text."""
    low, high = metric.ci95
    interval = "" if math.isnan(low) else f"{number(low)} … {number(high)}"
    return value_text(metric), "" if math.isnan(metric.stderr) else number(metric.stderr, 3), interval


def slice_rows(result: EvalValues, column: str) -> tuple[list[str], Iterator[tuple[str, ...]]]:
    """Return headers and rows of the table of one ``by`` column: main metrics, and the stderr of the first."""
    named = {"binary": _BINARY_SLICE_METRICS, "multilabel": _MULTILABEL_SLICE_METRICS}
    wanted = [*result.config.scores[:2], *named.get(result.task, _SLICE_METRICS)]
    chosen = [name for name in wanted if name in result.metrics][:4] or list(result.metrics)[:4]
    headers = [column, "rows", *(cell for name in chosen for cell in _headers(name, name == chosen[0]))]

    def rows() -> Iterator[tuple[str, ...]]:
        values = result.slices[column]
        for label, part in zip(labels(values), values.values(), strict=True):
            cells = [value_text(part.metrics[name]) for name in chosen]
            yield label, count(part.rows.used), cells[0], number(part.metrics[chosen[0]].stderr, 2), *cells[1:]

    return headers, rows()


def _headers(name: str, with_error: bool) -> list[str]:
    return [_SHORT.get(name, name), "stderr"] if with_error else [_SHORT.get(name, name)]


def calibration_rows(result: EvalValues) -> list[tuple[str, str, str, str]]:
    """Return range, rows, confidence and accuracy (prediction and frequency) of each bin that is not empty."""
    bins = result.calibration
    return [
        (f"({low:.3g}, {high:.3g}]", count(n), number(conf, 4), number(acc, 4))
        for low, high, n, conf, acc in zip(
            bins.lower, bins.upper, bins.count, bins.confidence, bins.accuracy, strict=True
        )
        if n
    ]


def class_name(result: EvalValues, class_id: int) -> str:
    """Return the name of a class, or its id as text."""
    names = result.config.classes
    return str(class_id) if names is None or class_id >= len(names) else names[class_id]


def pair_note(found: MostConfused) -> str:
    """Return what the list of the most confused pairs leaves out, in a sentence; empty if nothing."""
    if found.share < 1.0:
        return (
            f"Only 1 in {count(round(1 / found.share))} pairs of classes was counted, chosen by a hash, because there "
            "are too many different pairs. The counts are exact."
        )
    more = found.pairs - len(found.count)
    return f"{count(more)} pairs with fewer rows are not listed." if more else ""


def worst_rows(result: EvalValues) -> tuple[list[str], list[tuple[str, ...]]]:
    """Return headers and rows of the table of the rows of largest loss."""
    rows = []
    for row in result.worst[:MAX_WORST]:
        classes = ["–" if c is None else class_name(result, c) for c in (row.target, row.predicted)]
        rows.append((row.place, number(row.loss, 4), *classes, number(row.confidence, 3)))
    return ["row of largest loss", "loss", "target", "predicted", "confidence"], rows


def quantile_line(result: EvalValues) -> str:
    """Return quantiles of the NLL in one line."""
    names = {0.0: "min", 0.25: "25 %", 0.5: "50 %", 0.75: "75 %", 0.95: "95 %", 0.99: "99 %", 1.0: "max"}
    return " · ".join(f"{names[q]} {number(v, 3)}" for q, v in result.nll_quantiles.items() if q in names)


def render(result: EvalValues) -> RenderableType:
    """Return the result for a rich console."""
    table = new_table("metric", "value", "stderr", "95 % interval")
    for name, metric in result.metrics.items():
        table.add_row(cell(name), *metric_cells(metric))
    parts: list[RenderableType] = [Text(heading(result), style="bold"), Text(), table]
    parts += [Text(line) for line in notes(result)]
    parts += [Text(line) for line in missing_scores(result.rows.used, result.score_rows)]
    for column, values in result.slices.items():
        headers, rows = slice_rows(result, column)
        table = new_table(*headers)
        for row in itertools.islice(rows, MAX_SLICES):
            table.add_row(*map(cell, row))
        parts += [Text(), table]
        if len(values) > MAX_SLICES:
            parts.append(
                Text(f"… and {len(values) - MAX_SLICES} more values of {printable(column)}; the JSON has all of them")
            )
    if result.has_calibration:
        table = new_table(*_BIN_HEADERS[result.task])
        for cells in calibration_rows(result):
            table.add_row(*cells)
        parts += [Text(), table]
    if result.has_losses:
        parts.append(Text(f"\nNLL: {quantile_line(result)}"))
    if result.worst:
        headers, listed = worst_rows(result)
        table = new_table(*headers)
        for line in listed:
            table.add_row(*map(cell, line))
        parts += [Text(), table]
        if len(result.worst) > MAX_WORST:
            parts.append(Text(f"… and {len(result.worst) - MAX_WORST} more rows; the JSON has all of them"))
    parts += [Text(f"warning: {printable(warning)}", style="yellow") for warning in result.warnings]
    return Group(*parts)


def new_table(first: str, *others: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0))
    table.add_column(cell(first))  # rich may wrap a long name, but no number
    for header in others:
        table.add_column(cell(header), justify="right", no_wrap=True)
    return table


def cell(text: str) -> Text:
    """Return a name from a dump without markup and control characters, cut to `_LONGEST`."""
    clean = printable(text)
    return Text(clean if len(clean) <= _LONGEST else clean[: _LONGEST - 1] + "…")


def terminal(result: EvalValues, width: int = WIDTH) -> str:
    """Return plain text, at most ``width`` columns wide."""
    return plain_text(render(result), width)


def table_of(headers: list[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Return the lines of a table."""
    table = new_table(*headers)
    for row in rows:
        table.add_row(*map(cell, row))
    return plain_text(table, WIDTH).splitlines()


def plain_text(shown: RenderableType, width: int) -> str:
    """Return what a console of ``width`` columns shows, without colours."""
    console = Console(file=io.StringIO(), width=width, color_system=None, force_terminal=False)
    with console.capture() as capture:
        console.print(shown)
    return "\n".join(line.rstrip() for line in capture.get().rstrip().splitlines())


def markdown(result: EvalValues) -> str:
    """Return Markdown tables of metrics and slices."""
    lines = [markdown_text(heading(result)), ""]
    lines += markdown_table(
        ["metric", "value", "stderr", "95 % interval"],
        ((f"`{name}`", *metric_cells(metric)) for name, metric in result.metrics.items()),
    )
    for line in notes(result):
        lines += ["", line]
    lines += [f"\n{markdown_text(line)}" for line in missing_scores(result.rows.used, result.score_rows)]
    for column in result.slices:
        lines += ["", *markdown_table(*slice_rows(result, column))]
    lines += ["", *markdown_table(*worst_rows(result))] if result.worst else []
    lines += [f"\n> {markdown_text(warning)}" for warning in result.warnings]
    return "\n".join(lines) + "\n"


def markdown_table(headers: list[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Return the lines of a table. All cells but names of metrics are escaped."""

    def line(cells: Sequence[str]) -> str:
        return f"| {' | '.join(cell if _CODE.fullmatch(cell) else markdown_text(cell) for cell in cells)} |"

    return [line(headers), "| --- |" + " ---: |" * (len(headers) - 1), *map(line, rows)]


def markdown_text(text: str) -> str:
    """Escape text for a cell of a Markdown table, including HTML and links.

    >>> markdown_text("<b>|[x](y)")
    '&lt;b&gt;\\\\|\\\\[x\\\\](y)'
    """
    return _MARKUP.sub(r"\\\g<0>", html.escape(printable(" ".join(text.splitlines())), quote=False))

"""A comparison as text: tables for a terminal of 80 columns, and Markdown."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from rich.console import Group, RenderableType
from rich.text import Text

from fastxent.names import printable
from fastxent.results.comparison import DIVERGENCE_TITLES, Compared, CompareValues, Flips, MetricComparison
from fastxent.results.text import (
    MAX_SLICES,
    WIDTH,
    cell,
    classes_of,
    count,
    markdown_table,
    markdown_text,
    missing_scores,
    new_table,
    number,
    plain_text,
    value_text,
)  # fmt: skip
from fastxent.results.values import Metric, labels

_SAME = {"binary": "Same prediction", "multilabel": "Same predicted labels"}
_MOST_CHANGED = 5  # rows in a table; the JSON has all


@dataclass(frozen=True)
class TextTable:
    """A table before it is laid out: its first column is text, the others are numbers."""

    headers: list[str]
    rows: list[tuple[str, ...]]
    more: str = ""  # a line below


def heading(result: CompareValues) -> str:
    """Return the names of the dumps and the counts of rows, classes and clusters in one line."""
    a, b = result.names
    return printable(" · ".join([f"{a} → {b}", *counts(result, result.names)]))


def counts(result: CompareValues, names: tuple[str, str]) -> list[str]:
    """Return the counts of rows, classes and clusters."""
    rows, (a, b) = result.rows, names
    parts = [f"{count(rows.total)} rows", f"{count(rows.used)} used"]
    others = (
        (rows.ignored, "ignored"),
        (rows.bad, "bad"),
        (rows.only_a, f"only in {a}"),
        (rows.only_b, f"only in {b}"),
    )
    parts += [f"{count(n)} {name}" for n, name in others if n]
    parts += classes_of(result.config)
    if result.clusters is not None:
        parts.append(f"{count(result.clusters)} clusters ({result.config.cluster})")
    return parts


def interval(metric: Metric) -> str:
    """Return the 95 % interval; empty if there is none."""
    low, high = metric.ci95
    return "" if low != low else f"{number(low, 3)} … {number(high, 3)}"


def p_value(value: float) -> str:
    """Return a p-value; empty if there is none."""
    return "" if value != value else "<1e-4" if value < 1e-4 else f"{value:.2g}"


def _metrics(result: CompareValues) -> TextTable:
    a, b = result.names
    return TextTable(
        ["metric", a, b, f"{b} - {a}", "95 % interval", "p"],
        [
            (name, number(m.a.value, 4), number(m.b.value, 4), number(m.difference.value, 3), interval(m.difference),
             p_value(m.p_value))
            for name, m in result.metrics.items() if not is_bounded(m)
        ],
    )  # fmt: skip


def is_bounded(metric: MetricComparison) -> bool:
    """Whether only bounds of the difference are known."""
    return metric.difference.bounds is not None and math.isnan(metric.difference.value)


def _bounded(result: CompareValues) -> TextTable:
    """Return the metrics of which bounds are known."""
    a, b = result.names
    return TextTable(
        ["bounds of", a, b, f"{b} - {a}"],
        [
            (name, value_text(m.a), value_text(m.b), value_text(m.difference))
            for name, m in result.metrics.items() if is_bounded(m)
        ],
    )  # fmt: skip


def _divergences(result: CompareValues) -> TextTable:
    unit = "nats per label" if result.config.task == "multilabel" else "nats"
    return TextTable(
        [f"divergence, in {unit}", "mean", "95 % interval", "50 %", "95 %", "99 %", "max"],
        [
            (DIVERGENCE_TITLES[name], value_text(d.mean, 4), interval(d.mean),
             *(number(d.quantiles.get(q, math.nan), 3) for q in (0.5, 0.95, 0.99)), number(d.max, 3))
            for name, d in result.divergences.items()
        ],
    )  # fmt: skip


def _together(result: CompareValues) -> list[str]:
    """Lines about what both dumps make of a row."""

    def shown(metric: Metric) -> str:
        return f"{value_text(metric, 4)} ({interval(metric)})" if interval(metric) else value_text(metric, 4)

    same = _SAME.get(result.config.task, "Same top prediction")
    lines = [] if result.same_top_1 is None else [f"{same}: {shown(result.same_top_1)}"]
    if result.perplexity_ratio is not None:
        lines.append(f"Perplexity ratio: {shown(result.perplexity_ratio)}")
    if result.flips is not None:
        lines.append(f"Flips: {_flips(result.flips)}")
    lines += [f"Flips of {printable(n)}: {_flips(m.flips)}" for n, m in result.metrics.items() if m.flips is not None]
    target = result.target_probability
    if target is not None:
        lines.append(
            f"Target probability: mean change {shown(target.mean)}, RMS {number(target.rms.value, 3)}, "
            f"largest {number(target.max, 3)}"
        )
    if result.rank is not None:
        changed = number(100 * result.rank.changed.value, 3)
        lines.append(f"Rank of the target: mean change {number(result.rank.mean.value, 3)}, changed in {changed} %")
    if not result.config.renormalize:
        lines.append("Log-probabilities as stored; KL over classes of log p > -16, as in llama.cpp")
    return [*lines, *missing_scores(result.rows.used, result.score_rows)]


def _flips(flips: Flips) -> str:
    clustered = "" if flips.z is None else f", clustered z = {number(flips.z, 3)}"
    return (
        f"{count(flips.right_to_wrong)} right→wrong, {count(flips.wrong_to_right)} wrong→right "
        f"({count(flips.both_right)} both right, {count(flips.both_wrong)} both wrong), "
        f"p = {p_value(flips.p_value)}{clustered}"
    )


def _slices(result: CompareValues, column: str, most: int | None = None) -> TextTable:
    found = result.slices[column]
    main = next(iter(result.metrics), None)
    headers = [column, "rows"]
    if main is not None:
        headers += [f"{main.replace('_', '-') if main == 'cross_entropy' else main}", "b - a", "p", "p (Holm)"]
    if result.same_top_1 is not None:
        headers += ["KL(a‖b)", "99 %", "same top" if result.config.task == "multiclass" else "same"]

    def row(label: str, part: Compared) -> tuple[str, ...]:
        cells = [label, count(part.rows.used)]
        if main is not None:
            m = part.metrics[main]
            adjusted = m.adjusted_p_value
            cells += [value_text(m.a, 4, 3), value_text(m.difference, 3, 2), p_value(m.p_value),
                      "" if adjusted is None else p_value(adjusted)]  # fmt: skip
        if part.same_top_1 is not None:
            kl = part.divergences["kl_divergence_ab"]
            largest = number(kl.quantiles.get(0.99, math.nan), 3)
            cells += [value_text(kl.mean, 3, 2), largest, number(part.same_top_1.value, 3)]
        return tuple(cells)

    rows = (row(label, part) for label, part in zip(labels(found), found.values(), strict=True))
    shown = list(itertools.islice(rows, most))
    left = len(found) - len(shown)
    more = f"… and {left} more values of {printable(column)}; the JSON has all of them" if left else ""
    return TextTable(headers, shown, more)


def _changed(result: CompareValues) -> TextTable:
    def place(name: object, file: str, row: int) -> str:
        return str(name) if name is not None else f"{file.rpartition('/')[2]}, row {row}"

    top = {"binary": "predicted", "multilabel": "labels"}.get(result.config.task, "top")
    return TextTable(
        ["row that changed most", "target", "NLL a", "NLL b", f"{top} a", f"{top} b", "KL(a‖b)"],
        [
            (place(r.id, r.file, r.row), "" if r.target is None else str(r.target), number(r.nll_a, 3),
             number(r.nll_b, 3), str(r.predicted_a), str(r.predicted_b), number(r.kl_divergence_ab, 3))
            for r in result.largest[:_MOST_CHANGED]
        ],
    )  # fmt: skip


def tables(result: CompareValues, most: int | None = None) -> Iterator[TextTable | list[str]]:
    """Return the tables, and the lines between them. most: slices of a column; None for all."""
    yield _metrics(result)
    if any(map(is_bounded, result.metrics.values())):
        yield _bounded(result)
    if result.divergences:
        yield _divergences(result)
    together = _together(result)
    if together:
        yield together
    for column in result.slices:
        yield _slices(result, column, most)
    if result.largest:
        yield _changed(result)


def rendered(
    title: str, found: Iterable[TextTable | list[str]], caution: str | None, warnings: Iterable[str]
) -> RenderableType:
    """Return a heading, tables and lines for a rich console."""
    parts: list[RenderableType] = [Text(title, style="bold")]
    for each in found:
        parts.append(Text())
        if isinstance(each, list):
            parts += map(Text, each)
            continue
        laid_out = new_table(*each.headers)
        for row in each.rows:
            laid_out.add_row(*map(cell, row))
        parts.append(laid_out)
        parts += [Text(each.more)] if each.more else []
    if caution is not None:
        parts.append(Text(f"\n{caution}"))
    parts += [Text(f"warning: {printable(warning)}", style="yellow") for warning in warnings]
    return Group(*parts)


def marked_down(
    title: str, found: Iterable[TextTable | list[str]], caution: str | None, warnings: Iterable[str]
) -> str:
    """Return a heading, tables and lines as Markdown."""
    lines = [markdown_text(title)]
    for each in found:
        if isinstance(each, list):
            lines += ["", *(f"- {markdown_text(line)}" for line in each)]
        else:
            lines += ["", *markdown_table(each.headers, iter(each.rows))]
    lines += ["", caution] if caution is not None else []
    lines += [f"\n> {markdown_text(warning)}" for warning in warnings]
    return "\n".join(lines) + "\n"


def terminal(result: CompareValues, width: int = WIDTH) -> str:
    """Return plain text, at most ``width`` columns wide."""
    shown = rendered(heading(result), tables(result, MAX_SLICES), result.caution, result.warnings)
    return plain_text(shown, width)


def markdown(result: CompareValues) -> str:
    """Return Markdown tables of metrics, divergences, slices and the rows that changed most."""
    return marked_down(heading(result), tables(result, None), result.caution, result.warnings)

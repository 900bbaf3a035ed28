"""The sections of a report that list details: the confusion matrix, the most confused pairs, the worst rows."""

from __future__ import annotations

import numpy as np
from markupsafe import Markup
from matplotlib.colors import to_rgb

from fastxent.results.evaluation import EvalValues
from fastxent.results.report import page
from fastxent.results.report.drawing import single, styled
from fastxent.results.report.page import Cell, Column, HtmlTable, render
from fastxent.results.report.palette import ACCENT, INK, PAPER
from fastxent.results.report.svg import Drawing, inline, printable
from fastxent.results.text import class_name, count, number, pair_note

_TIPS = 40  # classes up to which each cell has a tooltip
_LABELS = 25  # and a label on the axes
_TEMPLATE = "evaluation.html.j2"


@styled
def confusion(result: EvalValues) -> Drawing:
    """Plot the share of the rows of each target that have each prediction."""
    assert result.confusion is not None
    matrix = result.confusion.matrix()
    rows = matrix.sum(axis=1, keepdims=True)
    share = np.divide(matrix, rows, out=np.zeros(matrix.shape), where=rows > 0)
    n = len(matrix)
    figure, ax = single(4.6)
    if n <= _TIPS:
        for t, p in zip(*np.nonzero(matrix), strict=True):
            gid = f"cell-{t}-{p}"
            ax.bar(p, 1, 1, bottom=t - 0.5, color=ACCENT, alpha=float(_depth(share[t, p])), edgecolor=PAPER,
                   linewidth=0.5, gid=gid)  # fmt: skip
            names = (printable(class_name(result, int(c)), 40) for c in (t, p))
            shown = f"{count(int(matrix[t, p]))} rows, {number(100 * share[t, p], 3)} %"
            figure.tips[gid] = [f"target {next(names)}, predicted {next(names)}: {shown}"]
    else:
        image = np.empty((n, n, 4))
        image[..., :3], image[..., 3] = to_rgb(ACCENT), np.where(matrix > 0, _depth(share), 0.0)
        ax.imshow(image, interpolation="nearest", aspect="auto")
    if n <= _LABELS:
        names_of = [printable(class_name(result, c), 16) for c in range(n)]
        ax.set_xticks(range(n), names_of, rotation=90)
        ax.set_yticks(range(n), names_of)
        ax.tick_params(length=0, labelcolor=INK)
    ax.set(xlim=(-0.5, n - 0.5), ylim=(n - 0.5, -0.5), xlabel="prediction", ylabel="target")
    ax.grid(visible=False)
    return figure


def _depth(share: np.ndarray) -> np.ndarray:
    """The opacity of a cell: rare confusions are still seen."""
    found: np.ndarray = 0.06 + 0.94 * np.sqrt(share)
    return found


def confused(result: EvalValues) -> Markup:
    """Return the heat map, if there is one, and the table of the most confused pairs."""
    assert result.most_confused is not None
    found = result.most_confused
    plots = []
    if result.confusion is not None:
        caption = (
            "Confusion: for each target (row), the share of its rows with each prediction. Darker cells have larger "
            "shares; cells without rows are empty."
        )
        plots.append((Markup(inline(confusion(result), caption)), caption))
    listed = zip(found.target, found.predicted, found.count, strict=True)
    table = HtmlTable(
        "Most confused classes",
        [Column("target", "text"), Column("predicted", "text"), Column("rows", "bar")],
        [
            [
                *(Cell(class_name(result, c), str(c)) for c in (target, predicted)),
                Cell(count(rows), str(rows), 0.0, 100 * rows / max(found.count)),
            ]
            for target, predicted, rows in listed
        ],
        note=pair_note(found),
    )
    return render(_TEMPLATE, part="calibration", plots=plots, bins=None) + page.table(table)


def worst(result: EvalValues) -> Markup:
    """Return the table of the rows of largest loss."""
    rows = [
        [
            Cell("–" if row.id is None else str(row.id)),
            Cell(row.file),
            Cell("–" if row.row_group is None else str(row.row_group), str(row.row_group or 0)),
            Cell(str(row.row), str(row.row)),
            Cell(number(row.loss), repr(row.loss)),
            *(Cell("–" if c is None else class_name(result, c)) for c in (row.target, row.predicted)),
            Cell(number(row.confidence, 3), repr(row.confidence)),
        ]
        for row in result.worst
    ]
    titles = ("id", "file", "row group", "row", "loss", "target", "predicted", "confidence")
    kinds = ("text", "text", "number", "number", "number", "text", "text", "number")
    columns = [Column(title, kind) for title, kind in zip(titles, kinds, strict=True)]
    return page.table(HtmlTable("Rows of largest loss", columns, rows))

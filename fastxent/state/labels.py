"""Sums of each label of a multilabel dump, by group of rows, and the calibration of all labels together."""

from __future__ import annotations

import math

import numpy as np

from fastxent.kernels.cuts import PLACE, Cuts, room, tally_calibration
from fastxent.kernels.exact import rounded_ratio, special_value
from fastxent.kernels.grouped import ExactSums
from fastxent.kernels.grown import grown
from fastxent.results.values import Metric, PerClass
from fastxent.scoring.rows import MultilabelRows, ScoredRows
from fastxent.state.component import Summands
from fastxent.state.metrics import Bins
from fastxent.state.multilabel import MACRO, MultilabelPlan, mean_over_labels
from fastxent.state.packed import stored_counts, stored_sums
from fastxent.state.table import CONFIDENCE, CORRECT, WEIGHT, GroupTable, add_bins

SUPPORT, PREDICTED, CORRECTLY = range(3)  # counts of a label: rows that have it, are predicted to, both
COUNTED, HELD, CALLED, BOTH, NLL = range(5)  # sums of a label over the rows whose label is not ignored
_SUMS = 5
_BLOCK = 1 << 15  # labels whose summands are in memory at a time


class Labels:
    """The component of a state that knows the labels of a dump one by one, for the groups of ``table``.

    ``counts`` (3, groups·C); ``sums`` (groups·C, 5); of the calibration, ``binned`` (groups·bins,) counts labels.
    """

    def __init__(self, plan: MultilabelPlan, table: GroupTable) -> None:
        self.table, self.n_labels = table, plan.labels
        self.counts = np.zeros((3, 0), np.int64)
        self.sums = ExactSums(_SUMS)
        self.binned = np.zeros(0, np.int64)
        self.calibration = ExactSums(3)
        self._resize()

    def _resize(self) -> None:
        groups = len(self.table.keys)
        more = groups * self.n_labels - self.counts.shape[1]
        if more > 0:
            self.counts = grown(self.counts, groups * self.n_labels, 1)
            self.sums.resize(groups * self.n_labels)
            self.binned = grown(self.binned, groups * self.table.bins)
            self.calibration.resize(groups * self.table.bins)

    def check(self, rows: ScoredRows) -> None:
        """Refuse rows of another number of labels: what follows writes to memory by it."""
        assert isinstance(rows, MultilabelRows)
        if rows.positive.shape[1] != self.n_labels:
            raise ValueError(f"scored rows hold {rows.positive.shape[1]} labels, not {self.n_labels}")

    def add(self, summands: Summands) -> None:
        """Add rows to the groups of their column, if they have targets."""
        if not summands.labelled:
            return
        codes = np.zeros(len(summands.rows.nll), np.int64)
        if self.table.column is not None:
            codes = self.table.keys.codes(summands.by[self.table.column])
            codes = codes if len(codes) == len(summands.rows.nll) else codes[summands.mask]
        self._resize()
        step = max(1, _BLOCK // self.n_labels)
        for begin in range(0, len(codes), step):
            self._add(summands.rows, codes, slice(begin, begin + step))

    def _add(self, rows: ScoredRows, codes: np.ndarray, some: slice) -> None:
        assert isinstance(rows, MultilabelRows)
        known = ~np.isnan(rows.positive[some])
        place = (codes[some, None] * self.n_labels + np.arange(self.n_labels))[known]
        group = np.broadcast_to(codes[some, None], known.shape)[known]
        t, called, p = (values[some][known] for values in (rows.positive, rows.called, rows.probability))
        t = t.astype(np.float64)
        size = self.counts.shape[1]
        for kind, which in enumerate((t >= 0.5, called, called & (t >= 0.5))):
            self.counts[kind] += np.bincount(place[which], minlength=size)
        columns = np.stack([np.ones(len(t)), t, called, called * t, rows.losses[some][known]], axis=1)
        share = None if rows.weight is None else np.broadcast_to(rows.weight[some, None], known.shape)[known]
        if share is not None:
            columns *= share[:, None]
        self.sums.add(columns, place)
        cuts = Cuts.zeros(len(self.binned), PLACE, 3 * len(p))
        rows_of = p, np.zeros(0, np.int64), t, np.zeros(0) if share is None else share
        tally_calibration(rows_of, group, self.table.bins, *cuts, room())
        add_bins(cuts, self.binned, self.calibration, share is not None)

    def absorb(self, other: Labels, clusters: np.ndarray | None = None) -> None:
        """Add the rows of another."""
        codes = self.table.keys.absorb(other.table.keys)
        self._resize()
        places = (codes[:, None] * self.n_labels + np.arange(self.n_labels)).ravel()
        self.counts[:, places] += other.counts
        self.sums.merge_into(other.sums, places)
        binned = (codes[:, None] * self.table.bins + np.arange(self.table.bins)).ravel()
        self.binned[binned] += other.binned
        self.calibration.merge_into(other.calibration, binned)

    def arrays(self, clusters: np.ndarray | None = None) -> dict[str, np.ndarray]:
        """The groups in the order of their keys, for storage."""
        order = self.table.keys.order()
        places = (order[:, None] * self.n_labels + np.arange(self.n_labels)).ravel()
        binned = (order[:, None] * self.table.bins + np.arange(self.table.bins)).ravel()
        calibration = {f"calibration/{name}": array for name, array in self.calibration.arrays(binned).items()}
        found = {"counts": self.counts[:, places], "binned": self.binned[binned]}
        return {**found, **self.sums.arrays(places), **calibration}

    def load(self, arrays: dict[str, np.ndarray], keys: list[str] | None = None, clusters: int = 0) -> None:
        """Take over stored arrays; ValueError if they do not fit."""
        groups = len(self.table.keys)
        places = groups * self.n_labels
        counts = stored_counts(arrays, "counts", 3, places)
        binned = stored_counts(arrays, "binned", groups * self.table.bins)
        if not (counts[CORRECTLY] <= counts[:2].min(axis=0)).all():
            raise ValueError("counts of labels that contradict each other")
        rows = np.array([self.table.contributing(group) for group in range(groups)], np.int64)
        labels = binned.reshape(groups, self.table.bins).sum(axis=1)
        if not ((labels <= rows * self.n_labels) & (counts.max(axis=0).reshape(groups, -1).max(axis=1) <= rows)).all():
            raise ValueError("more labels than rows")
        self.counts, self.binned = counts, binned
        self.sums = ExactSums.restore(_SUMS, (), places, stored_sums(arrays))
        self.calibration = ExactSums.restore(3, (), groups * self.table.bins, stored_sums(arrays, "calibration/"))

    def rows(self) -> list[int]:
        """Nothing that must be as many as the rows: a row has any number of labels."""
        return []

    def bins_of(self, group: int) -> Bins:
        """The calibration of one group: the mean probability of each bin, and the share of its labels that hold."""
        places = np.arange(group * self.table.bins, (group + 1) * self.table.bins)
        sums = self.calibration.each(places)
        finite = not self.calibration.special[places].any()
        counts = self.binned[places].tolist()
        return Bins(self.calibration.scale, counts, sums[CONFIDENCE], sums[CORRECT], sums[WEIGHT], finite)

    def macro(self, group: int) -> dict[str, Metric]:
        """The metrics of `MACRO` of one group: means over the labels that some row has not ignored, where a ratio over
        nothing is 0, as in scikit-learn."""
        places = np.arange(group * self.n_labels, (group + 1) * self.n_labels)
        each = zip(*self.sums.each(places), strict=True)
        found = [_ratios(held, called, both) for counted, held, called, both, _ in each if counted]
        return {
            name: mean_over_labels([Metric(0.0 if math.isnan(x) else x) for x in values])
            for name, values in zip(MACRO, zip(*found, strict=True), strict=True)
        } if found else {}  # fmt: skip

    def per_class(self, names: tuple[str, ...] | None) -> PerClass:
        """The numbers of every label that some row has not ignored, for all rows."""
        sums, special = self.sums.each(np.arange(self.n_labels)), self.sums.special
        seen = [label for label in range(self.n_labels) if sums[COUNTED][label]]
        counts = self.counts[:, seen].tolist()
        ratios = [_ratios(*(sums[kind][label] for kind in (HELD, CALLED, BOTH))) for label in seen]
        precision, recall, f1 = zip(*ratios, strict=True) if ratios else ((), (), ())
        return PerClass(
            class_id=tuple(seen),
            name=None if names is None else tuple(names[label] for label in seen),
            support=tuple(counts[SUPPORT]),
            predicted=tuple(counts[PREDICTED]),
            correct=tuple(counts[CORRECTLY]),
            precision=precision,
            recall=recall,
            f1=f1,
            nll=tuple(
                special_value(int(special[label, NLL]))
                if special[label, NLL]
                else rounded_ratio(sums[NLL][label], sums[COUNTED][label])
                for label in seen
            ),
        )


def _ratios(held: int, called: int, both: int) -> tuple[float, float, float]:
    """Precision, recall and F1 of a label."""
    return rounded_ratio(both, called), rounded_ratio(both, held), rounded_ratio(2 * both, held + called)

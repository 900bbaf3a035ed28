"""Rows by group: which group each row belongs to, and everything that is counted and summed for a group.

The whole evaluation is one group, and each value of a ``by`` column is another; all keep the same sums.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fastxent.kernels.cuts import MOST_ROWS, PLACE, ROWS, WIDTH, Cuts, room, tally_calibration
from fastxent.kernels.dense import DenseSums
from fastxent.kernels.grouped import ExactSums, Words
from fastxent.kernels.grown import grown
from fastxent.kernels.tally import places_by_group, tally_status
from fastxent.scoring.rows import BAD_TARGET, USED
from fastxent.state.component import Summands, Together
from fastxent.state.keys import Keys
from fastxent.state.metrics import Bins, MetricPlan, Sums
from fastxent.state.packed import stored, stored_counts, stored_sums
from fastxent.state.places import Places

STATUSES = BAD_TARGET + 1
_SORTED = 1 << 16  # rows that are put in the order of their groups at a time
_ONE_GROUP = np.zeros(0, np.int64)  # codes of rows that are all of group 0
CONFIDENCE, CORRECT, WEIGHT = range(3)  # sums of calibration


def add_bins(cuts: Cuts, binned: np.ndarray, calibration: ExactSums, weighted: bool) -> None:
    """Add what `tally_calibration` made to the counts and sums of the bins of each group."""
    counts = cuts.sums[:, ROWS]
    binned += counts
    if not weighted:
        cuts.sums[:, WEIGHT * WIDTH] = counts
    for column in (CONFIDENCE, CORRECT, WEIGHT):
        calibration.add_cuts(cuts, column * WIDTH, column)


class GroupTable:
    """Counts and exact sums of the groups of one column; without a column all rows are one group.

    ``rows`` (groups, statuses) and ``binned`` (groups · bins,) are counts. With clusters, the sums are kept by
    (group, cluster) pair, and squares are taken of whole clusters at the end; without, each row's are summed.

    every: bool. Every cluster has rows here, and there is no column.
    """

    def __init__(self, plan: MetricPlan, bins: int, column: str | None = None, *, every: bool = False) -> None:
        self.plan, self.bins, self.column = plan, bins, column
        self.keys = Keys()
        self.rows = np.zeros((0, STATUSES), np.int64)
        self.binned = np.zeros(0, np.int64)
        self.calibration = ExactSums(3)
        self._room = np.empty((0, 0))  # for rows by group: fresh memory for each batch would cost more
        self.places = Places(every)  # of pairs of group and cluster in `sums`
        self.sums = DenseSums(len(plan.columns)) if plan.clustered else ExactSums(len(plan.columns), plan.pairs)

    def resize(self) -> None:
        """Make room for every key."""
        groups = len(self.keys)
        if groups > len(self.rows):
            self.rows = grown(self.rows, groups)
            self.binned = grown(self.binned, groups * self.bins)
            self.calibration.resize(groups * self.bins)
        self.sums.resize(len(self.places) if self.plan.clustered else groups)

    def add(self, rows: Summands) -> None:
        """Add rows to the groups of their column. All rows are the groups of a column together, if one came before."""
        codes = _ONE_GROUP if self.column is None else self.keys.codes(rows.by[self.column])
        self.resize()
        tally_status(rows.status, codes, self.rows)
        if len(codes) > rows.n:
            codes = codes[rows.mask]
        together = rows.together if self.column is None else None
        if together is None:
            rows.together = together = Together(self._add_bins(rows, codes), self._add_rows(rows, codes))
        else:
            for bins in together.bins:
                add_bins(bins, self.binned, self.calibration, self.plan.weighted)
            for words in together.sums:
                assert isinstance(self.sums, ExactSums)  # of rows, not of clusters
                self.sums.add_words(words, 0)
        if rows.clusters is not None:
            assert isinstance(self.sums, DenseSums)
            places = self.places.of(None if self.column is None else codes, rows.clusters)
            self.sums.resize(len(self.places))
            self.sums.add(rows.terms, places)

    def add_sums(self, statuses: np.ndarray, words: Words, bins: Cuts) -> None:
        """Add rows to the one group, summed already. statuses: int64 (4,). Their number by status."""
        self.rows[0] += statuses
        add_bins(bins, self.binned, self.calibration, self.plan.weighted)
        assert isinstance(self.sums, ExactSums)  # of rows, not of clusters
        self.sums.add_words(words, 0)

    def _add_bins(self, rows: Summands, codes: np.ndarray) -> list[Cuts]:
        """Add rows to the calibration of their groups. Returns that of all of them, in pieces."""
        found = []
        for begin in range(0, rows.n, MOST_ROWS):
            part = slice(begin, begin + MOST_ROWS)
            cuts = Cuts.zeros(len(self.binned), PLACE, 3 * min(rows.n - begin, MOST_ROWS))
            numbers = tuple(column[part] for column in rows.calibration)
            tally_calibration(numbers, codes[part], self.bins, *cuts, room())
            add_bins(cuts, self.binned, self.calibration, self.plan.weighted)
            found.append(cuts.together(self.bins))
        return found

    def _add_rows(self, rows: Summands, codes: np.ndarray) -> list[Words]:
        """Add rows to the sums of their groups, but for clusters. Returns the sums of all, in pieces."""
        if isinstance(self.sums, DenseSums):
            return []
        if self.column is None:
            return [self.sums.fold(rows.terms, np.zeros(1, np.int64), np.array([0, rows.n]))]
        found, sources = [], rows.terms.sources()
        for begin in range(0, rows.n, _SORTED):
            part = codes[begin : begin + _SORTED]
            begins, places = np.zeros(len(self.keys) + 2, np.int64), np.empty(len(part), np.int64)
            places_by_group(part, begins, places)
            groups = np.flatnonzero(np.diff(begins[:-1]))
            if self._room.shape[0] < len(sources[0]) or self._room.shape[1] < len(part):
                self._room = np.empty((len(sources[0]), len(part)))
            terms = rows.terms.moved(sources, begin, places, self._room)
            found.append(self.sums.fold(terms, groups, np.append(begins[groups], len(part))))
        return found

    def absorb(self, other: GroupTable, clusters: np.ndarray) -> None:
        """Add another table, whose cluster c is ``clusters[c]`` here."""
        codes = self.keys.absorb(other.keys)
        places = codes
        if self.plan.clustered:
            group, cluster = other.places.pairs()
            places = self.places.of(codes[group], clusters[cluster])
        self.resize()
        np.add.at(self.rows, codes, other.rows)
        binned = (codes[:, None] * self.bins + np.arange(self.bins)).ravel()
        np.add.at(self.binned, binned, other.binned)
        self.calibration.merge_into(other.calibration, binned)
        self.sums.merge_into(other.sums, places)  # type: ignore[arg-type]  # of one kind under one plan

    def arrays(self, clusters: np.ndarray) -> dict[str, np.ndarray]:
        """The groups in the order of their keys, for storage; clusters are numbered as they will be in that order."""
        order = self.keys.order()
        binned = (order[:, None] * self.bins + np.arange(self.bins)).ravel()
        found = {"rows": self.rows[order], "binned": self.binned[binned]}
        if self.plan.clustered:
            group, cluster = self.places.pairs()
            pairs = np.stack([np.argsort(order)[group], np.argsort(clusters)[cluster]], axis=1)
            order = np.lexsort((pairs[:, 1], pairs[:, 0]))
            found["pairs"] = pairs[order]
        calibration, sums = self.calibration.arrays(binned), self.sums.arrays(order)
        found.update({f"calibration/{name}": array for name, array in calibration.items()})
        return {**found, **sums}

    def load(self, arrays: dict[str, np.ndarray], keys: list[str], clusters: int) -> None:
        """Take over stored arrays; ValueError if they do not fit."""
        groups = len(keys)
        self.keys = Keys.restored(keys)
        self.rows = stored_counts(arrays, "rows", groups, STATUSES)
        self.binned = stored_counts(arrays, "binned", groups * self.bins)
        contributing, used = self.binned.reshape(groups, self.bins).sum(axis=1), self.rows[:, USED]
        if not (contributing <= used if self.plan.weighted else contributing == used).all():
            raise ValueError("calibration bins that contradict the rows")
        if self.plan.clustered:
            pairs = stored(arrays, "pairs", np.int64, -1, 2)
            self.places.load(pairs, groups, clusters)
        self.calibration = ExactSums.restore(3, (), groups * self.bins, stored_sums(arrays, "calibration/"))
        if isinstance(self.sums, DenseSums):
            self.sums = DenseSums.restore(self.sums.columns, len(self.places), stored_sums(arrays))
        else:
            self.sums = ExactSums.restore(self.sums.columns, self.sums.products, groups, stored_sums(arrays))

    def by_group(self) -> list[np.ndarray]:
        """For each group its places in ``sums``: one, or those of its clusters."""
        if not self.plan.clustered:
            return [np.array([group]) for group in range(len(self.keys))]
        return self.places.by_group(len(self.keys))

    def sums_of(self, group: int, places: np.ndarray) -> Sums:
        """The exact sums of one group, for `MetricPlan.metrics_of`."""
        columns, scale = len(self.plan.columns), self.sums.scale
        counted = self.plan.counted
        products: Sequence[int | None]
        if isinstance(self.sums, DenseSums):
            totals, special, products = self.sums.totals(places, self.plan.pairs)
            units = len(places)
            counted = None if counted is None else self.sums.nonzero(places, counted)
        else:
            totals, special = self.sums.totals(places)
            products = [
                None if flags else total << scale
                for total, flags in zip(totals[columns:], special[columns:], strict=True)
            ]
            units = self.contributing(group)
            counted = None if counted is None else totals[counted] >> scale
        return Sums(units, scale, totals, special, dict(zip(self.plan.pairs, products, strict=True)), counted)

    def contributing(self, group: int) -> int:
        """Used rows of a group whose weight is not 0."""
        return int(self.binned[group * self.bins : (group + 1) * self.bins].sum())

    def bins_of(self, group: int) -> Bins:
        """The calibration of one group."""
        places = np.arange(group * self.bins, (group + 1) * self.bins)
        confidence, correct, weight = self.calibration.each(places)
        finite = not self.calibration.special[places].any()
        return Bins(self.calibration.scale, self.binned[places].tolist(), confidence, correct, weight, finite)

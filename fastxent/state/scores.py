"""The rows of each class by score, of the groups of one column: what ranking metrics and curves are computed from.

Rows of a class are counted by the cell of their score; rows that have a weight, or that belong to both classes in part,
are summed exactly, in fewer cells. `state.cells` says which cells there are. Each limit below is in pages of 16 cells.
"""

from __future__ import annotations

import numpy as np

from fastxent.kernels.cells import CELLS, move_cells
from fastxent.kernels.exact import MASK, rounded_ratio
from fastxent.kernels.grouped import ExactSums
from fastxent.scoring.odds_sums import BinarySums
from fastxent.scoring.rows import BinaryRows, MultilabelRows
from fastxent.state.buckets import Buckets
from fastxent.state.cells import LONGEST, Cells, Moves, Used, keys_of
from fastxent.state.component import Summands
from fastxent.state.counted import NEGATIVE, POSITIVE, Counted
from fastxent.state.packed import stored, stored_counts, stored_sums
from fastxent.state.ranking import Ranked, without_each
from fastxent.state.table import GroupTable

_COUNTED_WHOLE, _COUNTED_SLICE = 1 << 18, 1 << 7  # 2^22 and 2,048 cells
_WEIGHED_WHOLE, _WEIGHED_SLICE = 1 << 13, 1 << 4  # 131,072 and 256 cells
_WEIGHED_BUCKET = 1 << 7  # 2,048 cells
_COUNTED_LABELS, _WEIGHED_LABELS = 1 << 16, 1 << 12  # of all labels of a multilabel dump together
_COUNTED_LABEL, _WEIGHED_LABEL = 1 << 5, 1 << 2  # of one label at the least, and in a slice
_ROOM = 2  # times that limit, until it is enforced for all labels at once
_BLOCK = 1 << 15  # labels taken at a time


class Weighed:
    """Sums of weights by cell and class, exact."""

    def __init__(self, limit: int, room: int | None = None) -> None:
        self.cells = Cells(limit, self._move, room)
        self.sums = ExactSums(2)

    def add(self, keys: np.ndarray, owners: np.ndarray, weights: np.ndarray) -> None:
        """Add rows; ``weights``: float64 (n, 2), what each adds to either class."""
        places = self.cells.places(keys, owners)
        self.sums.resize(self.cells.count)
        self.sums.add(weights, places)

    def merge(self, used: Used, arrays: dict[str, np.ndarray]) -> None:
        """Add the sums of cells of others."""
        places, inverse = np.unique(self.cells.places(used.keys, used.owners), return_inverse=True)
        self.sums.resize(self.cells.count)
        if len(places):
            self.sums.merge_into(_regrouped(arrays, inverse, len(places)), places)

    def _move(self, moves: Moves) -> None:
        places, held = np.empty(len(moves.names) * CELLS, np.int64), self.sums.groups
        move_cells(*moves, places)
        self.sums = _regrouped(self.sums.arrays(np.arange(held)), places[:held], self.cells.count)

    def used(self) -> Used:
        """The cells that hold weights."""
        self.sums.carry()
        filled = np.zeros(self.cells.count, bool)
        filled[: self.sums.groups] = self.sums.limbs[: self.sums.groups].any(axis=(1, 2))
        return self.cells.used(filled)


def _regrouped(arrays: dict[str, np.ndarray], groups: np.ndarray, count: int) -> ExactSums:
    """Sums by ``groups`` of the sums in ``arrays``."""
    limbs = arrays["limbs"]
    limbs = np.concatenate([limbs[:, :, :-1], limbs[:, :, -1:] & MASK, limbs[:, :, -1:] >> 32], axis=2)
    total = np.zeros((count, *limbs.shape[1:]), np.int64)
    np.add.at(total, groups, limbs)
    for k in range(total.shape[2] - 1):
        total[:, :, k + 1] += total[:, :, k] >> 32
        total[:, :, k] &= MASK
    special = np.zeros((count, limbs.shape[1]), np.uint8)
    np.bitwise_or.at(special, groups, arrays["special"])
    return ExactSums.restore(limbs.shape[1], (), count, {"base": arrays["base"], "limbs": total, "special": special})


class Scores:
    """The component of a state that ranks the rows of each group of ``table``.

    labels: int or None. Labels of a multilabel dump: an owner of cells is then a label of a group, else a group.
    """

    def __init__(self, table: GroupTable | Buckets, labels: int | None = None) -> None:
        self.table, self.labels = table, labels
        self._owners = labels or 1  # of a group
        counted, weighed = (_COUNTED_WHOLE, _WEIGHED_WHOLE) if self.whole else (_COUNTED_SLICE, _WEIGHED_SLICE)
        if isinstance(table, Buckets):
            weighed = _WEIGHED_BUCKET
        if labels is not None:
            counted = max(_COUNTED_LABEL, _COUNTED_LABELS // labels if self.whole else 0)
            weighed = max(_WEIGHED_LABEL, _WEIGHED_LABELS // labels if self.whole else 0)
        room = 1 if labels is None else _ROOM
        self.counted, self.weighed = Counted(counted, room * counted), Weighed(weighed, room * weighed)
        self._resize()

    @property
    def whole(self) -> bool:
        """Whether all rows are one group."""
        return self.table.column is None

    def _resize(self) -> None:
        for kind in (self.counted, self.weighed):
            kind.cells.resize(len(self.table.keys) * self._owners)

    def _settle(self) -> None:
        self.counted.count()
        for kind in (self.counted, self.weighed):
            kind.cells.settle()

    def _owners_of(self, groups: np.ndarray) -> np.ndarray:
        """The owners that groups have, in order."""
        return (groups[:, None] * self._owners + np.arange(self._owners)).ravel()

    def add(self, summands: Summands) -> None:
        """Add rows to the groups of their column."""
        rows = summands.rows
        assert isinstance(rows, BinaryRows | MultilabelRows)
        owners = np.zeros(len(rows.score), np.int64)
        if self.table.column is not None:
            owners = self.table.keys.codes(summands.by[self.table.column])
            owners = owners if len(owners) == len(rows.score) else owners[summands.mask]
        self._resize()
        if isinstance(rows, BinaryRows):
            self._add(rows.score, owners, rows.positive, rows.weight)
            return
        step = max(1, _BLOCK // self._owners)
        for begin in range(0, len(owners), step):
            some = slice(begin, begin + step)
            positive = rows.positive[some]
            known = ~np.isnan(positive)
            mine = self._owners_of(owners[some]).reshape(known.shape)[known]
            weight = None if rows.weight is None else np.repeat(rows.weight[some], known.sum(axis=1))
            score, positive = (values[known].astype(np.float64) for values in (rows.score[some], positive))
            self._add(score, mine, positive, weight)

    def add_sums(self, rows: BinarySums) -> None:
        """Add rows that were summed when they were scored."""
        self.counted.hold(rows.score, rows.positive)

    def _add(self, score: np.ndarray, owners: np.ndarray, positive: np.ndarray, weight: np.ndarray | None) -> None:
        keys = keys_of(score)
        if weight is None:
            whole = (positive == 0.0) | (positive == 1.0)
            if whole.all():
                if self.whole and self.labels is None:
                    self.counted.hold(score, positive.astype(np.uint8))
                    return
                self.counted.add(keys, owners, positive)
                return
            self.counted.add(keys[whole], owners[whole], positive[whole])
            keys, owners, positive = keys[~whole], owners[~whole], positive[~whole]
        weight = np.ones(len(keys)) if weight is None else weight
        shares = np.stack([weight * (1.0 - positive), weight * positive], axis=1)
        some = shares.any(axis=1)
        self.weighed.add(keys[some], owners[some], np.ascontiguousarray(shares[some]))

    def absorb(self, other: Scores, clusters: np.ndarray | None = None) -> None:
        """Add the rows of another."""
        codes = self._owners_of(self.table.keys.absorb(other.table.keys))
        self._resize()
        self.counted.absorb(other.counted, codes)
        mine = self.weighed.cells
        lengths = mine.lengths.copy()
        lengths[codes] = np.minimum(lengths[codes], other.weighed.cells.lengths)
        mine.shorten(lengths)
        used = other.weighed.used()
        self.weighed.merge(used._replace(owners=codes[used.owners]), other.weighed.sums.arrays(used.places))

    def arrays(self, clusters: np.ndarray | None = None) -> dict[str, np.ndarray]:
        """The cells in use, by group in the order of keys, then by score. Buckets without rows have none."""
        self._settle()
        if isinstance(self.table, Buckets) and not (self.counted.cells.count or self.weighed.cells.count):
            return {}
        order = self._owners_of(self.table.keys.order())
        rank = np.argsort(order)
        found: dict[str, np.ndarray] = {}
        for name, kind in (("counted", self.counted), ("weighed", self.weighed)):
            used = kind.used()
            chosen = np.argsort(rank[used.owners], kind="stable")
            found[f"{name}/lengths"] = kind.cells.lengths[order]
            found[f"{name}/cells"] = np.bincount(rank[used.owners], minlength=len(order)).astype(np.int64)
            found[f"{name}/keys"] = used.keys[chosen].view(np.int64)
            if isinstance(kind, Counted):
                found["counted/rows"] = kind.rows_at(used.places[chosen])
            else:
                sums = kind.sums.arrays(used.places[chosen])
                found.update({f"weighed/{inner}": array for inner, array in sums.items()})
        return found

    def load(self, arrays: dict[str, np.ndarray], keys: list[str] | None = None, clusters: int = 0) -> None:
        """Take over stored arrays; ValueError if they do not fit."""
        self._resize()
        if isinstance(self.table, Buckets) and not arrays:  # states of earlier versions have none
            return
        groups = len(self.table.keys) * self._owners
        for name, kind in (("counted", self.counted), ("weighed", self.weighed)):
            lengths = stored_counts(arrays, f"{name}/lengths", groups)
            numbers = stored_counts(arrays, f"{name}/cells", groups)
            found = stored(arrays, f"{name}/keys", np.int64, -1).view(np.uint64)
            if sum(numbers.tolist()) != len(found) or not ((lengths >= 1) & (lengths <= LONGEST)).all():
                raise ValueError("cells of scores that do not fit")
            owners = np.repeat(np.arange(groups), numbers)
            shifts = (LONGEST - lengths[owners]).astype(np.uint64)
            rising = (owners[1:] > owners[:-1]) | (found[1:] > found[:-1])
            if not (rising.all() and (found >> shifts << shifts == found).all()):
                raise ValueError("cells of scores out of order")
            kind.cells.shorten(lengths)
            used = Used(np.arange(len(found)), found, owners)
            if isinstance(kind, Counted):
                rows = stored_counts(arrays, "counted/rows", len(found), 2)
                if not rows.any(axis=1).all():
                    raise ValueError("cells without rows")
                kind.merge(used, rows)
            else:
                sums = stored_sums(arrays, "weighed/")
                restored = ExactSums.restore(2, (), len(found), sums)
                if not restored.limbs.any(axis=(1, 2)).all():
                    raise ValueError("cells without weights")
                kind.merge(used, restored.arrays(np.arange(len(found))))
            kind.cells.settle()
            if (kind.cells.lengths != lengths).any():
                raise ValueError("more cells of scores than a group may have")

    def rows(self) -> np.ndarray:
        """(groups,) rows counted, of the label that has the most; rows that are weighed are not among them."""
        used = self.counted.used()
        counts = self.counted.rows_at(used.places).sum(axis=1)
        size = len(self.table.keys) * self._owners
        each = np.bincount(used.owners, weights=counts, minlength=size).astype(np.int64)
        most: np.ndarray = each.reshape(-1, self._owners).max(axis=1)
        return most

    def without_each(self) -> list[Ranked]:
        """All rows, then those of all groups but one, for each that has rows."""
        ranked = self.ranked()
        lengths = [kind.cells.lengths[: len(ranked)].min() for kind in (self.counted, self.weighed)]
        return without_each(ranked, int(min(lengths)), LONGEST)

    def ranked(self) -> list[Ranked]:
        """The rows of each owner by score."""
        self._settle()
        if len(self.counted.cells.lengths) == 1 and not self.weighed.cells.count:
            exact = int(self.counted.cells.lengths[0]) == LONGEST
            return [Ranked(*self.counted.listed(), exact, True)]
        counted, weighed = self.counted.used(), self.weighed.used()
        rows = self.counted.rows_at(counted.places)
        unit = 1 << self.weighed.sums.scale
        each = self.weighed.sums.each(weighed.places) if len(weighed.places) else [[], []]
        weights = np.array([[rounded_ratio(x, unit) for x in column] for column in each]).reshape(2, -1).T
        groups = np.arange(len(self.table.keys) * self._owners + 1)
        ends, heavy_ends = np.searchsorted(counted.owners, groups), np.searchsorted(weighed.owners, groups)
        found = []
        for g in range(len(groups) - 1):
            here, heavy = slice(ends[g], ends[g + 1]), slice(heavy_ends[g], heavy_ends[g + 1])
            lengths = self.counted.cells.lengths[g], self.weighed.cells.lengths[g]
            keys, values = counted.keys[here], rows[here]
            length, has_weights = int(lengths[0]), len(weighed.keys[heavy]) > 0
            if has_weights:
                length = int(min(lengths))
                keys = np.concatenate([keys, weighed.keys[heavy]])
                values = np.concatenate([values.astype(np.float64), weights[heavy]])
                shift = np.uint64(LONGEST - length)
                keys, inverse = np.unique(keys >> shift << shift, return_inverse=True)
                total = np.zeros((len(keys), 2))
                np.add.at(total, inverse, values)
                values = total
            negative, positive = values[:, NEGATIVE].astype(np.float64), values[:, POSITIVE].astype(np.float64)
            found.append(Ranked(keys, negative, positive, length == LONGEST, not has_weights))
        return found

"""Rows by group: which group each row belongs to, and everything that is counted and summed for a group.

The whole evaluation is one group, and each value of a ``by`` column is another; all keep the same sums.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from fastxent.errors import ColumnError
from fastxent.kernels.grouped import ExactSums
from fastxent.metrics import Bins, Plan, Sums, bin_of
from fastxent.scored import BAD_TARGET, USED, ScoredRows

if TYPE_CHECKING:
    import pyarrow as pa

STATUSES = BAD_TARGET + 1
CONFIDENCE, CORRECT, WEIGHT = range(3)  # sums of calibration
_TAGS = {bool: "bool", int: "int", float: "float", type(None): "null"}


def key_of(value: Any) -> str:
    """A value as tagged text, in which 1, "1", True and 1.0 differ: what groups are looked up and sorted by."""
    if isinstance(value, str):
        return f"str:{value}"
    if isinstance(value, bytes):
        return f"str:{value.hex()}"
    return f"{_TAGS[type(value)]}:{value!r}"


def value_of(key: str) -> Any:
    """The value behind a key: str, bool, int, float or None. Dates and decimals are text, binary is hexadecimal."""
    tag, _, text = key.partition(":")
    if tag == "null":
        return None
    if tag == "bool":
        return text == "True"
    return int(text) if tag == "int" else float(text) if tag == "float" else text


@dataclass(frozen=True)
class EncodedColumn:
    """A column as its distinct keys and, for each row, the index of its key."""

    keys: list[str]
    index: np.ndarray

    @classmethod
    def of(cls, column: pa.Array, name: str) -> EncodedColumn:
        """Python sees each distinct value once, never a row."""
        import pyarrow as pa

        if isinstance(column, pa.ChunkedArray):
            column = column.combine_chunks()
        if isinstance(column, pa.ExtensionArray):
            column = column.storage
        try:
            if pa.types.is_string_view(column.type):
                column = column.cast(pa.string())
            encoded = column.dictionary_encode()
            distinct = encoded.dictionary
            if pa.types.is_temporal(distinct.type) or pa.types.is_decimal(distinct.type):
                distinct = distinct.cast(pa.string())
        except (pa.ArrowNotImplementedError, pa.ArrowInvalid):
            raise ColumnError(
                f"column {name!r} of type {column.type} cannot group rows; choose a column of strings, numbers or dates"
            ) from None
        indices = encoded.indices.cast(pa.int64()).fill_null(-1).to_numpy(zero_copy_only=False)
        used, index = np.unique(indices, return_inverse=True)
        return cls([key_of(value) for value in distinct.take(pa.array(used, mask=used < 0)).to_pylist()], index)


class Keys:
    """Keys in the order of their first appearance, numbered from 0."""

    def __init__(self, keys: Iterable[str] = ()) -> None:
        self.names = list(keys)
        self._codes = {key: code for code, key in enumerate(self.names)}
        if len(self._codes) < len(self.names):
            raise ValueError("a key appears twice")

    def __len__(self) -> int:
        return len(self.names)

    def code(self, key: str) -> int:
        """The number of a key, which is new if the key is."""
        code = self._codes.setdefault(key, len(self.names))
        if code == len(self.names):
            self.names.append(key)
        return code

    def codes(self, column: EncodedColumn) -> np.ndarray:
        """(n,) group numbers of the rows of a column."""
        found: np.ndarray = np.array([self.code(key) for key in column.keys], np.int64)[column.index]
        return found

    def union_size(self, other: Iterable[str]) -> int:
        """How many keys there would be with these."""
        return len(self.names) + sum(key not in self._codes for key in set(other))

    def absorb(self, other: Keys) -> np.ndarray:
        """(len(other),) the numbers here of the keys there."""
        return np.array([self.code(key) for key in other.names], np.int64)

    def order(self) -> np.ndarray:
        """The numbers in the order of the sorted keys."""
        return np.array(sorted(range(len(self.names)), key=self.names.__getitem__), np.int64)


@dataclass
class Scored:
    """What every table sums for a batch, computed once: ``status`` of all rows, the rest of the used rows."""

    status: np.ndarray
    values: np.ndarray  # (columns of the plan, used)
    confidence: np.ndarray  # (used,) w·confidence
    right: np.ndarray  # (used,) whether the prediction is right
    weight: np.ndarray | None  # (used,)
    bins: np.ndarray  # (used,) calibration bin
    clusters: np.ndarray | None = None  # (used,) cluster numbers

    @classmethod
    def of(cls, plan: Plan, used: ScoredRows, status: np.ndarray, bins: int) -> Scored:
        confidence = used.confidence if used.weight is None else used.confidence * used.weight
        place = bin_of(used.confidence, bins)
        return cls(status, plan.matrix(used), confidence, used.rank == 0, used.weight, place)


class Table:
    """Counts and exact sums of the groups of one column.

    ``rows`` (groups, statuses) and ``binned`` (groups · bins,) are counts. With clusters, the sums are kept by
    (group, cluster) pair, and squares are taken of whole clusters at the end; without, each row's are summed.
    """

    def __init__(self, plan: Plan, bins: int) -> None:
        self.plan, self.bins = plan, bins
        self.keys = Keys()
        self.rows = np.zeros((0, STATUSES), np.int64)
        self.binned = np.zeros(0, np.int64)
        self.calibration = ExactSums(3)
        self.pairs: dict[tuple[int, int], int] = {}  # (group, cluster) -> its place in `sums`
        self.sums = ExactSums(len(plan.columns), () if plan.clustered else plan.pairs)

    def resize(self) -> None:
        """Make room for every key."""
        groups = len(self.keys)
        if groups > len(self.rows):
            self.rows = np.pad(self.rows, ((0, groups - len(self.rows)), (0, 0)))
            self.binned = np.pad(self.binned, (0, groups * self.bins - len(self.binned)))
            self.calibration.resize(groups * self.bins)
        self.sums.resize(len(self.pairs) if self.plan.clustered else groups)

    def add(self, scored: Scored, codes: np.ndarray | None) -> None:
        """Add rows, of which row i belongs to group ``codes[i]``; all to the first group where there are no codes."""
        self.resize()
        groups = len(self.rows)
        place, bins = scored.status.astype(np.int64), scored.bins
        if codes is not None:
            place = codes * STATUSES + place
            if len(scored.bins) < len(codes):
                codes = codes[scored.status == USED]
            bins = codes * self.bins + bins
        self.rows += np.bincount(place, minlength=groups * STATUSES).reshape(groups, STATUSES)
        counts = np.bincount(bins, minlength=groups * self.bins)
        self.binned += counts
        self.calibration.add_column(CONFIDENCE, scored.confidence, bins)
        if scored.weight is None:  # sums of ones: counted, then added bin by bin
            right = np.bincount(bins[scored.right], minlength=groups * self.bins)
            found = np.flatnonzero(counts)
            ones = np.stack([np.zeros(len(found)), right[found], counts[found]], axis=1)
            self.calibration.add(ones, found)
        else:
            self.calibration.add_column(CORRECT, scored.right * scored.weight, bins)
            self.calibration.add_column(WEIGHT, scored.weight, bins)
        if scored.clusters is not None:
            codes = np.zeros(len(bins), np.int64) if codes is None else codes
            codes = self._pair_codes(codes, scored.clusters)
        if codes is None:
            self.sums.add_all(scored.values, 0)
        else:
            self.sums.add(scored.values.T, codes)

    def _pair_codes(self, groups: np.ndarray, clusters: np.ndarray) -> np.ndarray:
        """(n,) places in ``sums`` of these pairs."""
        distinct, inverse = np.unique(groups << 40 | clusters, return_inverse=True)
        found = [
            self.pairs.setdefault((code >> 40, code & (1 << 40) - 1), len(self.pairs)) for code in distinct.tolist()
        ]
        self.sums.resize(len(self.pairs))
        return np.array(found, np.int64)[inverse]

    def absorb(self, other: Table, clusters: np.ndarray) -> None:
        """Add another table, whose cluster c is ``clusters[c]`` here."""
        codes = self.keys.absorb(other.keys)
        if self.plan.clustered:
            found = [
                self.pairs.setdefault((int(codes[group]), int(clusters[cluster])), len(self.pairs))
                for group, cluster in other.pairs
            ]
        self.resize()
        np.add.at(self.rows, codes, other.rows)
        binned = (codes[:, None] * self.bins + np.arange(self.bins)).ravel()
        np.add.at(self.binned, binned, other.binned)
        self.calibration.merge_into(other.calibration, binned)
        self.sums.merge_into(other.sums, np.array(found, np.int64) if self.plan.clustered else codes)

    def arrays(self, cluster_order: np.ndarray) -> dict[str, np.ndarray]:
        """The groups in the order of their keys, for storage; clusters are numbered as they will be in that order."""
        order = self.keys.order()
        binned = (order[:, None] * self.bins + np.arange(self.bins)).ravel()
        found = {"rows": self.rows[order], "binned": self.binned[binned]}
        if self.plan.clustered:
            pairs = np.array(list(self.pairs), np.int64).reshape(-1, 2)
            pairs = np.stack([np.argsort(order)[pairs[:, 0]], np.argsort(cluster_order)[pairs[:, 1]]], axis=1)
            order = np.lexsort((pairs[:, 1], pairs[:, 0]))
            found["pairs"] = pairs[order]
        calibration, sums = self.calibration.arrays(binned), self.sums.arrays(order)
        found.update({f"calibration/{name}": array for name, array in calibration.items()})
        return {**found, **sums}

    def load(self, arrays: dict[str, np.ndarray], keys: list[str], clusters: int) -> None:
        """Take over stored arrays; ValueError if they do not fit."""
        self.keys, self.rows, self.binned = Keys(keys), arrays["rows"], arrays["binned"]
        groups = places = len(keys)
        if self.rows.shape != (groups, STATUSES) or self.binned.shape != (groups * self.bins,):
            raise ValueError("counts of another shape")
        if self.plan.clustered:
            pairs = arrays["pairs"].reshape(-1, 2)
            if np.any(pairs < 0) or np.any(pairs >= (groups, clusters)):
                raise ValueError("clusters out of range")
            self.pairs = {(group, cluster): place for place, (group, cluster) in enumerate(pairs.tolist())}
            places = len(pairs)
        calibration = {name: arrays[f"calibration/{name}"] for name in ("base", "limbs", "special")}
        self.calibration = ExactSums.restore(3, (), groups * self.bins, calibration)
        self.sums = ExactSums.restore(self.sums.columns, self.sums.products, places, arrays)

    def by_group(self) -> list[np.ndarray]:
        """For each group its places in ``sums``: one, or those of its clusters."""
        if not self.plan.clustered:
            return [np.array([group]) for group in range(len(self.keys))]
        groups = np.fromiter((group for group, _ in self.pairs), np.int64, len(self.pairs))
        order = np.argsort(groups, kind="stable")
        return np.split(order, np.cumsum(np.bincount(groups, minlength=len(self.keys)))[:-1])

    def sums_of(self, group: int, places: np.ndarray) -> Sums:
        """The exact sums of one group, for `Plan.figures`."""
        columns, scale = len(self.plan.columns), self.sums.scale
        totals, special = self.sums.totals(places)
        if self.plan.clustered:
            products: list[int | None] = [*self.sums.sums_of_products(places, self.plan.pairs)]
            units = len(places)
        else:
            products = [
                None if flags else total << scale
                for total, flags in zip(totals[columns:], special[columns:], strict=True)
            ]
            units = int(self.rows[group, USED])
        return Sums(units, scale, totals, special, dict(zip(self.plan.pairs, products, strict=True)))

    def bins_of(self, group: int) -> Bins:
        """The calibration of one group."""
        places = np.arange(group * self.bins, (group + 1) * self.bins)
        confidence, correct, weight = self.calibration.each(places)
        finite = not self.calibration.special[places].any()
        return Bins(self.calibration.scale, self.binned[places].tolist(), confidence, correct, weight, finite)


def distinct_values(keys: list[str]) -> list[Any]:
    """The values behind keys, fit to key a mapping: where two are equal (1 and True), the later stays tagged text,
    and a float that is not finite becomes text, for JSON."""
    found: dict[Any, None] = {}
    for key in keys:
        value = value_of(key)
        if isinstance(value, float) and not math.isfinite(value):
            value = str(value)
        found[value if value not in found else key] = None
    return list(found)

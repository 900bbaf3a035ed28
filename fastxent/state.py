"""The partial state of an evaluation: a value that grows by rows, merges with others and becomes a result.

Everything in it is an integer count or an exact sum, so a state depends on its rows alone: not on their order, nor on
how they were split over batches, threads or machines. `EvalState.to_bytes` of equal contents are equal bytes.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from fastxent.classes import Classes
from fastxent.config import EvalConfig
from fastxent.coverage import Coverage
from fastxent.distribution import Distribution
from fastxent.errors import ConfigError, StateError
from fastxent.groups import Scored, Table
from fastxent.kernels.exact import rounded_ratio
from fastxent.keys import EncodedColumn, Keys, distinct_values
from fastxent.metrics import Bins, Plan, bin_edges
from fastxent.packed import pack, unpack
from fastxent.result import Calibration, EvalResult, Metric, Rows, Slice
from fastxent.scored import BAD_LOGITS, BAD_TARGET, IGNORED, USED, ScoredRows

if TYPE_CHECKING:
    import pyarrow as pa

MAX_SLICES = 10_000
_WHOLE = "whole"  # the one group of the table of all rows


class EvalState:
    """Counts and exact sums of the rows seen so far; `empty` is the identity of `merge`."""

    def __init__(self, config: EvalConfig) -> None:
        self.config = config
        self.plan = Plan(config)
        self.clusters = Keys()
        self.whole = self._table()
        self.whole.keys.code(_WHOLE)
        self.whole.resize()
        self.slices = {name: self._table() for name in config.by}
        self.classes = Classes(config.n_classes, self.plan.weighted)
        self.distribution = Distribution()
        self.unnormalised = 0
        self.coverage = Coverage()  # the parts of a divided run that it holds; empty for any other rows

    def _table(self) -> Table:
        return Table(self.plan, self.config.bins)

    @classmethod
    def empty(cls, config: EvalConfig) -> EvalState:
        """The state of no rows."""
        return cls(config)

    @property
    def total(self) -> int:
        """Rows of any status."""
        return int(self.whole.rows.sum())

    def update(self, batch: dict[str, Any] | pa.RecordBatch) -> EvalState:
        """Score a batch of logits and the columns the configuration names, and add its rows, in place."""
        from fastxent.evaluate import score_batch

        for rows in score_batch(batch, self.config):
            self.add(rows)
        return self

    def add(self, rows: ScoredRows) -> EvalState:
        """Add scored rows, in place; an error leaves the state as it was."""
        groups = {name: EncodedColumn.of(rows.by[name], name) for name in self.slices}
        for name, column in groups.items():
            _check_slices(name, self.slices[name].keys.union_size(column.keys))
        mask = rows.status == USED
        used = rows if mask.all() else _select(rows, mask)
        self.classes.check(used)
        scored = Scored.of(self.plan, used, rows.status, self.config.bins)
        if self.config.cluster is not None:
            clusters = EncodedColumn.of(_filter(rows.cluster, mask), self.config.cluster)
            scored.clusters = self.clusters.codes(clusters)
        self.classes.add(used)
        self.distribution.add(used.nll)
        self.whole.add(scored, None)
        for name, column in groups.items():
            self.slices[name].add(scored, self.slices[name].keys.codes(column))
        self.unnormalised += rows.unnormalised
        return self

    def merge(self, other: EvalState) -> EvalState:
        """The state of the rows of both, as a new object. Associative and commutative."""
        return copy.deepcopy(self).absorb(other)

    def absorb(self, other: EvalState) -> EvalState:
        """Add the rows of another state, in place; an error leaves this one as it was."""
        self._refuse_other_config(other.config)
        self.coverage.refuse_overlap(other.coverage)
        for name, table in self.slices.items():
            _check_slices(name, table.keys.union_size(other.slices[name].keys.names))
        clusters = self.clusters.absorb(other.clusters)
        self.whole.absorb(other.whole, clusters)
        for name, table in self.slices.items():
            table.absorb(other.slices[name], clusters)
        self.classes.absorb(other.classes)
        self.distribution.absorb(other.distribution)
        self.unnormalised += other.unnormalised
        self.coverage.absorb(other.coverage)
        return self

    def _refuse_other_config(self, config: EvalConfig) -> None:
        for option in fields(EvalConfig):
            mine, theirs = getattr(self.config, option.name), getattr(config, option.name)
            if mine != theirs:
                raise StateError(
                    f"states of different configurations do not merge: {option.name}={mine!r} here, {theirs!r} there"
                )

    def result(self, timing: dict[str, Any] | None = None, files: Iterable[str] = ()) -> EvalResult:
        """Every figure of the rows so far; the state stays as it is."""
        bins = self.whole.bins_of(0)
        warnings = []
        if self.unnormalised:
            warnings.append(f"{self.unnormalised} rows of probabilities do not sum to 1 within 1e-3; used as given")
        if not self.whole.rows[0, USED]:
            warnings.append("no row was used: every mean is undefined")
        held = self.coverage.held()
        if held is not None:
            warnings.append(f"these are the figures of {held} alone")
        return EvalResult(
            rows=_rows(self.whole.rows[0]),
            metrics=self._metrics(self.whole)[0],
            calibration=_calibration(bins, self.plan.weighted),
            per_class=self.classes.figures(self.config.classes),
            nll_histogram=self.distribution.shown(),
            nll_quantiles=self.distribution.quantiles(),
            slices={name: self._slices(table) for name, table in self.slices.items()},
            config=self.config,
            clusters=None if self.config.cluster is None else len(self.clusters),
            timing=timing,
            files=tuple(files),
            warnings=tuple(warnings),
        )

    def _metrics(self, table: Table) -> list[dict[str, Metric]]:
        places = table.by_group()
        return [self.plan.figures(table.sums_of(g, places[g]), table.bins_of(g)) for g in range(len(table.keys))]

    def _slices(self, table: Table) -> dict[Any, Slice]:
        metrics = self._metrics(table)
        order = table.keys.order().tolist()
        values = distinct_values([table.keys.names[g] for g in order])
        return {value: Slice(_rows(table.rows[g]), metrics[g]) for value, g in zip(values, order, strict=True)}

    def to_bytes(self, compression: int = 6) -> bytes:
        """The state as bytes that check themselves: equal states give equal bytes, at one ``compression`` (0 to 9)."""
        cluster_order = self.clusters.order()
        parts = {name: table.arrays(cluster_order) for name, table in self._tables().items()}
        parts["classes"] = self.classes.arrays()
        parts["nll"] = {"counts": self.distribution.counts, "extremes": self.distribution.extremes}
        header = {
            "config": self.config.to_dict(),
            "unnormalised": self.unnormalised,
            "clusters": self.clusters.names_in_order(),
            "slices": {name: table.keys.names_in_order() for name, table in self.slices.items()},
            "coverage": self.coverage.to_dict(),
        }
        arrays = {f"{part}|{name}": array for part, found in parts.items() for name, array in found.items()}
        return pack(header, arrays, compression)

    @classmethod
    def from_bytes(cls, data: bytes) -> EvalState:
        """The inverse of `to_bytes`; StateError if the bytes are damaged or of another version."""
        header, arrays = unpack(data)
        try:
            state = cls(EvalConfig.from_dict(header["config"]))
            parts: dict[str, dict[str, np.ndarray]] = {}
            for name, array in arrays.items():
                part, _, inner = name.rpartition("|")
                parts.setdefault(part, {})[inner] = array
            state.clusters = Keys.restored(header["clusters"])
            keys = {"whole": [_WHOLE], **{f"by {name}": found for name, found in header["slices"].items()}}
            for name, table in state._tables().items():
                table.load(parts[name], keys[name], len(state.clusters))
            state.classes.load(parts["classes"])
            state.distribution.load(parts["nll"])
            state.unnormalised = int(header["unnormalised"])
            state.coverage = Coverage.from_dict(header["coverage"])
        except (ConfigError, KeyError, ValueError, TypeError, IndexError, AttributeError) as error:
            raise StateError(f"a damaged saved state: {error!r}") from None
        return state

    def _tables(self) -> dict[str, Table]:
        return {"whole": self.whole, **{f"by {name}": table for name, table in self.slices.items()}}


def _check_slices(name: str, count: int) -> None:
    """Bound the memory that slices take."""
    if count > MAX_SLICES:
        raise ConfigError(
            f"by column {name!r} has more than {MAX_SLICES} distinct values; if rows that share one belong together "
            f"and only the standard errors should allow for that, use cluster={name!r} instead"
        )


def _select(rows: ScoredRows, mask: np.ndarray) -> ScoredRows:
    """The used rows; columns of groups are looked up elsewhere."""
    chosen = {f.name: value[mask] for f in fields(rows) if isinstance(value := getattr(rows, f.name), np.ndarray)}
    return replace(rows, **chosen)


def _filter(column: pa.Array | None, mask: np.ndarray) -> pa.Array:
    import pyarrow as pa

    if column is None:
        raise ValueError("these rows carry no cluster, which the configuration asks for")
    return column if mask.all() else column.filter(pa.array(mask))


def _rows(counts: np.ndarray) -> Rows:
    logits, target = int(counts[BAD_LOGITS]), int(counts[BAD_TARGET])
    return Rows(int(counts.sum()), int(counts[USED]), int(counts[IGNORED]), logits + target, logits, target)


def _calibration(bins: Bins, weighted: bool) -> Calibration:
    edges = bin_edges(len(bins.count)).tolist()
    unit = 1 << bins.scale
    return Calibration(
        lower=tuple(edges[:-1]),
        upper=tuple(edges[1:]),
        count=tuple(bins.count),
        confidence=tuple(map(rounded_ratio, bins.confidence, bins.weight)),
        accuracy=tuple(map(rounded_ratio, bins.correct, bins.weight)),
        weight=tuple(rounded_ratio(w, unit) for w in bins.weight) if weighted else None,
    )

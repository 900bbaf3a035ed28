"""The state of an evaluation: rows are added, states are merged, and a result is computed.

Everything in it is an integer count or an exact sum, so a state depends on its rows alone: not on their order, nor on
how they were split over batches, threads or machines. `EvalState.to_bytes` of equal contents are equal bytes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import fields
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from fastxent.errors import ConfigError, StateError
from fastxent.options.checks import shown
from fastxent.options.config import EvalConfig
from fastxent.results.curves import Curves
from fastxent.results.result import EvalResult
from fastxent.results.values import Calibration, Metric, RowCounts, Slice
from fastxent.scoring.class_sums import Scored, Summed
from fastxent.scoring.classwise import CLASSWISE
from fastxent.scoring.odds_sums import BinarySums
from fastxent.scoring.rows import BAD_LOGITS, BAD_TARGET, IGNORED, USED
from fastxent.state.averages import ENTROPY as NORMALIZED
from fastxent.state.binary import BinaryPlan
from fastxent.state.calibration import shown_bins
from fastxent.state.classes import CORRECT, Classes
from fastxent.state.classwise import class_gaps_of
from fastxent.state.clusters import Clusters
from fastxent.state.component import Component, Summands
from fastxent.state.confusion import Matrix, Pairs
from fastxent.state.coverage import Coverage
from fastxent.state.doubts import doubts
from fastxent.state.given import ScoreTable, score_tables
from fastxent.state.grids import Grids
from fastxent.state.keys import EncodedColumn, distinct_values, in_order
from fastxent.state.labels import Labels
from fastxent.state.limits import check_slices, id_of, room, texts, uncounted, values, worst_of
from fastxent.state.metrics import MetricPlan, Sums
from fastxent.state.packed import DAMAGED, pack, unpack
from fastxent.state.table import GroupTable
from fastxent.state.tasks import (
    Detail,
    class_tables_of,
    classes_of,
    details_of,
    distribution_of,
    labels_of,
    plan_of,
    ranking_metrics,
    ranking_of,
)  # fmt: skip
from fastxent.state.tempered import scorer_for

if TYPE_CHECKING:
    import pyarrow as pa

St = TypeVar("St", bound="EvalState")
_TOLD = ("unnormalised", "unnormalised_targets", "soft_targets", "probabilities")  # counts of `ScoredRows`
_TOLD_BINARY = ("minus_ones", "zeros")  # and of `BinaryRows`
_WHOLE = "whole"  # the one group of the table of all rows


class EvalState:
    """Counts and exact sums of the rows seen so far; `empty` is the identity of `merge`."""

    paired = False  # rows are those of one of two dumps

    def __init__(self, config: EvalConfig, worst: int = 0, id: str | None = None) -> None:
        self.config, self.worst, self.id = config, worst, id if worst else None
        self.plan = self._plan_of(config)
        self.clusters = Clusters()
        self.whole = GroupTable(self.plan, config.bins, every=True)
        self.whole.keys.code(_WHOLE)
        self.whole.resize()
        self.slices = {name: GroupTable(self.plan, config.bins, name) for name in config.by}
        tables = [self.whole, *self.slices.values()]
        self.labels = labels_of(self.plan, tables)
        self.classes = self.labels.get(None) or classes_of(config, self.plan)
        self.class_tables = class_tables_of(config, self.plan, self.slices.values())
        self.details = self._details_of(config, self.plan, worst, id)
        self.distribution = distribution_of(config)
        self.components: dict[str, Component] = {  # by their names in a saved state
            "whole": self.whole,
            **{f"by {name}": table for name, table in self.slices.items()},
            "classes": self.classes,
            "nll": self.distribution,
            **{f"classes by {name}": classes for name, classes in self.class_tables.items()},
        }
        self.components.update(
            {f"labels by {name}": labels for name, labels in self.labels.items() if name is not None}
        )
        self.scores = ranking_of(self.plan, tables)
        self.grids = Grids(config, self.plan, tables, self.labels, self.paired)
        self.given = self._given_of(config, self.plan)
        for table in self.given:
            if table.column is None:
                table.keys.code(_WHOLE)
                table.resize()
            self.components[table.name] = table
        self.components.update(
            {"scores" if name is None else f"scores by {name}": s for name, s in self.scores.items()}
        )
        self.class_gaps = class_gaps_of(config, self.plan)
        self.components.update({} if self.class_gaps is None else {"class gaps": self.class_gaps})
        self.components.update(self.details)
        self.components.update(self.grids.components)
        told = (*_TOLD, *_TOLD_BINARY) if config.task == "binary" else _TOLD
        self.told = dict.fromkeys(told, 0)  # rows that `result` warns about
        self.coverage = Coverage()  # the parts of a sharded run that it holds; empty for any other rows

    @staticmethod
    def _plan_of(config: EvalConfig) -> MetricPlan:
        return plan_of(config)

    @staticmethod
    def _given_of(config: EvalConfig, plan: MetricPlan) -> Sequence[ScoreTable]:
        return score_tables(config, plan, ScoreTable)

    @staticmethod
    def _details_of(config: EvalConfig, plan: MetricPlan, worst: int, id: str | None) -> dict[str, Detail]:
        return details_of(config, plan, worst, id)

    @classmethod
    def empty(cls, config: EvalConfig, worst: int = 0, id: str | None = None) -> EvalState:
        """The state of no rows.

        worst: number of rows of largest loss to keep. id: their column of row names, or None.
        """
        return cls(config, worst, id)

    def emptied(self) -> EvalState:
        """The state of no rows under the same options."""
        return type(self).empty(self.config, self.worst, self.id)

    @property
    def total(self) -> int:
        """Rows of any status."""
        return int(self.whole.rows.sum())

    def update(self, batch: dict[str, Any] | pa.RecordBatch) -> EvalState:
        """Score a batch of logits and the columns that the options name, and add its rows, in place."""
        from fastxent.scoring.task import score_batch

        for rows in score_batch(batch, self.config, () if self.id is None else (self.id,), scorer_for):
            self.add(rows)
        return self

    def add(self, rows: Scored) -> EvalState:
        """Add scored rows, in place; an error leaves the state as it was, but for earlier rows of several."""
        if isinstance(rows, list | Iterator):
            for some in rows:
                self.add(some)
            return self
        if isinstance(rows, Summed):
            self._add_sums(rows)
            return self
        groups = {name: EncodedColumn.of(rows.by[name], name) for name in self.slices}
        for name, column in groups.items():
            self._check_slices(name, column.keys)
        mask = rows.status == USED
        if rows.weight is not None:
            mask &= rows.weight != 0  # such a row contributes nothing, even where its loss is infinite
        used = rows if mask.all() else rows.select(mask)
        if self.plan.labelled:
            self.classes.check(used)
        summands = Summands.of(self.plan, used, rows.status, mask, groups)
        if self.config.cluster is not None:
            summands.clusters = self.clusters.codes(_filter(rows.cluster, mask), self.config.cluster)
        self.grids.divide(summands, self.clusters)
        for component in reversed(self.components.values()):  # all rows last: their sums are those of the slices
            component.add(summands)
        for name in self.told:
            self.told[name] += getattr(rows, name)
        return self

    def _add_sums(self, rows: Summed) -> None:
        """Add rows that were summed when they were scored."""
        assert isinstance(self.classes, Classes)
        if isinstance(rows, BinarySums):
            assert isinstance(self.plan, BinaryPlan)
            words = self.plan.words(rows)
            for scores in self.scores.values():
                scores.add_sums(rows)
        else:
            words = rows.words
        self.whole.add_sums(rows.statuses, words, rows.cuts)
        self.classes.add_sums(rows.matrix, rows.losses)
        if isinstance(confusion := self.details.get("confusion"), Matrix):
            confusion.add_counts(rows.matrix)
        self.distribution.add_counts(rows.nll, rows.extremes)
        self.grids.add_sums(rows)
        for name in self.told:
            self.told[name] += getattr(rows, name)

    def settle(self) -> None:
        """Count the scores that wait."""
        for scores in self.scores.values():
            scores.counted.count()

    def _check_slices(self, name: str, keys: Iterable[str]) -> None:
        labelled = name in self.labels or bool(self.labels and name in self.scores)
        check_slices(name, self.slices[name].keys.union_size(keys), self.config.n_classes if labelled else None)

    def merge(self, other: EvalState) -> EvalState:
        """The state of the rows of both, as a new object. Associative and commutative."""
        return self.emptied().absorb(self).absorb(other)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, EvalState) and self.to_bytes(0) == other.to_bytes(0)

    __hash__ = None  # type: ignore[assignment]  # a state grows

    def __reduce__(self) -> tuple[Any, ...]:
        return EvalState.from_bytes, (self.to_bytes(1),)

    def absorb(self, other: EvalState) -> EvalState:
        """Add the rows of another state, in place; an error leaves this one as it was."""
        self._refuse_other_config(other)
        self.coverage.refuse_overlap(other.coverage)
        for name in self.slices:
            self._check_slices(name, other.slices[name].keys.names)
        clusters = self.clusters.absorb(other.clusters)
        for name, component in self.components.items():
            component.absorb(other.components[name], clusters)
        self.told = {name: count + other.told[name] for name, count in self.told.items()}
        self.coverage.absorb(other.coverage)
        return self

    def _refuse_other_config(self, other: EvalState) -> None:
        pairs = {f.name: (getattr(self.config, f.name), getattr(other.config, f.name)) for f in fields(EvalConfig)}
        pairs |= {name: (getattr(self, name), getattr(other, name)) for name in ("worst", "id")}
        for name, (mine, theirs) in pairs.items():
            if mine != theirs:
                raise StateError(
                    f"states of different configurations do not merge: {name}={mine!r} here, {theirs!r} there"
                )

    def result(self, timing: dict[str, Any] | None = None, files: Iterable[str] = (), threads: int = 1) -> EvalResult:
        """Every metric of the rows so far, by up to ``threads`` threads; the state stays as it is."""
        bins = self.labels.get(None, self.whole).bins_of(0)
        (metrics,), curves = self._metrics(self.whole, threads)
        return EvalResult(
            rows=rows_of(self.whole.rows[0]),
            metrics=metrics,
            calibration=shown_bins(bins, self.plan.weighted) if self.plan.labelled else Calibration((), (), (), (), ()),
            per_class=self.classes.per_class(self.config.classes),
            nll_histogram=self.distribution.shown(),
            nll_quantiles=self.distribution.quantiles(),
            slices={name: in_order(self._slices(table)) for name, table in self.slices.items()},
            config=self.config,
            timing=timing,
            files=tuple(files),
            curves=curves,
            reliability=self.grids.reliability(),
            **{name: value for part in self.details.values() for name, value in part.result().items()},
            **self.beside(),
        )

    def beside(self) -> dict[str, Any]:
        """The fields of a result beside its metrics: clusters, warnings and score_rows."""
        held, used = self.coverage.held(), int(self.whole.rows[0, USED])
        partial = [] if held is None else [f"these metrics are of {held} only"]
        return {
            "clusters": None if self.config.cluster is None else len(self.clusters),
            "warnings": (
                *doubts(self.config, self.told, used, self.whole.contributing(0)),
                *self._unknown(),
                *uncounted(self.details.get("confusion")),
                *self.grids.doubts(),
                *partial,
            ),
            "score_rows": {table.score: rows_of(table.rows[0]) for table in self.given if table.column is None},
        }

    def _unknown(self) -> list[str]:
        """Warnings about averages over classes that are not known."""
        return [
            f"averages over classes are not known for slices of {column!r}: {table.reason}"
            for column, table in self.class_tables.items()
            if not table.known
        ]

    def metrics_of(self, table: GroupTable) -> list[dict[str, Metric]]:
        """The metrics of each group of a table."""
        return self._metrics(table)[0]

    def _metrics(self, table: GroupTable, threads: int = 1) -> tuple[list[dict[str, Metric]], Curves | None]:
        """(the metrics of each group, the curves of a table of one group)."""
        places = table.by_group()
        bins = self.labels.get(table.column, table)
        found = []
        for g in range(len(table.keys)):
            sums = table.sums_of(g, places[g])
            found.append(self.plan.metrics_of(sums, bins.bins_of(g)) | self._averages(table.column, g, sums))
        if isinstance(bins, Labels):
            for g, group in enumerate(found):
                group.update({name: metric for name, metric in bins.macro(g).items() if name in group})
        self.grids.add_metrics(table.column, found)
        if self.plan.averages:
            self.grids.add_averages(found, self.details.get("confusion"), table, self.clusters)
        if self.class_gaps is not None and table is self.whole:
            found[0][CLASSWISE] = self.class_gaps.metric()
        scores = self.scores.get(table.column), self.grids.scores if table is self.whole else None
        found, curves = ranking_metrics(self.plan, found, *scores, self.config.jackknife, threads)
        for given in self.given:
            if given.column == table.column:
                means = given.means()
                for key, metrics in zip(table.keys.names, found, strict=True):
                    metrics[given.score] = means[key]
        return found, curves

    def _averages(self, column: str | None, group: int, sums: Sums) -> dict[str, Metric]:
        """The metrics of one group that are averages over classes, if they are known."""
        if not self.plan.averages:
            return {}
        assert isinstance(self.classes, Classes)
        of = self.classes.class_sums() if column is None else self.class_tables[column].class_sums(group)
        if of is None:
            return {}
        metrics = self.plan.averages_of(of, sums, self.config.class_weight)
        if self.told["soft_targets"] and NORMALIZED in metrics:  # classes count the most probable one of a row
            metrics[NORMALIZED] = Metric(math.nan)
        return metrics

    def _slices(self, table: GroupTable) -> dict[Any, Slice]:
        metrics, _ = self._metrics(table)
        order = table.keys.order().tolist()
        values = distinct_values([table.keys.names[g] for g in order])
        return {value: Slice(rows_of(table.rows[g]), metrics[g]) for value, g in zip(values, order, strict=True)}

    def to_bytes(self, compression: int = 6) -> bytes:
        """The state as bytes that check themselves: equal states give equal bytes, at one ``compression`` (0 to 9)."""
        cluster_order = self.clusters.order()
        header = {
            "config": self.config.to_dict(),
            "unnormalised": self.told["unnormalised"],
            "clusters": self.clusters.names_in_order(),
            "slices": {name: table.keys.names_in_order() for name, table in self.slices.items()},
            "coverage": self.coverage.to_dict(),
            **{name: count for name, count in self.told.items() if count},
            **({"worst": self.worst} if self.worst else {}),
            **({} if self.id is None else {"id": self.id}),
        }
        arrays = {
            f"{name}|{inner}": array
            for name, component in self.components.items()
            for inner, array in component.arrays(cluster_order).items()
        }
        return pack(header, arrays, compression)

    @classmethod
    def from_bytes(cls, data: bytes) -> EvalState:
        """The inverse of `to_bytes`; StateError if the bytes are damaged or of another version."""
        return cls._restored(data, cls)

    @staticmethod
    def _restored(data: bytes, made: Callable[[EvalConfig, int, str | None], St]) -> St:
        """The state of ``data``, which ``made`` makes for its configuration."""
        header, arrays = unpack(data, room)
        try:
            state = made(EvalConfig.from_dict(header["config"]), worst_of(header), id_of(header))
            if set(header["slices"]) != set(state.slices):
                raise ValueError("slices of other columns")
            stored: dict[str, dict[str, np.ndarray]] = {}
            for name, array in arrays.items():
                outer, _, inner = name.rpartition("|")
                stored.setdefault(outer, {})[inner] = array
            state.clusters = Clusters(texts(header["clusters"]))
            keys = {"whole": [_WHOLE], **{f"by {name}": values(found) for name, found in header["slices"].items()}}
            keys |= {t.name: keys["whole" if t.column is None else f"by {t.column}"] for t in state.given}
            for name, component in state.components.items():
                component.load(stored.get(name, {}), keys.get(name, []), len(state.clusters))
            state.told = {name: header.get(name, 0) for name in state.told}
            state.coverage = Coverage.from_dict(header["coverage"])
            state._check()
        except (ConfigError, *DAMAGED) as error:
            raise StateError(f"a damaged saved state: {shown(error)}") from None
        return state

    def _check(self) -> None:
        """ValueError if the components of a state that was read contradict each other."""
        total, rows = self.whole.rows[0], self.whole.contributing(0)
        if any((table.rows.sum(axis=0) != total).any() for table in self.slices.values()):
            raise ValueError("slices that do not add up to all rows")
        labelled = rows if self.plan.labelled else 0
        if any(count != labelled for count in self.classes.rows()):
            raise ValueError("classes that do not add up to the rows")
        if isinstance(found := self.details.get("confusion"), Matrix | Pairs):
            found.check(labelled, int(self.classes.counts[CORRECT].sum()))
        if int(self.distribution.counts.sum()) != (rows if self.plan.losses else 0):
            raise ValueError("losses that do not add up to the rows")
        for table in self.given:
            every = self.whole if table.column is None else self.slices[table.column]
            if (table.rows.sum(axis=1) != every.rows.sum(axis=1)).any():
                raise ValueError("scores that do not add up to the rows")
        for name, scores in self.scores.items():
            of = self.whole if name is None else self.slices[name]
            if (scores.rows() > [of.contributing(g) for g in range(len(of.keys))]).any():
                raise ValueError("more scores than rows")
        self.grids.check()
        if self.class_gaps is not None and self.class_gaps.rows != labelled:
            raise ValueError("gaps of classes that are not those of the rows")
        if any(not (type(count) is int and 0 <= count <= total.sum()) for count in self.told.values()):
            raise ValueError("more warnings than rows")


def _filter(column: pa.Array | None, mask: np.ndarray) -> pa.Array:
    import pyarrow as pa

    if column is None:
        raise ValueError("scored rows must have clusters, because the configuration uses them")
    return column if mask.all() else column.filter(pa.array(mask))


def rows_of(counts: np.ndarray) -> RowCounts:
    logits, target = int(counts[BAD_LOGITS]), int(counts[BAD_TARGET])
    return RowCounts(int(counts.sum()), int(counts[USED]), int(counts[IGNORED]), logits + target, logits, target)

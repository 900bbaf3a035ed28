"""Plain values of a comparison of two dumps, read-only, and their JSON (schema ``fastxent/compare/1``)."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, fields
from typing import TYPE_CHECKING, Any

from fastxent.options.config import EvalConfig
from fastxent.results import encoding
from fastxent.results.encoding import number_out, plain
from fastxent.results.evaluation import SavedState, few_units, versions
from fastxent.results.values import Metric, RowCounts, Values, labels, metrics_out

if TYPE_CHECKING:
    import pyarrow as pa

SCHEMA = "fastxent/compare/1"
_MEANS = ("kl_divergence_ab", "kl_divergence_ba", "js_divergence", "same_top_1", "target_probability",
          "target_probability_rms")  # fmt: skip
DIVERGENCE_TITLES = {"kl_divergence_ab": "KL(a‖b)", "kl_divergence_ba": "KL(b‖a)", "js_divergence": "Jensen-Shannon"}
QUANTILES = (0.001, 0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 0.999)


@dataclass(frozen=True, eq=False)
class MetricComparison(Values):
    """A metric of two dumps a and b of the same rows. What is not defined is NaN.

    Attributes:
        a, b: Metric. The metric of either dump.
        difference: Metric. b - a, with the standard error and the interval of paired rows (or clusters).
        p_value: float. Two-sided, of the t statistic of the difference. For perplexity, that of the mean loss.
        correlation: float. Of the numbers of a and b over rows (or clusters).
        unpaired_stderr: float. The standard error that the difference would have if the rows were not paired.
        minimum_detectable_effect: float. 2.8 standard errors: a true difference of that size is found at the level
            5 % with a probability of 80 %.
        adjusted_p_value: float or None. In a slice: the p-value adjusted by Holm for the slices of the column.
        flips: Flips or None. Of one of ``scores`` that is 0 or 1 in all rows: 1 is right.
    """

    a: Metric
    b: Metric
    difference: Metric
    p_value: float
    correlation: float
    unpaired_stderr: float
    minimum_detectable_effect: float
    adjusted_p_value: float | None = None
    flips: Flips | None = None


@dataclass(frozen=True, eq=False)
class ConfidenceBucket(Values):
    """The rows with a confidence of the first dump in (lower, upper], and their mean divergence.

    The confidence of a binary dump is the probability of the positive class.
    """

    lower: float
    upper: float
    rows: int
    mean: Metric


@dataclass(frozen=True, eq=False)
class Divergence(Values):
    """A divergence of the rows of two dumps, in nats.

    Attributes:
        mean: Metric.
        max: float. The largest of a row.
        quantiles: dict of float to float. Within 0.2 %, of a slice within 0.8 %.
        by_confidence: tuple of ConfidenceBucket. Empty for a slice, and for multilabel dumps.
    """

    mean: Metric
    max: float = math.nan
    quantiles: dict[float, float] = field(default_factory=dict)
    by_confidence: tuple[ConfidenceBucket, ...] = ()

    def _key(self) -> tuple[Any, ...]:
        return self.mean, repr(self.max), repr(self.quantiles), self.by_confidence


@dataclass(frozen=True, eq=False)
class TargetProbability(Values):
    """The change of the probability of the target, b - a.

    Attributes:
        mean: Metric. rms: Metric. The root of the mean square.
        max: float. The largest |change|.
        quantiles: dict of float to float. Within 0.2 %, of a slice within 0.8 %.
        histogram: (edges, counts). 40 bins from -1 to 1; empty for a slice.
    """

    mean: Metric
    rms: Metric
    max: float = math.nan
    quantiles: dict[float, float] = field(default_factory=dict)
    histogram: tuple[tuple[float, ...], tuple[int, ...]] = ((), ())

    def _key(self) -> tuple[Any, ...]:
        return self.mean, self.rms, repr(self.max), repr(self.quantiles), self.histogram


@dataclass(frozen=True, eq=False)
class Flips(Values):
    """Rows by whether either dump is right. ``p_value``: exact McNemar test, for independent rows.

    z: float or None. With clusters, Σ_c f_c / √Σ_c f_c², where f_c is wrong→right less right→wrong in a cluster.
    """

    both_right: int
    both_wrong: int
    right_to_wrong: int
    wrong_to_right: int
    p_value: float
    z: float | None = None


@dataclass(frozen=True, eq=False)
class RankChange(Values):
    """The change of the rank of the target, b - a: its mean, and the share of rows where it is not 0."""

    mean: Metric
    changed: Metric


@dataclass(frozen=True, eq=False)
class ChangedRow(Values):
    """A row that changed much.

    Attributes:
        file: str. row: int. Its place in the first dump.
        id: its value in the ``id`` column; without one the document and the position, if it has these; or None.
        size: float. |change of the NLL|; without targets the divergence.
        target: int or None. nll_a, nll_b: float. predicted_a, predicted_b: int; in multilabel dumps, how many labels.
        kl_divergence_ab: float.
    """

    file: str
    row: int
    id: Any
    size: float
    target: int | None
    nll_a: float
    nll_b: float
    predicted_a: int
    predicted_b: int
    kl_divergence_ab: float


@dataclass(frozen=True, eq=False)
class ComparedRows(RowCounts):
    """Counts of rows that are in both dumps, and of those that are in one alone (with ``how="inner"``)."""

    only_a: int = 0
    only_b: int = 0


@dataclass(frozen=True, eq=False)
class Compared(Values):
    """What two dumps differ in, over all rows or those of a slice; `CompareResult` describes each field."""

    rows: ComparedRows
    metrics: dict[str, MetricComparison]
    perplexity_ratio: Metric | None
    divergences: dict[str, Divergence]
    same_top_1: Metric | None
    target_probability: TargetProbability | None
    flips: Flips | None
    rank: RankChange | None

    def _key(self) -> tuple[Any, ...]:
        return (repr(compared_out(self)),)


@dataclass(frozen=True, repr=False, eq=False)
class CompareValues(Compared):
    """All fields of the result of a comparison, with their JSON and Arrow forms."""

    slices: dict[str, dict[Any, Compared]]
    largest: tuple[ChangedRow, ...]
    names: tuple[str, str]
    config: EvalConfig
    clusters: int | None = None
    timing: dict[str, Any] | None = None
    files: tuple[tuple[str, ...], tuple[str, ...]] = ((), ())
    warnings: tuple[str, ...] = ()
    versions: dict[str, str] = field(default_factory=lambda: dict(versions()))
    state: SavedState | None = None
    score_rows: dict[str, RowCounts] = field(default_factory=dict)

    def _key(self) -> tuple[Any, ...]:
        return (repr({**self.to_dict(), "versions": None, "timing": None}),)

    @property
    def caution(self) -> str | None:
        """A sentence, if the rows or clusters are so few that the intervals are approximate."""
        return few_units(self.rows.used, self.clusters)

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-ready values."""
        return {
            "schema": SCHEMA,
            "task": self.config.task,
            "names": list(self.names),
            "clusters": self.clusters,
            **compared_out(self),
            "slices": {
                column: {
                    label: {"value": value, **compared_out(part)}
                    for label, (value, part) in zip(labels(found), found.items(), strict=True)
                }
                for column, found in self.slices.items()
            },
            "largest": [plain(asdict(row)) for row in self.largest],
            "config": self.config.to_dict(),
            "files": [list(files) for files in self.files],
            "timing": plain(self.timing),
            "warnings": list(self.warnings),
            "versions": self.versions,
            **({"scores": {name: asdict(rows) for name, rows in self.score_rows.items()}} if self.score_rows else {}),
        }

    def to_json(self, indent: int | None = 1) -> str:
        """Return `to_dict` as JSON text.

        Args:
            indent: int or None. Spaces per level; None for one line.
        """
        return encoding.written(self.to_dict(), indent)

    def to_arrow(self) -> pa.Table:
        """Return a table with one row per metric of all rows (``column`` and ``slice`` are null) and of each slice.

        The mean divergences are metrics too; their ``a``, ``b`` and what belongs to these are null.
        """
        import pyarrow as pa

        records = _records(None, None, self)
        for column, found in self.slices.items():
            for label, part in zip(labels(found), found.values(), strict=True):
                records += _records(column, label, part)
        names = ("column", "slice", "metric", "a", "b", "difference", "stderr", "ci95_low", "ci95_high", "p_value",
                 "adjusted_p_value", "correlation", "unpaired_stderr", "minimum_detectable_effect")  # fmt: skip
        fields = [pa.field(name, pa.string() if k < 3 else pa.float64()) for k, name in enumerate(names)]
        columns = [list(column) for column in zip(*records, strict=True)] or [[] for _ in names]
        return pa.table([pa.array(c, f.type) for c, f in zip(columns, fields, strict=True)], schema=pa.schema(fields))


def _records(column: str | None, label: str | None, part: Compared) -> list[tuple[Any, ...]]:
    found: list[tuple[Any, ...]] = [
        (column, label, name, m.a.value, m.b.value, m.difference.value, m.difference.stderr, *m.difference.ci95,
         m.p_value, m.adjusted_p_value, m.correlation, m.unpaired_stderr, m.minimum_detectable_effect)
        for name, m in part.metrics.items()
    ]  # fmt: skip
    for name, metric in means_of(part).items():
        found.append((column, label, name, None, None, metric.value, metric.stderr, *metric.ci95, *[None] * 5))
    return found


def means_of(part: Compared) -> dict[str, Metric]:
    """Return what belongs to both dumps together: the means of divergences, agreement and changes, by name."""
    found = {name: divergence.mean for name, divergence in part.divergences.items()}
    if part.same_top_1 is not None:
        found["same_top_1"] = part.same_top_1
    if part.target_probability is not None:
        found["target_probability"] = part.target_probability.mean
        found["target_probability_rms"] = part.target_probability.rms
    if part.rank is not None:
        found |= {"rank_change": part.rank.mean, "rank_changed": part.rank.changed}
    if part.perplexity_ratio is not None:
        found["perplexity_ratio"] = part.perplexity_ratio
    return found


_METRIC = ("value", "stderr", "ci95.low", "ci95.high", "bounds.low", "bounds.high")
_TOGETHER = ("p_value", "adjusted_p_value", "correlation", "unpaired_stderr", "minimum_detectable_effect")
_FLIPS = ("both_right", "both_wrong", "right_to_wrong", "wrong_to_right", "p_value", "z")


def number_names(metrics: Iterable[str], scores: Iterable[str] = ()) -> list[str]:
    """Return the names of the numbers of a comparison of these metrics, as `numbers` has them.

    scores: those of the metrics that may be 0 or 1 in every row.
    """
    found = []
    for name in metrics:
        for part in ("a", "b", "difference"):
            found += [f"{name}.{part}", *(f"{name}.{part}.{end}" for end in _METRIC)]
        found += [f"{name}.{part}" for part in _TOGETHER]
    for name in ("kl_divergence_ab", "kl_divergence_ba", "js_divergence", "target_probability"):
        found += [f"{name}.max", *(f"{name}.p{100 * q:g}" for q in QUANTILES)]
    for name in (*_MEANS, "rank_change", "rank_changed", "perplexity_ratio"):
        found += [name, *(f"{name}.{end}" for end in _METRIC)]
    for prefix in ("", *(f"{name}." for name in scores)):
        found += [f"{prefix}flips.{name}" for name in _FLIPS]
    return [*found, *(f"rows.{f.name}" for f in fields(ComparedRows))]


def numbers(part: Compared) -> dict[str, float]:
    """Return every number of all rows or of a slice by name, as in "cross_entropy.difference.ci95.low"."""
    found: dict[str, float] = {f"rows.{name}": float(value) for name, value in vars(part.rows).items()}
    for name, m in part.metrics.items():
        for side, metric in (("a", m.a), ("b", m.b), ("difference", m.difference)):
            found |= _metric_numbers(f"{name}.{side}", metric)
        found |= {f"{name}.{key}": math.nan if (v := getattr(m, key)) is None else v for key in _TOGETHER}
    for name, metric in means_of(part).items():
        found |= _metric_numbers(name, metric)
    apart: dict[str, Divergence | TargetProbability | None] = {
        **part.divergences, "target_probability": part.target_probability
    }  # fmt: skip
    for name, values in apart.items():
        if values is not None:
            found |= {f"{name}.max": values.max, **{f"{name}.p{100 * q:g}": v for q, v in values.quantiles.items()}}
    for prefix, flips in (("", part.flips), *((f"{name}.", m.flips) for name, m in part.metrics.items())):
        if flips is not None:
            found |= {f"{prefix}flips.{key}": math.nan if (v := getattr(flips, key)) is None else v for key in _FLIPS}
    return found


def _metric_numbers(name: str, metric: Metric) -> dict[str, float]:
    ends = metric.value, metric.stderr, *metric.ci95, *(metric.bounds or (metric.value, metric.value))
    return {name: metric.value, **{f"{name}.{end}": value for end, value in zip(_METRIC, ends, strict=True)}}


def _metric_out(metric: Metric) -> Any:
    return metrics_out({"": metric})[""]


def _fields_out(values: Values | None) -> Any:
    """Return the fields of a value in JSON-ready values; metrics inside too."""
    if values is None:
        return None
    optional = ("flips",) if isinstance(values, MetricComparison) else ()
    return {name: _out(value) for name, value in vars(values).items() if value is not None or name not in optional}


def _out(value: Any) -> Any:
    if isinstance(value, Metric):
        return _metric_out(value)
    if isinstance(value, Values):
        return _fields_out(value)
    if isinstance(value, dict):
        return {key if isinstance(key, str) else repr(key): _out(item) for key, item in value.items()}
    return [_out(item) for item in value] if isinstance(value, tuple | list) else number_out(value)


def compared_out(part: Compared) -> dict[str, Any]:
    """Return the fields of all rows, or of a slice, in JSON-ready values."""
    return {
        "rows": asdict(part.rows),
        "metrics": _out(part.metrics),
        "perplexity_ratio": None if part.perplexity_ratio is None else _metric_out(part.perplexity_ratio),
        "divergences": _out(part.divergences),
        "same_top_1": None if part.same_top_1 is None else _metric_out(part.same_top_1),
        "target_probability": _fields_out(part.target_probability),
        "flips": _fields_out(part.flips),
        "rank": _fields_out(part.rank),
    }

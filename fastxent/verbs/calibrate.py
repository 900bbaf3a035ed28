"""`fit_temperature`: reads of the scores at a few temperatures, until the best one is proven to 1e-6."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Unpack, cast

from fastxent.engine.job import Job
from fastxent.engine.loop import Loop
from fastxent.errors import ConfigError, SourceError
from fastxent.io.batch import Batch
from fastxent.options.config import EvalConfig
from fastxent.options.declared import DEFAULTS, Options
from fastxent.options.option import taking
from fastxent.options.runs import TemperatureOptions
from fastxent.results.fitted import TemperatureFit
from fastxent.results.result import EvalResult
from fastxent.results.temperature import TemperatureSlice
from fastxent.results.values import Metric, Slice
from fastxent.scoring.rows import ScoredRows
from fastxent.scoring.scorer import Scorer, Sweep
from fastxent.scoring.task import scorer_of
from fastxent.state.doubts import USE_MULTILABEL, USE_PROBS
from fastxent.state.temperatures import NONE, Member, Temperatures
from fastxent.verbs.evaluation import Evaluation
from fastxent.verbs.stationary import Slopes

_EXCESS = "nll_minus_entropy"
_COARSE = tuple(2.0**k for k in range(-5, 6))
_FAR = tuple(2.0**k for k in (-12, -10, -8, -7, -6, 6, 7, 8, 10, 12))
_NEAR = 0.1  # of ln T: the temperatures of the second read lie this far on either side of its estimates
_FINE, _MOST_FINE = 8, 24  # of them
_PROOF = 1e-6  # relative: the minimum is proven to lie within
_MOST_READS = 8
_ADVICE = {  # in place of options that `fit_temperature` does not have
    USE_PROBS: "fit a temperature to their logarithms",
    USE_MULTILABEL: "no temperature can be fitted to them",
}
_REASONS = {
    "unbounded": "No temperature from 1/4096 up is best: the lower it is, the lower is the loss. The rows are all "
    "right or nearly so, or the scores are very small.",
    "no signal": "No temperature up to 4096 is best: the higher it is, the lower is the loss. The scores say nothing "
    "about the targets, or they are very large.",
    "flat": "No temperature is best: the loss is the same at every temperature that was tried.",
    "no rows": "No temperature is best: no row was used, or a loss is infinite or undefined.",
}


@taking(TemperatureOptions, checks=True)
def fit_temperature(source: Any, **options: Unpack[TemperatureOptions]) -> TemperatureFit:
    """Find the temperature that minimises the cross-entropy of a dump, and what it changes.

    The loss L(β) = mean(lse(β·x) - β·x_y) is convex in β = 1/T (Guo et al. 2017, arXiv 1706.04599). A few temperatures
    are tried per read. The sign of L′, an exact sum, proves where the minimum lies; a last read proves it to 1e-6 and
    gives the metrics before and after. Those after are cross-fitted: the rows are divided into folds by their cluster,
    id, or own numbers, and each fold is scored with the temperature that is best for the others.

    Args:
        source: as in `evaluate`; it is read about three times, so it cannot be a stream.
        folds: int. Number of folds.
        id: str or None. Rows that share a value are in one fold. ``cluster`` comes first.
        by: columns whose values get temperatures of their own, in ``slices``.
        head, bias: as in `evaluate`. The logits are computed again for each read.
        bins, top_k, metrics: of the metrics before and after.
        softcap, class_mask, weight, where, ignore_index, …: as in `evaluate`. The standard error of the temperature is
            that of an estimating equation (sandwich), clustered if there is a ``cluster``.

    Returns:
        `TemperatureFit`. If no temperature is best, its ``temperature`` is NaN and its ``note`` says why.

    Raises:
        as `evaluate`.

    >>> import numpy as np, fastxent as fx
    >>> rng = np.random.default_rng(0)
    >>> logits = rng.normal(size=(2000, 4))
    >>> target = [rng.choice(4, p=fx.softmax(row / 1.5)) for row in logits]  # the logits are 1.5 times too large
    >>> fit = fx.fit_temperature({"logits": logits, "target": target})
    >>> abs(fit.temperature.value - 1.5) < 3 * fit.temperature.stderr
    True
    """
    grouped_by = options["cluster"] or options["id"]
    metrics = options["metrics"] if "all" in options["metrics"] else (*options["metrics"], "cross_entropy")
    values = cast(Options, {**DEFAULTS, **options, "metrics": metrics})
    job = Evaluation.open(source, values, columns=[grouped_by] if grouped_by else [])
    if job.recipe.config.target is None:
        raise ConfigError("target must name a column, got None; a temperature is fitted to targets")
    return _Fit(job, grouped_by, options).run()


@dataclass(frozen=True)
class Tempering:
    """The recipe of one read: rows at several temperatures, and the states that sum them."""

    config: EvalConfig
    dtype: str
    soft: bool  # targets are probabilities
    temperatures: tuple[float, ...]
    members: tuple[Member, ...]
    grouped_by: str | None

    @property
    def whole(self) -> bool:
        """Soft targets are as large as the logits; a binary dump is scored batch by batch."""
        return self.soft or self.config.task == "binary"

    light = False

    def scorer(self) -> Callable[[Batch], list[ScoredRows]]:
        """The rows of a batch at each temperature. Each block is swept at all of them while it is in the cache."""
        config = replace(self.config, cluster=self.grouped_by)
        scorers = [scorer_of(replace(config, temperature=t), self.dtype) for t in self.temperatures]
        plain = [scorer for scorer in scorers if isinstance(scorer, Scorer)]

        def sweep(batch: Batch) -> list[ScoredRows]:
            prepared = plain[0].prepare(batch, plain[0].compute)
            sweeps = [Sweep(scorer, prepared) for scorer in plain]
            for block in batch.blocks:
                for each in sweeps:
                    each.add(block)
            return [each.rows() for each in sweeps]

        def score(batch: Batch) -> list[ScoredRows]:
            blocks = list(batch.blocks)  # one, as they are `whole`
            return [scorer(replace(batch, blocks=iter(blocks))) for scorer in scorers]

        return sweep if plain else score

    def empty(self) -> Temperatures:
        """The states of no rows."""
        return Temperatures(self.members, self.grouped_by)

    def load(self, data: bytes) -> Temperatures:
        """The states that ``data`` holds."""
        return self.empty().load(data)

    def describe(self) -> dict[str, Any]:
        """The configuration and the temperatures."""
        return {**self.config.to_dict(), "temperatures": self.temperatures}


class _Fit:
    """The reads of one fit, and the slopes that are known so far."""

    def __init__(self, job: Job[Evaluation], grouped_by: str | None, options: TemperatureOptions) -> None:
        self._job, self._grouped_by, self._options = job, grouped_by, options
        self._config = replace(job.recipe.config, metrics=(_EXCESS,), bins=1)
        self._reads, self._fine_reads, self._seconds, self._rows = 0, 0, 0.0, -1
        self._timing: dict[str, Any] = {}
        self._whole = Slopes()
        self._others = [Slopes() for _ in range(options["folds"])]  # of all folds but one
        self._slices: dict[str, dict[Any, Slopes]] = {name: {} for name in self._config.by}
        self._errors: dict[float, Metric] = {}  # of the whole, at each temperature
        self._of_slice: dict[str, dict[Any, dict[float, Slice]]] = {name: {} for name in self._config.by}

    def run(self) -> TemperatureFit:
        """Read until the minimum is proven, or until there is none."""
        self._look(_COARSE)
        if not (self._between(self._whole) or self._whole.flat()):
            self._look(_FAR)
        while self._between(self._whole) and self._reads < _MOST_READS:
            self._look(self._fine())
            results = self._finish()
            if self._proven():
                return self._fit(results)
        return self._fit(self._finish())

    def _between(self, slopes: Slopes) -> bool:
        low, high = slopes.bracket()
        return 0.0 < low < high < math.inf

    def _proven(self) -> bool:
        low, high = self._whole.bracket()
        return high / low <= 1.0 + 3.0 * _PROOF

    def _fine(self) -> tuple[float, ...]:
        """The temperatures of the next read: on both sides of every estimate, not more than needed."""
        slopes = [self._whole, *self._others, *(s for found in self._slices.values() for s in found.values())]
        near = [math.log(s.estimate()[0]) for s in slopes if self._between(s)]
        width = _NEAR / 4.0**self._fine_reads
        self._fine_reads += 1
        low, high = min(near) - width, max(near) + width
        count = min(_MOST_FINE, max(_FINE, round((high - low) / (2.0 * width) * _FINE)))
        return tuple(math.exp(low + (high - low) * k / (count - 1)) for k in range(count))

    def _look(self, temperatures: Sequence[float]) -> None:
        """Read the scores once, and compute the slopes at some temperatures."""
        folds = len(self._others)
        members = []
        for i, t in enumerate(temperatures):
            config = replace(self._config, temperature=t)
            members.append(Member(config, (i + 1,) * folds))
            config = replace(config, by=())
            members += [Member(config, tuple(NONE if g == f else i + 1 for g in range(folds))) for f in range(folds)]
        states = self._read((1.0, *temperatures), members)
        for i, t in enumerate(temperatures):
            whole, *others = (state.result() for state in states[i * (folds + 1) : (i + 1) * (folds + 1)])
            self._learn(t, whole)
            for slopes, result in zip(self._others, others, strict=True):
                slopes.excess[t] = result.metrics[_EXCESS].value

    def _learn(self, t: float, result: EvalResult) -> None:
        self._whole.excess[t] = result.metrics[_EXCESS].value
        self._errors[t] = result.metrics[_EXCESS]
        for column, slices in result.slices.items():
            for value, part in slices.items():
                self._slices[column].setdefault(value, Slopes()).excess[t] = part.metrics[_EXCESS].value
                self._of_slice[column].setdefault(value, {})[t] = part

    def _finish(self) -> dict[str, EvalResult]:
        """Read the scores at temperature 1, at those of the folds, and on both sides of the best one."""
        folds = len(self._others)
        best, *others = (slopes.estimate()[0] for slopes in (self._whole, *self._others))
        full = self._job.recipe.config
        members = [Member(full, (0,) * folds)]
        temperatures = [1.0]
        if best == best:
            around = (best * (1.0 - _PROOF), best * (1.0 + _PROOF))
            temperatures += around
            members += [Member(replace(self._config, temperature=t), (i,) * folds) for i, t in enumerate(around, 1)]
            if all(t == t for t in others):
                temperatures += others
                members.append(Member(replace(full, temperature=best), tuple(range(3, 3 + folds))))
        states = self._read(temperatures, members)
        source = self._job.source
        for t, state in zip(temperatures[1:3], states[1:3], strict=True):
            self._errors[t] = state.result().metrics[_EXCESS]
            self._whole.proofs[t] = self._errors[t].value
        before = states[0].result(files=source.files)
        warnings = list(before.warnings)
        for other, advice in _ADVICE.items():
            warnings = [text.replace(other, advice) for text in warnings]
        warnings += source.warnings
        results = {"before": replace(before, warnings=tuple(warnings))}
        if len(states) > 3:
            results["after"] = states[3].result(files=source.files)
        return results

    def _read(self, temperatures: Sequence[float], members: list[Member]) -> list[Any]:
        given = self._job.recipe
        config = given.config
        recipe = Tempering(config, given.dtype, given.soft, tuple(temperatures), tuple(members), self._grouped_by)
        loop = Loop(
            recipe, self._job.source.units(), row_bytes=self._job.row_bytes, threads=self._options["threads"],
            memory=int(self._options["memory"]), rows=self._job.source.rows, progress=self._options["progress"],
        )  # fmt: skip
        found, timing = loop.run()
        if self._rows not in (-1, loop.rows):
            raise SourceError(
                f"cannot read the rows again: {self._rows} were read first, {loop.rows} now; write the source to a file"
            )
        self._rows = loop.rows
        self._reads += 1
        self._seconds += timing["seconds"]
        self._timing = {**timing, **self._job.told(), "seconds": self._seconds}
        return found.states

    def _fit(self, results: dict[str, EvalResult]) -> TemperatureFit:
        temperature = self._temperature(self._whole, self._errors)
        slices = {
            column: {
                value: TemperatureSlice(
                    part.rows, self._temperature(slopes, {t: s.metrics[_EXCESS] for t, s in found.items()}),
                    self._ends(slopes), results["before"].slices[column][value].metrics["cross_entropy"],
                )
                for value, slopes in self._slices[column].items()
                for found in [self._of_slice[column][value]]
                for part in [next(iter(found.values()))]
            }
            for column in self._slices
        }  # fmt: skip
        folds = tuple(slopes.estimate()[0] for slopes in self._others)
        return TemperatureFit(
            temperature, self._ends(self._whole), results, folds, self._reads, slices, self._reason(), self._timing
        )

    def _ends(self, slopes: Slopes) -> tuple[float, float]:
        return (0.0, math.inf) if slopes.flat() else slopes.bracket()

    def _temperature(self, slopes: Slopes, errors: dict[float, Metric]) -> Metric:
        """T with SE(T) = SE(β)·T², where SE(β) = SE(L′)/L″ and L′ = (NLL - entropy)/β."""
        t, curvature = slopes.estimate()
        if t != t:
            return Metric(math.nan)
        near = errors[min(errors, key=lambda other: abs(math.log(other / t)))]
        stderr = near.stderr * t / curvature * t * t if curvature > 0.0 else math.nan
        quantile = (near.ci95[1] - near.value) / near.stderr if near.stderr > 0.0 else math.nan
        half = quantile * stderr / t  # of ln T
        if not math.isfinite(half):
            return Metric(t, stderr)
        return Metric(t, stderr, (t * math.exp(-half), t * math.exp(half)), "exp-t")

    def _reason(self) -> str | None:
        if self._between(self._whole):
            return None
        low, high = self._whole.bracket()
        if not self._whole.finite():
            return _REASONS["no rows"]
        if self._whole.flat():
            return _REASONS["flat"]
        return _REASONS["unbounded" if low == 0.0 and high < math.inf else "no signal"]

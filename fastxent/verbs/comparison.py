"""The recipe of `compare`: rows of two dumps scored under one configuration, summed in a `CompareState`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from fastxent.engine.job import Job
from fastxent.errors import ColumnError, ConfigError, StateError
from fastxent.io.lockstep import PairSource
from fastxent.io.source import open_source
from fastxent.options.config import EvalConfig, listed
from fastxent.options.runs import CompareOptions
from fastxent.scoring.pairs import PairRows, PairScorer
from fastxent.state.comparison import CompareState
from fastxent.verbs.evaluation import Evaluation, has_soft_targets


@dataclass(frozen=True)
class Comparison:
    """How two dumps are compared."""

    config: EvalConfig
    dtypes: tuple[str, str]  # of the logits
    soft: bool  # some targets are probabilities
    largest: int
    names: tuple[str, str]
    id: str | None

    @property
    def whole(self) -> bool:
        """Soft targets are as large as the logits."""
        return self.soft

    def scorer(self) -> Callable[[Any], PairRows]:
        """A function of a `PairBatch`."""
        return PairScorer(self.config, self.dtypes, self.id)

    def empty(self) -> CompareState:
        """The state of no rows."""
        return CompareState.empty(self.config, self.largest, self.names)

    def load(self, data: bytes) -> CompareState:
        """The state that ``data`` holds; `StateError` if it has another configuration."""
        state = CompareState.from_bytes(data)
        if (state.config, state.first.largest.most, state.names) != (self.config, self.largest, self.names):
            raise StateError("it has another configuration")
        return state

    def describe(self) -> dict[str, Any]:
        """The configuration, and what is kept of rows."""
        return {**self.config.to_dict(), "largest": self.largest, "names": list(self.names), "id": self.id}

    @classmethod
    def open(
        cls, a: Any, b: Any, options: CompareOptions
    ) -> tuple[Job[Comparison], tuple[tuple[str, ...], tuple[str, ...]]]:
        """(the job of two dumps of the same rows under the options of `compare`, the files of either dump)."""
        id = options["id"]
        if options["scores"]:
            raise ConfigError("scores cannot be combined with compare; omit scores, or evaluate each dump with them")
        job = Evaluation.open(a, options, columns=() if id is None else (id,), unlabelled=True)
        config, first = job.recipe.config, job.source
        if config.task != "multiclass":
            raise ConfigError(
                f"cannot compare {first.files[0]}: its task is {config.task!r}; compare needs one score per class"
            )
        target, classes = config.target, options["classes"]
        other = open_source(
            b, logits=config.logits, columns=() if target is None else (target,), dtype=options["logits_dtype"],
            classes=None if classes is None else listed(classes), optional=target,
        )  # fmt: skip
        if config.on_bad_row == "error":
            other.require_whole()
        source = PairSource.of(first, other)
        soft, labelled = job.recipe.soft, target in other.parts[0][1].columns
        if labelled and has_soft_targets(other, target) != soft:
            raise ColumnError(
                f"the target of {first.files[0]} and {other.files[0]} must be of one kind, got class ids in one and "
                "probabilities in the other"
            )
        recipe = cls(
            config, (first.dtype, other.dtype), soft, options["largest"], (options["names"][0], options["names"][1]), id
        )
        return Job(source, recipe), (tuple(first.files), tuple(other.files))

"""The recipe of `evaluate`, `transform` and `plan`: rows scored under a configuration, summed in an `EvalState`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from fastxent.engine.job import Job
from fastxent.engine.pool import get_num_threads
from fastxent.errors import ColumnError, ConfigError, StateError
from fastxent.io.batch import Batch
from fastxent.io.columns import is_soft
from fastxent.io.heads import Head
from fastxent.io.hidden import HiddenSource
from fastxent.io.layout import all_names, find_field
from fastxent.io.source import OpenSource, open_source
from fastxent.io.values import plain_type
from fastxent.options.config import MOST_CLASSES, EvalConfig, listed
from fastxent.options.declared import DEFAULTS, OPTIONS
from fastxent.scoring import class_sums, odds_sums
from fastxent.scoring.class_sums import ClassSummingScorer, Scored
from fastxent.scoring.filter import Filter
from fastxent.scoring.odds_sums import SummingScorer
from fastxent.scoring.task import columns as scored_columns, scorer_of, sequences, task_of
from fastxent.state.evaluation import EvalState
from fastxent.state.tasks import plan_of, unlabelled as unlabelled_metrics
from fastxent.state.tempered import TemperedScorer
from fastxent.verbs.labels import labelled
from fastxent.verbs.tempered import tempered

MOST_COUNTED = 1 << 20  # classes of a top-k dump that have counts of their own


@dataclass(frozen=True)
class Evaluation:
    """How a dump is evaluated."""

    config: EvalConfig
    dtype: str  # of the logits
    soft: bool  # some targets are probabilities
    visited: bool = False  # the logits of a scored batch are read again
    worst: int = 0  # rows of largest loss that are listed
    id: str | None = None  # their column of row names
    on: tuple[str, ...] = ()  # columns by which targets are matched

    @property
    def whole(self) -> bool:
        """Soft targets and labels are as large as the logits, and a visitor reads all logits of a batch again."""
        c = self.config
        return self.soft or self.visited or not c.has_logits or c.partial or c.task == "multilabel"

    @property
    def light(self) -> bool:
        """Rows are summed while they are scored, unless they turn out to be of a kind that is not."""
        c = self.config
        return self._summed and (c.task == "multiclass" or odds_sums.can_sum(c, self.dtype))

    @property
    def _summed(self) -> bool:
        apart = self.soft or self.visited or self.worst or self.config.temperature_by
        return not apart and (self.config.task == "binary" or class_sums.can_sum(self.config))

    def scorer(self) -> Callable[[Batch], Scored]:
        """The scorer of the task."""
        if self.config.temperature_by is not None:
            return TemperedScorer(self.config, self.dtype)
        if not self._summed:
            return scorer_of(self.config, self.dtype, keeps=self.visited)
        if self.config.task == "binary":
            return SummingScorer(self.config, self.dtype)
        plan = plan_of(self.config)
        return ClassSummingScorer(self.config, self.dtype, plan.terms, plan.pairs)

    def empty(self) -> EvalState:
        """The state of no rows."""
        return EvalState.empty(self.config, self.worst, self.id)

    def load(self, data: bytes) -> EvalState:
        """The state that ``data`` holds; `StateError` if it has another configuration."""
        state = EvalState.from_bytes(data)
        if (state.config, state.worst, state.id) != (self.config, self.worst, self.id):
            raise StateError("it has another configuration")
        return state

    def describe(self) -> dict[str, Any]:
        """The configuration, the rows that are listed, and how targets are matched."""
        rows = {"worst": self.worst, "id": self.id} if self.worst else {}
        return {**self.config.to_dict(), **rows, **({"on": list(self.on)} if self.on else {})}

    def listing(self, worst: int, id: str | None) -> Evaluation:
        """This recipe, which also lists rows of largest loss by a column of row names. ConfigError if it cannot."""
        found = replace(self, worst=worst, id=id if worst else None)
        if worst:
            found.empty()
        return found

    @classmethod
    def open(
        cls,
        source: Any,
        options: Mapping[str, Any],
        *,
        columns: Iterable[str] = (),
        unlabelled: bool = False,
        visited: bool = False,
        aligned: bool = False,
    ) -> Job[Evaluation]:
        """Open ``source`` for the options of `evaluate`.

        If there is no column of the default name "target", metrics that need none are computed without it.

        columns: names of other columns to read.
        unlabelled: bool. The metrics "all" mean those that need no target if there is none.
        visited: bool. The logits of a scored batch are read again.
        aligned: bool. Rows belong to those of another dump, so ``where`` leaves out no row group.
        """
        source, on = labelled(source, options, matches_dumps="how" in options), tuple(options.get("on") or ())
        values: dict[str, Any] = {name: value for name, value in options.items() if name in OPTIONS}
        values |= tempered(options)
        dtype, asked = values.pop("logits_dtype"), OPTIONS["task"].check("task", values.pop("task"))
        n_classes, every = values.pop("n_classes"), aligned or options.get("limit") is not None
        if values["ids"] is not None:
            if dtype is not None:
                raise ConfigError(f"logits_dtype must not be given beside ids, got {dtype!r}; omit it")
            opened, config = open_topk(source, values, (asked, n_classes), tuple(columns), unlabelled)
            return Job(_pruned(opened, config, every), cls(config, opened.dtype, False, visited, on=on))
        if n_classes is not None:
            raise ConfigError(
                f"n_classes must not be given without ids, got {n_classes}; name the ids with ids (--ids)"
            )
        unknown = {"n_classes": 1, "class_weight": None, "class_mask": None, "classes": None}  # before the dump is open
        likelihood = values["target_logprob"] is not None
        task = "likelihood" if likelihood else "multiclass"
        if likelihood:
            _refuse_beside(values, ("logits", "target"), "target_logprob, which stands in the place of both")
            values["target"] = None
            if asked is not None:
                raise ConfigError("task cannot be combined with target_logprob; omit task")
        unasked = {name: DEFAULTS[name] for name in ("threshold", "target_ids")}  # options of some tasks
        probe = EvalConfig(**{**values, **unknown, **unasked, "task": task})
        beside = [*scored_columns(replace(probe, target=None, metrics=("all",))), *columns]
        optional = DEFAULTS["target"] if probe.target == DEFAULTS["target"] not in beside else None
        classes = None if values["classes"] is None else listed(values["classes"])
        wanted = [*scored_columns(probe), *columns]
        head = open_head(options)
        opened = open_source(
            source, logits=None if likelihood else probe.logits, columns=wanted, dtype=dtype,
            classes=classes if head is None else None, optional=optional,
            needs_logits=likelihood or head is not None or not (probe.scores and probe.logits == DEFAULTS["logits"]),
            sequences=sequences(probe),
        )  # fmt: skip
        if head is not None:
            opened = HiddenSource.of(opened, head)
        if probe.on_bad_row == "error":
            opened.require_whole()
        task = task if likelihood else task_of(opened, asked)
        if not opened.parts[0][1].layout.names:
            _refuse_beside(values, ("target",) if task == "scores" else (), "scores alone, because there are no logits")
            values["target"], optional = None, None
        if _lacks(opened, optional, probe.metrics, unlabelled_metrics(task), unlabelled):
            values["target"] = None
        n_classes = 2 if task == "binary" else opened.n_classes
        config = EvalConfig(**{**values, "n_classes": n_classes, "task": task})
        soft = has_soft_targets(opened, config.target)
        return Job(_pruned(opened, config, every), cls(config, opened.dtype, soft, visited, on=on))


def open_head(options: Mapping[str, Any]) -> Head | None:
    """The output head that the options of a verb name."""
    if options["head"] is None:
        return None
    threads = options.get("threads", 1)  # work units run on one
    if options.get("engine") == "ray":
        threads = 1
    elif threads is None:
        threads = get_num_threads()
    return Head.open(options["head"], options["bias"], int(options["memory"]), threads)


def open_topk(
    source: Any,
    values: dict[str, Any],
    asked: tuple[str | None, int | None],
    columns: tuple[str, ...],
    unlabelled: bool,
) -> tuple[OpenSource, EvalConfig]:
    """Open a top-k dump. ``asked``: the task and the number of classes that the user names. Others as in `open`."""
    task, n_classes = asked
    classes = None if values["classes"] is None else listed(values["classes"])
    if n_classes is not None and classes is not None and len(classes) != n_classes:
        raise ConfigError(f"classes must have {n_classes} entries, one per class, got {len(classes)}")
    count = n_classes or (MOST_CLASSES if classes is None else len(classes))
    values |= {"n_classes": count, "task": "multiclass" if task is None else task}
    values["input"] = "log_probs" if values["input"] == DEFAULTS["input"] else values["input"]
    config = EvalConfig(**values)
    beside = [*scored_columns(replace(config, target=None, metrics=("all",))), *columns]
    optional = DEFAULTS["target"] if config.target == DEFAULTS["target"] not in beside else None
    opened = open_source(
        source, logits=None, columns=[*scored_columns(config), *columns], optional=optional, sequences=sequences(config)
    )
    if config.on_bad_row == "error":
        opened.require_whole()
    target = config.target
    if _lacks(opened, optional, config.metrics, unlabelled_metrics("topk"), unlabelled):
        target = None
    told = {part.n_classes for part, _ in opened.filled}
    if n_classes is None and classes is None and len(told) == 1:
        count = told.pop() or count
    ids = [find_field(part.schema, str(config.ids)) for part, _ in opened.filled]
    text = classes is None and any(field is not None and "string" in str(field.type) for field in ids)
    return opened, replace(config, n_classes=count, target=target, open_classes=text or count > MOST_COUNTED)


def _pruned(source: OpenSource, config: EvalConfig, every: bool) -> OpenSource:
    """The source without the row groups that ``where`` excludes by their statistics, unless every row counts."""
    if config.where is not None and not every:
        chosen = Filter(config.where)
        source.prune(chosen.columns, chosen.may_hold)
    return source


def _lacks(
    source: OpenSource, optional: str | None, metrics: tuple[str, ...], left: tuple[str, ...], unlabelled: bool
) -> bool:
    """Whether a dump lacks its target column ``optional``. It is an error if ``metrics`` are not all among those
    ``left`` without a target; "all" is among them if the dump may be ``unlabelled``."""
    part, reader = source.parts[0]
    if optional is None or optional in reader.columns:
        return False
    if not (set(metrics) <= {*left, *(["all"] if unlabelled else [])}):
        missing = ColumnError.missing(optional, all_names(source.schema), part.name)
        raise ColumnError(f"{missing}; without a target there are only the metrics {', '.join(left)}")
    return True


def _refuse_beside(values: dict[str, Any], options: tuple[str, ...], other: str) -> None:
    """Raise ConfigError if one of ``options`` is given that has no meaning beside another."""
    for name in options:
        if values[name] not in (DEFAULTS[name], None):  # type: ignore[literal-required]
            raise ConfigError(f"{name} cannot be combined with {other}; omit {name}")


def has_soft_targets(source: OpenSource, target: str | None) -> bool:
    """Whether targets of some file are probabilities."""
    found = [find_field(part.schema, target) for part, _ in source.parts if target is not None]
    return any(field is not None and is_soft(plain_type(field.type)) for field in found)

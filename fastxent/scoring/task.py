"""The scorer of each task: what turns a batch into scored rows."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from fastxent.errors import ConfigError
from fastxent.io.batch import Batch, batch_bytes
from fastxent.io.documents import Sequences
from fastxent.io.source import OpenSource, open_source
from fastxent.options.config import EvalConfig
from fastxent.scoring.binary import BinaryScorer
from fastxent.scoring.filter import Filter
from fastxent.scoring.given import GivenScorer
from fastxent.scoring.multilabel import MultilabelScorer
from fastxent.scoring.scorer import Scorer
from fastxent.scoring.topk import TopkScorer

if TYPE_CHECKING:
    import pyarrow as pa


AnyScorer = Scorer | BinaryScorer | GivenScorer | TopkScorer
_SCORERS: dict[str, type[Scorer | BinaryScorer]] = {
    "multiclass": Scorer, "binary": BinaryScorer, "multilabel": MultilabelScorer
}  # fmt: skip


def scorer_of(config: EvalConfig, dtype: str, *, keeps: bool = False) -> AnyScorer:
    """The scorer of a task, of scores of one float type. ``keeps``: what a visitor of the rows needs."""
    kind = TopkScorer if config.partial else _SCORERS.get(config.task, GivenScorer)
    return kind(config, dtype, keeps=keeps)


def task_of(source: OpenSource, wanted: str | None) -> str:
    """The task of a dump: ``wanted``, if its columns can be of it; else what they say."""
    if wanted in (None, source.task) or (wanted == "multilabel" and source.task == "multiclass"):
        return wanted or source.task
    if source.task == "scores":
        raise ConfigError(f"task must be None for a dump without logits, got {wanted!r}; omit task (--task)")
    held = "one score per row" if source.task == "binary" else "rows of several scores"
    raise ConfigError(f"task must be {source.task!r} for a dump of {held}, got {wanted!r}; omit task (--task)")


def columns(config: EvalConfig) -> list[str]:
    """The columns that scoring reads beside the scores."""
    names = [config.target, *config.by, config.cluster, config.weight, config.n_bytes, config.temperature_by]
    names += [config.target_logprob, *config.scores]
    names += [config.ids, str(config.logits), config.other] if config.partial else []
    names += Filter(config.where).columns if config.where is not None else []
    return list(dict.fromkeys(name for name in names if name is not None))


def sequences(config: EvalConfig) -> Sequences:
    """How documents are unrolled, if a row of the dump is a document."""
    c = config
    predictions = tuple(filter(None, (str(c.logits), c.ids, c.other) if c.partial else ()))
    given = tuple(filter(None, (c.target_logprob, *c.scores)))
    heads = ((str(c.logits), 1),) if c.partial else tuple((name, 0) for name in given)
    each = tuple(filter(None, (*predictions, c.target, c.n_bytes, *given)))
    return Sequences(heads, predictions, each, c.shift)


def score_batch(
    batch: dict[str, Any] | pa.RecordBatch,
    config: EvalConfig,
    beside: tuple[str, ...] = (),
    made: Callable[[EvalConfig, str], Callable[[Batch], Any]] = scorer_of,
) -> list[Any]:
    """The scored rows of columns in memory, which are named as ``config`` names them.

    beside: names of other columns to read. made: makes the scorer for a float type.

    `EvalState.update` adds all of them or, if one row is bad, none.
    """
    if config.head is not None:
        raise ConfigError("the state must be of logits, got one with head; give update the logits, without head")
    stored = config.has_logits and not config.partial
    logits = config.logits if stored else None
    source = open_source(
        batch, logits=logits, columns=[*columns(config), *beside], classes=config.classes, sequences=sequences(config)
    )
    if stored and source.task != ("binary" if config.task == "binary" else "multiclass"):
        raise ConfigError(f"the batch must be of a {config.task} dump like the state, got a {source.task} dump")
    if source.task == "multiclass" and source.n_classes != config.n_classes:
        raise ConfigError(f"the batch must have {config.n_classes} classes like the state, got {source.n_classes}")
    scorer = made(config, source.dtype)
    size = batch_bytes(512 << 20, 1, source.n_classes * 4)
    return [scorer(batch) for unit in source.units() for batch in unit.read(unit.rows or 1 << 16, size, whole=True)]

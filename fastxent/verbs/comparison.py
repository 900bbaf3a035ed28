"""The recipe of `compare`: rows of two dumps scored under one configuration, summed in a `CompareState`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from fastxent.engine.job import Job
from fastxent.errors import ColumnError, ConfigError, SourceError, StateError
from fastxent.io.llama import LlamaPart
from fastxent.io.lockstep import LockstepSource, check_classes
from fastxent.io.source import OpenSource, open_source
from fastxent.options.config import EvalConfig, listed
from fastxent.options.runs import CompareOptions
from fastxent.scoring.odds_pairs import BinaryPairScorer, MultilabelPairScorer
from fastxent.scoring.pairs import GivenPairScorer, PairRows, PairScorer
from fastxent.state.comparison import CompareState
from fastxent.verbs.alignment import ids_of, match, reordered, reordered_columns
from fastxent.verbs.evaluation import Evaluation, has_soft_targets


class Opened(NamedTuple):
    """Two dumps that are ready to be compared.

    files: the files of either dump. only: rows that only one has. warnings: what may not be meant about the files.
    """

    job: Job[Comparison]
    files: tuple[tuple[str, ...], tuple[str, ...]]
    only: tuple[int, int]
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class Comparison:
    """How two dumps are compared."""

    config: EvalConfig
    dtypes: tuple[str, str]  # of the logits
    soft: bool  # some targets are probabilities
    largest: int
    names: tuple[str, str]
    id: str | None
    on: tuple[str, ...] = ()  # id columns that rows are matched by
    how: str = "exact"

    @property
    def whole(self) -> bool:
        """Soft targets and labels are as large as the logits."""
        return self.soft or not self.config.has_logits or self.config.task == "multilabel"

    def scorer(self) -> Callable[[Any], PairRows]:
        """A function of a `PairBatch`."""
        if not self.config.has_logits:
            return GivenPairScorer(self.config)
        kinds = {"binary": BinaryPairScorer, "multilabel": MultilabelPairScorer}
        return kinds.get(self.config.task, PairScorer)(self.config, self.dtypes, self.id)

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
        matched = {"on": list(self.on), "how": self.how} if self.on else {}
        return {**self.config.to_dict(), "largest": self.largest, "names": list(self.names), "id": self.id, **matched}

    @classmethod
    @contextmanager
    def open(cls, a: Any, b: Any, options: CompareOptions) -> Iterator[Opened]:
        """The two dumps, opened under the options of `compare`; with ``on``, in one order."""
        id, on = options["id"], tuple(options["on"] or ())
        scored = options  # under which rows are scored
        if not options["renormalize"]:
            _check_stored(options)
            scored = {**options, "input": "log_probs"}
        mask, scored = options["class_mask"], {**scored, "class_mask": None}  # of the classes of the wider dump
        job = Evaluation.open(a, scored, columns=(*(() if id is None else (id,)), *on), unlabelled=True)
        config, first = replace(job.recipe.config, renormalize=options["renormalize"]), job.source
        if config.partial:
            raise ConfigError("compare needs a score for each class, or rows without logits; omit ids (--ids)")
        if id is not None and not config.has_logits:
            raise ConfigError("id must be None for dumps without logits, whose changed rows are not listed; omit id")
        target, classes = config.target, options["classes"]
        own = [name for name in (target, config.target_logprob, *config.scores) if name is not None]
        other = open_source(
            b, logits=config.logits if config.has_logits else None, columns=(*own, *on), dtype=options["logits_dtype"],
            classes=None if classes is None else listed(classes), optional=target,
        )  # fmt: skip
        if config.on_bad_row == "error":
            other.require_whole()
        if not config.renormalize and options["input"] == "logits":
            for side in (first, other):
                _require_log_probs(side)
        config = _of_shared_classes(config, first, other, mask)
        cut = None if first.n_classes == other.n_classes else config.n_classes
        soft, labelled = job.recipe.soft, target in other.parts[0][1].columns
        if cut is not None and soft:
            raise ConfigError("dumps of different numbers of classes must have class ids as targets, got probabilities")
        if labelled and has_soft_targets(other, target) != soft:
            raise ColumnError(
                f"the target of {first.files[0]} and {other.files[0]} must be of one kind, got class ids in one and "
                "probabilities in the other"
            )
        names = options["names"][0], options["names"][1]
        recipe = cls(config, (first.dtype, other.dtype), soft, options["largest"], names, id, on, options["how"])
        files = tuple(first.files), tuple(other.files)
        warnings = tuple(dict.fromkeys((*first.warnings, *other.warnings)))
        with ExitStack() as stack:
            only = (0, 0)
            if on:
                sides, only = _aligned(stack, (first, other), on, own, options)
                first, other = sides
            yield Opened(Job(LockstepSource.of(first, other, n_classes=cut), recipe), files, only, warnings)


def _of_shared_classes(config: EvalConfig, a: OpenSource, b: OpenSource, mask: tuple[bool, ...] | None) -> EvalConfig:
    """The configuration with ``class_mask``, for the classes that both dumps have if it excludes all others."""
    if mask is None or a.task != b.task or a.n_classes == b.n_classes or config.task != "multiclass":
        check_classes(a, b)
        return replace(config, class_mask=mask)
    wide, narrow = (a, b) if a.n_classes > b.n_classes else (b, a)
    most, least = wide.n_classes, narrow.n_classes
    if len(mask) != most or any(mask[least:]):
        got = f"{len(mask)} entries" if len(mask) != most else f"{sum(mask[least:])} that are not 0"
        raise ConfigError(
            f"class_mask must have {most} entries, one per class of {wide.files[0]}, and be 0 for the last "
            f"{most - least}, which {narrow.files[0]} does not have, got {got}"
        )
    for name in ("class_weight", "classes"):
        if getattr(config, name) is not None:
            raise ConfigError(f"{name} cannot be combined with two dumps of different numbers of classes; omit {name}")
    return replace(config, n_classes=least, class_mask=None if all(mask[:least]) else mask[:least])


def _check_stored(options: CompareOptions) -> None:
    """Raise `ConfigError` for ``renormalize=False`` with probabilities."""
    if options["input"] == "probs":
        raise ConfigError(
            "renormalize=False cannot be combined with input='probs', because it is for log-probabilities"
        )


def _require_log_probs(source: OpenSource) -> None:
    """Raise `SourceError` if some rows are not stored as log-probabilities."""
    for part, _ in source.parts:
        if not isinstance(part, LlamaPart):
            raise SourceError(
                f"renormalize=False requires log-probabilities, got logits in {part.name}; "
                "give input='log_probs' (--input log_probs) if they are normalised"
            )


def _aligned(
    stack: ExitStack,
    sides: tuple[OpenSource, OpenSource],
    on: tuple[str, ...],
    own: list[str],
    options: CompareOptions,
) -> tuple[tuple[OpenSource, OpenSource], tuple[int, int]]:
    """(both dumps in the order of the first, without rows that only one has; how many those are)."""
    if options["engine"] != "local":
        raise ConfigError(
            f"on cannot be combined with engine={options['engine']!r}, because rows are put in order on this machine; "
            "use shard (--shard) instead"
        )
    a, b = sides
    ids = ids_of(sides, on, int(options["memory"]))
    matching = match(ids, (a.files[0], b.files[0]), inner=options["how"] == "inner")
    skips = options["on_bad_row"] == "skip"
    columns = [[*a.parts[0][1].columns], [name for name in own if name in b.parts[0][1].columns]]
    found = []
    for side, places, names in zip(sides, matching.places, columns, strict=True):
        if np.array_equal(places, np.arange(len(places))):
            pass
        elif side.task == "scores":
            side = reordered_columns(side, places, names)
        else:
            side = stack.enter_context(reordered(side, places, matching.rows, names, options, skips=skips))
        found.append(side)
    return (found[0], found[1]), matching.only

"""The recipe of `compare`: rows of two dumps scored under one configuration, summed in a `CompareState`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, overload

import numpy as np

from fastxent.engine.job import Job
from fastxent.errors import ColumnError, ConfigError, SourceError, StateError
from fastxent.io.heads import Head
from fastxent.io.hidden import HiddenSource
from fastxent.io.layout import find_field
from fastxent.io.llama import LlamaPart
from fastxent.io.lockstep import LockstepSource, check_classes
from fastxent.io.parts import find_parts
from fastxent.io.source import OpenSource, open_source
from fastxent.options.config import EvalConfig, in_words, listed
from fastxent.options.runs import CompareOptions
from fastxent.scoring.odds_pairs import BinaryPairScorer, MultilabelPairScorer
from fastxent.scoring.pairs import GivenPairScorer, PairRows, PairScorer, StepScorer
from fastxent.scoring.task import sequences
from fastxent.scoring.topk_full import FullPairScorer
from fastxent.scoring.topk_pairs import TopkPairScorer
from fastxent.state.comparison import CompareState
from fastxent.verbs.alignment import reordered, reordered_columns
from fastxent.verbs.evaluation import MOST_COUNTED, Evaluation, has_soft_targets, open_head
from fastxent.verbs.matching import TooManyIds, common, ids_of, match
from fastxent.verbs.spilled import match_spilled
from fastxent.verbs.tempered import whole_temperature


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
    full: int | None = None  # which of the two dumps has all classes, if the other one is a top-k dump

    @property
    def whole(self) -> bool:
        """Soft targets and labels are as large as the logits."""
        c = self.config
        return self.soft or not c.has_logits or c.partial or c.task == "multilabel"

    light = False

    def scorer(self) -> Callable[[Any], PairRows]:
        """A function of a `PairBatch`."""
        return self.by_steps()

    def by_steps(self) -> StepScorer:
        """The scorer, which can also be sent the blocks of a batch."""
        if not self.config.has_logits:
            return GivenPairScorer(self.config)
        if self.full is not None:
            return FullPairScorer(self.config, self.dtypes[self.full], self.full)
        if self.config.partial:
            return TopkPairScorer(self.config)
        kinds: dict[str, type[PairScorer | BinaryPairScorer]] = {
            "binary": BinaryPairScorer,
            "multilabel": MultilabelPairScorer,
        }
        return kinds.get(self.config.task, PairScorer)(self.config, self.dtypes, self.id)

    def empty(self) -> CompareState:
        """The state of no rows."""
        return CompareState.empty(self.config, self.largest, self.names)

    def load(self, data: bytes) -> CompareState:
        """The state that ``data`` holds; `StateError` if it has another configuration."""
        state = CompareState.from_bytes(data)
        self.check(state)
        return state

    def check(self, state: CompareState) -> None:
        """`StateError` if a state has another configuration."""
        if (state.config, state.first.largest.most, state.names) != (self.config, self.largest, self.names):
            raise StateError("it has another configuration")

    def describe(self) -> dict[str, Any]:
        """The configuration, and what is kept of rows."""
        matched: dict[str, Any] = {"on": list(self.on), "how": self.how} if self.on else {}
        matched |= {} if self.full is None else {"full": self.full}
        return {**self.config.to_dict(), "largest": self.largest, "names": list(self.names), "id": self.id, **matched}

    @classmethod
    @contextmanager
    def open(cls, a: Any, b: Any, options: CompareOptions) -> Iterator[Opened]:
        """The two dumps, opened under the options of `compare`; with ``on``, in one order."""
        base = Base.open(a, options)
        other = base.other(b, options)
        base = base.among([other])
        names = options["names"][0], options["names"][1]
        with ExitStack() as stack:
            sides, (only,) = base.in_order(stack, [other], options)
            recipe = base.recipe(other, options, names)
            job = Job(LockstepSource.of(*sides, n_classes=base.cut([other])), recipe)
            yield Opened(job, base.files(other), only, base.warnings(other))


@dataclass(frozen=True)
class Base:
    """The first of the dumps that are compared, opened, and what it says about the others.

    own: names of the columns that the others have too. lists: names of those that have what a dump without logits has
    in their place. asked: the number of classes that the user names.
    other_head: that of the others, if they hold hidden states.
    """

    config: EvalConfig
    source: OpenSource
    soft: bool
    own: tuple[str, ...]
    lists: tuple[str, ...]
    asked: int | None
    mask: tuple[bool, ...] | None  # class_mask of the dump with the most classes
    other_head: Head | None

    @classmethod
    def open(cls, a: Any, options: CompareOptions) -> Base:
        """Open the first dump under the options of `compare`."""
        id, on, full = options["id"], tuple(options["on"] or ()), options["full_logits"]
        scored = options  # under which rows are scored
        if not options["renormalize"]:
            _check_stored(options)
            scored = {**options, "input": "log_probs"}
        mask, scored = options["class_mask"], {**scored, "class_mask": None}  # of the classes of the wider dump
        scored = {**scored, "memory": int(options["memory"]) // 2}  # each of two heads takes a share
        scored = {**scored, "temperature": whole_temperature(options["temperature"])}
        whole = full is not None and not has_lists(a, options)
        if full is not None:
            scored = _of_side(scored, whole)
        beside = (*(() if id is None else (id,)), *on)
        job = Evaluation.open(a, scored, columns=beside, unlabelled=True, aligned=True)
        config = replace(
            job.recipe.config, renormalize=options["renormalize"], logits_b=_listed(options["logits_b"]),
            head_b=in_words(options["head_b"]), bias_b=in_words(options["bias_b"]),
        )  # fmt: skip
        _check_other(options, config)
        if full is not None:
            config = replace(
                config, input=options["input"], logits=_listed(options["logits"]), ids=options["ids"],
                other=options["other"], target_logprob=options["target_logprob"], full_logits=_listed(full),
            )  # fmt: skip
        if id is not None and (not config.has_logits or config.partial):
            raise ConfigError(
                "id must be None for dumps without logits and top-k dumps, whose changed rows are not listed; omit id"
            )
        head = open_head({**scored, "head": options["head_b"], "bias": options["bias_b"]})
        if head is None and options["logits_b"] is None and isinstance(job.source, HiddenSource):
            head = job.source.head
        lists = [config.target_logprob]
        lists += [config.ids, str(config.logits), config.other] if config.partial else []
        own = [name for name in (config.target, *config.scores) if name is not None]
        return cls(
            config,
            job.source,
            job.recipe.soft,
            tuple(own),
            tuple(name for name in lists if name is not None),
            options["n_classes"],
            mask,
            head,
        )

    def other(self, b: Any, options: CompareOptions) -> OpenSource:
        """Open another dump; `SourceError` or `ColumnError` if it does not fit this one."""
        config, first, classes, target = self.config, self.source, options["classes"], self.config.target
        whole = config.full_logits is not None and not has_lists(b, options)
        if config.full_logits is not None and whole == _is_full(first):
            kind = "a full one" if whole else "a top-k dump"
            raise ConfigError(f"full_logits is for a top-k dump and a full one, got {kind} twice; omit full_logits")
        logits, head = config.logits_b or config.logits, self.other_head
        other = open_source(
            b, logits=config.full_logits if whole else None if config.partial or not config.has_logits else logits,
            columns=(*self.own, *(() if whole else self.lists), *(options["on"] or ())),
            dtype=options["logits_dtype"], classes=None if classes is None or head else listed(classes),
            optional=target, sequences=replace(sequences(replace(config, n_bytes=None)), plain=True),
        )  # fmt: skip
        if head is not None:
            other = HiddenSource.of(other, head)
        if config.on_bad_row == "error":
            other.require_whole()
        if not config.renormalize and options["input"] == "logits":
            for side in (first, other):
                _require_log_probs(side)
        if config.full_logits is None and other.task != first.task:
            check_classes(first, other)
        labelled = target in other.parts[0][1].columns
        if labelled and has_soft_targets(other, target) != self.soft:
            raise ColumnError(
                f"the target of {first.files[0]} and {other.files[0]} must be of one kind, got class ids in one and "
                "probabilities in the other"
            )
        return other

    def among(self, others: Sequence[OpenSource]) -> Base:
        """The same dump, under the configuration for the classes that it shares with others."""
        if self.config.full_logits is not None:
            return replace(self, config=_of_full(self.config, [self.source, *others], self.asked))
        config = _of_shared_classes(self.config, [self.source, *others], self.mask)
        found = replace(self, config=config)
        if self.soft and found.cut(others) is not None:
            raise ConfigError("dumps of different numbers of classes must have class ids as targets, got probabilities")
        return found

    def cut(self, others: Sequence[OpenSource]) -> int | None:
        """The number of the first classes that are compared, if some dump has more."""
        counts = {side.n_classes for side in (self.source, *others)}
        if self.config.full_logits is not None:
            return self.config.n_classes
        return None if len(counts) == 1 else self.config.n_classes

    def recipe(self, other: OpenSource, options: CompareOptions, names: tuple[str, str]) -> Comparison:
        """How this dump is compared with another."""
        dtypes = self.source.dtype, other.dtype
        on = tuple(options["on"] or ())
        largest = 0 if self.config.partial else options["largest"]  # how much a row changed is not known
        full = None if self.config.full_logits is None else int(_is_full(other))
        return Comparison(self.config, dtypes, self.soft, largest, names, options["id"], on, options["how"], full)

    def files(self, other: OpenSource) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """The files of either dump."""
        return tuple(self.source.files), tuple(other.files)

    def warnings(self, other: OpenSource) -> tuple[str, ...]:
        """What may not be meant about the files of either dump."""
        return tuple(dict.fromkeys((*self.source.warnings, *other.warnings)))

    def in_order(
        self, stack: ExitStack, others: list[OpenSource], options: CompareOptions
    ) -> tuple[list[OpenSource], list[tuple[int, int]]]:
        """(all dumps, with ``on`` in one order; for each other the rows of the first and of it that not all have)."""
        on = tuple(options["on"] or ())
        if not on:
            if options["how"] != "exact":
                raise ConfigError(
                    f"how={options['how']!r} requires on, because rows are matched by position without it"
                )
            return [self.source, *others], [(0, 0)] * len(others)
        return _aligned(stack, [self.source, *others], on, [*self.own, *self.lists], options)


def has_lists(source: Any, options: CompareOptions) -> bool:
    """Whether a dump has the column of ids. `ConfigError` if that is not named."""
    if options["ids"] is None:
        raise ConfigError("full_logits requires ids (--ids), the column of ids of the top-k dump")
    return any(find_field(part.schema, options["ids"]) is not None for part in find_parts(source))


def _check_other(options: CompareOptions, config: EvalConfig) -> None:
    """Raise `ConfigError` for options of the other dump, or a head, that these dumps do not have."""
    topk, given = options["full_logits"] is not None, (options["head"], options["logits_b"], options["head_b"])
    for name, value in zip(("head", "logits_b", "head_b"), given, strict=True):
        if value is not None and (topk or config.partial or not config.has_logits):
            raise ConfigError(f"{name} must be None for dumps without logits and top-k dumps; omit {name}")
    if options["bias_b"] is not None and options["head_b"] is None:
        raise ConfigError("bias_b must not be given without head_b; name the weights with head_b")


@overload
def _listed(logits: None) -> None: ...
@overload
def _listed(logits: str | Sequence[str]) -> str | tuple[str, ...]: ...
def _listed(logits: str | Sequence[str] | None) -> str | tuple[str, ...] | None:
    return logits if logits is None or isinstance(logits, str) else tuple(logits)


def _is_full(source: OpenSource) -> bool:
    """Whether a dump beside a top-k dump has all classes."""
    return source.task != "scores"


def _of_side(options: CompareOptions, whole: bool) -> CompareOptions:
    """The options under which one side is opened: the full dump, or a top-k dump."""
    if not whole:
        return {**options, "input": "logits", "logits_dtype": None}
    lists: CompareOptions = {"ids": None, "other": None, "target_logprob": None, "n_classes": None}
    return {**options, **lists, "logits": options["full_logits"] or ""}


def _of_full(config: EvalConfig, sides: list[OpenSource], asked: int | None) -> EvalConfig:
    """The configuration for a top-k dump and a full one: with the classes of that."""
    full = next(side for side in sides if _is_full(side))
    if full.task != "multiclass":
        raise ColumnError(f"full_logits must name one score per class, got one number per row in {full.files[0]}")
    for side in sides:
        if _is_full(side):
            check_classes(full, side)
            continue
        for part, _ in side.filled:
            ids = find_field(part.schema, str(config.ids))
            if config.classes is None and ids is not None and "string" in str(ids.type):
                raise ColumnError(
                    f"classes must be given, because column {config.ids!r} of {part.name} holds strings; name them in "
                    "the order of the full logits (--classes)"
                )
    if asked not in (None, full.n_classes):
        raise ConfigError(f"n_classes must be {full.n_classes} as in {full.files[0]}, got {asked}")
    return replace(config, n_classes=full.n_classes, open_classes=full.n_classes > MOST_COUNTED)


def _of_shared_classes(config: EvalConfig, sides: list[OpenSource], mask: tuple[bool, ...] | None) -> EvalConfig:
    """The configuration with ``class_mask``, for the classes that all dumps have if it excludes all others."""
    wide, narrow = (pick(sides, key=lambda side: side.n_classes) for pick in (max, min))
    one_task = len({side.task for side in sides}) == 1
    if mask is None or not one_task or wide.n_classes == narrow.n_classes or config.task != "multiclass":
        for other in sides[1:]:
            check_classes(sides[0], other)
        return replace(config, class_mask=mask)
    most, least = wide.n_classes, narrow.n_classes
    if len(mask) != most or any(mask[least:]):
        got = f"{len(mask)} entries" if len(mask) != most else f"{sum(mask[least:])} that are not 0"
        raise ConfigError(
            f"class_mask must have {most} entries, one per class of {wide.files[0]}, and be 0 for the last "
            f"{most - least}, which {narrow.files[0]} does not have, got {got}"
        )
    for name in ("class_weight", "classes"):
        if getattr(config, name) is not None:
            raise ConfigError(f"{name} cannot be combined with dumps of different numbers of classes; omit {name}")
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
    sides: list[OpenSource],
    on: tuple[str, ...],
    own: list[str],
    options: CompareOptions,
) -> tuple[list[OpenSource], list[tuple[int, int]]]:
    """(the dumps in the order of the first, with the rows that all have; how many others the first and each has)."""
    first, *others = sides
    memory, inner = int(options["memory"]), options["how"] == "inner"
    try:
        ids = ids_of(sides, on, memory)
    except TooManyIds:
        matchings = match_spilled(sides, on, memory, inner=inner)
    else:
        matchings = [
            match((ids[0], theirs), (first.files[0], other.files[0]), inner=inner)
            for theirs, other in zip(ids[1:], others, strict=True)
        ]
        del ids
    places, rows = common(matchings)
    skips = options["on_bad_row"] == "skip"
    columns = [
        [*first.parts[0][1].columns],
        *([name for name in own if name in other.parts[0][1].columns] for other in others),
    ]
    found = []
    for side, place, names in zip(sides, places, columns, strict=True):
        if np.array_equal(place, np.arange(len(place), dtype=place.dtype)):
            pass
        elif side.task == "scores":
            side = reordered_columns(side, place, names)
        else:
            side = stack.enter_context(reordered(side, place, rows, names, options, skips=skips))
        found.append(side)
    return found, [(len(matching.places[0]) - rows, len(matching.places[1]) - rows) for matching in matchings]

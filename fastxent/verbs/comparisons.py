"""The recipe of `compare_many`: several dumps, read once side by side, each compared with the first."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

from fastxent.engine.job import Job
from fastxent.errors import ConfigError, StateError
from fastxent.io.batch import Block
from fastxent.io.lockstep import LockstepSource, ManyBatch, ManyBlock, PairBatch, PairBlock
from fastxent.options.checks import shown
from fastxent.options.runs import CompareOptions
from fastxent.scoring.pairs import PairRows, score_together
from fastxent.state.comparisons import ComparisonsState
from fastxent.verbs.comparison import Base, Comparison


class OpenedMany(NamedTuple):
    """Several dumps that are ready to be compared; each list has an item for each comparison, as in `Opened`."""

    job: Job[Comparisons]
    files: list[tuple[tuple[str, ...], tuple[str, ...]]]
    only: list[tuple[int, int]]
    warnings: list[tuple[str, ...]]


@dataclass(frozen=True)
class Comparisons:
    """How one dump is compared with several others."""

    each: tuple[Comparison, ...]

    @property
    def whole(self) -> bool:
        """Whether the logits of a batch are needed together."""
        return any(comparison.whole for comparison in self.each)

    light = False

    def scorer(self) -> Callable[[Any], list[PairRows]]:
        """A function of a `ManyBatch`, or of a `PairBatch` if there is one comparison."""
        scorers = [comparison.by_steps() for comparison in self.each]

        def score(batch: ManyBatch | PairBatch) -> list[PairRows]:
            if isinstance(batch, PairBatch):
                return [scorers[0](batch)]
            steps = [scorer.steps(pair) for scorer, pair in zip(scorers, batch.pairs(), strict=True)]
            return score_together(steps, (_pairs(block) for block in batch.blocks))

        return score

    def empty(self) -> ComparisonsState:
        """The state of no rows."""
        return ComparisonsState([comparison.empty() for comparison in self.each])

    def load(self, data: bytes) -> ComparisonsState:
        """The state that ``data`` holds; `StateError` if it has another configuration."""
        state = ComparisonsState.from_bytes(data)
        if len(state.states) != len(self.each):
            raise StateError("it has another configuration")
        for comparison, found in zip(self.each, state.states, strict=True):
            comparison.check(found)
        return state

    def describe(self) -> dict[str, Any]:
        """The configuration of each comparison."""
        return {"comparisons": [comparison.describe() for comparison in self.each]}

    @classmethod
    @contextmanager
    def open(cls, base: Any, others: Mapping[str, Any], name: str, options: CompareOptions) -> Iterator[OpenedMany]:
        """The dumps, opened under the options of `compare_many`; with ``on``, in one order. name: that of the base."""
        opened = Base.open(base, options)
        sources = [opened.other(other, options) for other in others.values()]
        opened = opened.among(sources)
        recipes = [opened.recipe(source, options, (name, other)) for source, other in zip(sources, others, strict=True)]
        with ExitStack() as stack:
            sides, only = opened.in_order(stack, sources, options)
            job = Job(LockstepSource.of(*sides, n_classes=opened.cut(sources)), cls(tuple(recipes)))
            warnings = [opened.warnings(source) for source in sources]
            yield OpenedMany(job, [opened.files(source) for source in sources], only, warnings)


def _pairs(block: Block) -> list[PairBlock]:
    assert isinstance(block, ManyBlock)
    return block.pairs()


def named(others: Any, names: Sequence[str] | None) -> tuple[str, dict[str, Any]]:
    """(the name of the base, the other dumps by their names)."""
    if isinstance(others, Mapping):
        found = dict(others)
        rest = list(found)
        base = "base" if names is None else names[0]
        if names is not None and len(names) != 1:
            raise ConfigError(
                f"names must hold the name of the base alone, got {shown(tuple(names))}; the keys name the other dumps"
            )
    else:
        if not isinstance(others, Sequence) or isinstance(others, str | bytes):
            raise ConfigError(f"others must be a dict of name to dump, or a list of dumps, got {shown(others)}")
        if names is not None and len(names) != len(others) + 1:
            raise ConfigError(
                f"names must hold the name of the base and of each other dump, {len(others) + 1} in all, got "
                f"{shown(tuple(names))}"
            )
        base, *rest = ["base", *stems(others)] if names is None else names
        found = dict(zip(rest, others, strict=True))
    if not found:
        raise ConfigError("others must hold at least one dump, got none")
    every = [base, *rest]
    if not all(isinstance(name, str) and name for name in every) or len(set(every)) < len(every):
        raise ConfigError(f"names must be different strings, got {shown(tuple(every))}")
    return base, found


def stems(dumps: Sequence[Any]) -> list[str]:
    """Names of dumps: those of their files without suffix, or their numbers."""
    found: list[str] = []
    for k, dump in enumerate(dumps):
        path = str(dump).rstrip("/").rpartition("/")[2] if isinstance(dump, str) or hasattr(dump, "__fspath__") else ""
        stem = path.partition(".")[0] or path
        found.append(stem or f"dump {k + 1}")
    return [name if found.count(name) == 1 and name != "base" else f"{name} {k + 1}" for k, name in enumerate(found)]

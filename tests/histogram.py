"""A recipe for tests of the engine: how often the largest logit of a row lies in each bin."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from fastxent.engine.job import Job
from fastxent.io.batch import Batch
from fastxent.io.source import open_source
from fastxent.state.coverage import Coverage

BINS = 20


class Histogram:
    def __init__(self) -> None:
        self.counts, self.coverage = np.zeros(BINS, np.int64), Coverage()

    def add(self, rows: np.ndarray) -> None:
        self.counts += np.bincount(rows, minlength=BINS)

    def absorb(self, other: Histogram) -> None:
        self.counts += other.counts
        self.coverage.absorb(other.coverage)

    def to_bytes(self, compression: int = 6) -> bytes:
        return json.dumps([self.counts.tolist(), self.coverage.to_dict()]).encode()


@dataclass(frozen=True)
class LargestLogit:
    whole: bool = False
    light = False

    def scorer(self) -> Callable[[Batch], np.ndarray]:
        return lambda batch: np.concatenate([bins(block.values) for block in batch.blocks])

    def empty(self) -> Histogram:
        return Histogram()

    def load(self, data: bytes) -> Histogram:
        state, (counts, coverage) = Histogram(), json.loads(data)
        state.counts[:], state.coverage = counts, Coverage.from_dict(coverage)
        return state

    def describe(self) -> dict[str, Any]:
        return asdict(self)


def bins(logits: np.ndarray) -> np.ndarray:
    return np.clip(logits.max(axis=1), 0, BINS - 1).astype(np.int64)


def job(paths: list[str], whole: bool = False) -> Job[LargestLogit]:
    return Job(open_source(paths, logits="logits"), LargestLogit(whole))

"""A recipe of its own runs through the engine: threads, checkpoints, shards and work units."""

from __future__ import annotations

import pickle
import threading
from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest

import dumps
import histogram
from fastxent.engine.checkpoints import Checkpoints
from fastxent.engine.loop import Loop
from fastxent.engine.shards import Shard
from fastxent.engine.units import work_units
from fastxent.io import batch

MEMORY = 1 << 28


@pytest.fixture
def paths(tmp_path):
    return [str(path) for path in dumps.files(tmp_path)]


@pytest.fixture
def expected(paths):
    logits = np.concatenate(
        [np.array(pq.read_table(path)["logits"].to_pylist()).reshape(-1, dumps.CLASSES) for path in paths]
    )
    return np.bincount(histogram.bins(logits), minlength=histogram.BINS).tolist()


def run(job, pieces=None, **how):
    units = job.source.units() if pieces is None else (unit for unit, _ in pieces)
    return Loop(job.recipe, units, row_bytes=job.row_bytes, **{"threads": 1, "memory": MEMORY, **how}).run()[0]


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("whole", [True, False])
def test_threads(paths, expected, threads, whole, monkeypatch):
    monkeypatch.setattr(batch, "_BATCH_BYTES", 500)
    assert run(histogram.job(paths, whole), threads=threads).counts.tolist() == expected


def test_an_interrupted_run_is_resumed(paths, expected, tmp_path):
    def interrupt(rows, *_):
        if rows > dumps.ROWS // 2:
            raise KeyboardInterrupt

    job, folder = histogram.job(paths), tmp_path / "checkpoints"
    with Checkpoints(folder, job) as ledger, pytest.raises(KeyboardInterrupt):
        run(job, ledger=ledger, progress=interrupt)
    with Checkpoints(folder, job) as ledger:
        assert run(job, ledger=ledger).counts.tolist() == expected
    with Checkpoints(folder, job) as ledger:
        assert ledger.finished == len(job.pieces())


def test_shards_add_up(paths, expected):
    job, total = histogram.job(paths), histogram.Histogram()
    for number in (3, 1, 2):
        shard = Shard(number, 3)
        state = run(job, shard.of_pieces(job.pieces()))
        state.coverage = shard.coverage(job)
        total.absorb(state)
        assert (total.counts.tolist() == expected) == total.coverage.whole == (number == 2)


def test_work_units_travel(paths, expected):
    job, total = histogram.job(paths), histogram.Histogram()
    units = work_units(job, job.pieces(), 1, MEMORY)
    assert len(units) > 20
    for unit in units:
        total.absorb(job.recipe.load(pickle.loads(pickle.dumps(unit)).run().to_bytes()))  # noqa: S301 - our own
    assert total.counts.tolist() == expected
    assert total.coverage.whole


class Late(histogram.Histogram):
    """A state whose rows wait until it is settled."""

    def __init__(self):
        super().__init__()
        self.waiting, self.threads = [], set()

    def add(self, rows):
        self.waiting.append(rows)

    def settle(self):
        self.threads.add(threading.get_ident())
        while self.waiting:
            super().add(self.waiting.pop())

    def absorb(self, other):
        assert not self.waiting
        assert not other.waiting
        assert not self.threads & other.threads
        super().absorb(other)


class LateLogit(histogram.LargestLogit):
    def empty(self):
        return Late()


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_each_worker_settles_its_own_state(paths, expected, threads):
    job = histogram.job(paths)
    found = run(replace(job, recipe=LateLogit()), threads=threads)
    assert found.counts.tolist() == expected
    assert found.threads

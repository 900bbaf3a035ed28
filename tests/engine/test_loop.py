"""The loop: nothing about the run changes a bit, and errors end it in order."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

import fastxent as fx
from fastxent.engine.job import Job
from fastxent.engine.loop import Loop
from fastxent.io import batch
from fastxent.options.declared import DEFAULTS
from fastxent.verbs.evaluation import Evaluation
from tests.verbs.evaluated import (
    N,
    bits_of,
    dump,
    figures,
    with_bad,
)

EVERYTHING = dict(by=("kind", "doc"), cluster="doc", weight="weight", n_bytes="n_bytes", label_smoothing=0.1)


@pytest.fixture
def files(tmp_path) -> list[Path]:
    """The dump in seven files of odd sizes, with an empty one among them."""
    edges = [0, 1, 60, 61, 150, 200, 330, N]
    paths = []
    for k, (a, b) in enumerate(itertools.pairwise(edges)):
        paths.append(tmp_path / f"part-{k}.parquet")
        pq.write_table(dump("float16").slice(a, b - a), paths[-1], row_group_size=1 + 13 * k)
    paths.append(tmp_path / "nothing.parquet")
    pq.write_table(dump("float16").slice(0, 0), paths[-1])
    return paths


def test_nothing_about_the_run_changes_a_bit(files, monkeypatch):
    whole = fx.evaluate(dump("float16"), **EVERYTHING, threads=1)
    shuffled = [files[k] for k in (3, 0, 7, 6, 1, 5, 2, 4)]
    for size in (8 << 20, 100, 1):
        monkeypatch.setattr(batch, "_BATCH_BYTES", size)
        for threads in (1, 2, 5):
            for memory in ("1MiB", "512MB"):
                result = fx.evaluate(shuffled, **EVERYTHING, threads=threads, memory=memory)
                assert figures(result) == figures(whole)
                assert bits_of(result.state) == bits_of(whole.state)


def test_states_by_hand_equal_evaluate(files):
    whole = fx.evaluate(files, **EVERYTHING)
    config = whole.config
    table = dump("float16")
    parts = [table.slice(a, 83) for a in (249, 0, 166, 83)]
    states = [fx.EvalState.empty(config).update(part.combine_chunks().to_batches()[0]) for part in parts]
    states[1] = fx.EvalState.from_bytes(states[1].to_bytes())
    merged = fx.EvalState.empty(config)
    for state in states:
        merged = state.merge(merged)
    assert merged.to_bytes() == whole.state.to_bytes()
    assert figures(merged.result()) == figures(whole)
    once = fx.EvalState.empty(config)
    for part in parts:
        once.update({name: part[name].combine_chunks() for name in part.column_names})
    assert once.to_bytes() == whole.state.to_bytes()
    with pytest.raises(fx.ConfigError, match="the batch must have 23 classes like the state, got 3"):
        once.update({**{k: [1] for k in ("kind", "doc", "weight", "n_bytes", "target")}, "logits": np.zeros((1, 3))})


def test_an_update_with_a_bad_row_adds_nothing(monkeypatch):
    monkeypatch.setattr(batch, "_BATCH_BYTES", 1)
    config = fx.EvalConfig(n_classes=2)
    state = fx.EvalState.empty(config).update({"logits": np.zeros((3, 2)), "target": [0, 1, 0]})
    before = state.to_bytes()
    with pytest.raises(fx.BadRowError):
        state.update({"logits": np.array([[0.0, 1.0], [0.0, math.nan]]), "target": [0, 1]})
    assert state.to_bytes() == before


def ending_in(units: Iterator, error: BaseException) -> Iterator:
    yield from units
    raise error


def run(job: Job, units: Iterator, threads: int) -> None:
    Loop(job.recipe, units, row_bytes=job.row_bytes, threads=threads, memory=1 << 29).run()


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_an_error_of_the_source_waits_for_the_units_before_it(threads):
    bad, good = (Evaluation.open(table, DEFAULTS) for table in (with_bad({10: math.nan}), dump()))
    with pytest.raises(fx.BadRowError):
        run(bad, ending_in(bad.source.units(), OSError("gone")), threads)
    with pytest.raises(OSError, match="gone"):
        run(good, ending_in(good.source.units(), OSError("gone")), threads)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("error", [KeyboardInterrupt, ZeroDivisionError])
def test_errors_of_the_caller_end_the_run_and_leave_nothing(tmp_path, threads, error):
    def progress(rows, *_):
        if rows > 100:
            raise error

    with pytest.raises(error):
        fx.evaluate(dump().to_reader(5), threads=threads, progress=progress, per_row=tmp_path / "rows.parquet")
    assert list(tmp_path.iterdir()) == []


def test_threads_and_memory_that_cannot_be():
    for options in ({"threads": 0}, {"threads": -1}, {"memory": "12 parsecs"}, {"memory": 5}, {"memory": True}):
        with pytest.raises(fx.ConfigError):
            fx.evaluate(dump(), **options)

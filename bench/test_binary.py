"""`evaluate` of binary dumps, Parquet and arrays, with all metrics, in turn with peers that compute some of them.

python -m pytest bench/test_binary.py [--quick] [-k parquet]
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

import fastxent as fx
from bench import files, peers
from bench.cases import use_threads
from bench.cpus import available_cpus
from bench.roofline import roofline
from bench.turns import Effort, Turns

ROWS, QUICK_ROWS = 20_000_000, 2_000_000
OPTIONS = {"logits": "p", "target": "y", "input": "probs"}


@pytest.mark.parametrize("form", ["parquet", "arrays"])
def test_binary(form: str, tmp_path: Path, effort: Effort, benchmark: BenchmarkFixture) -> None:
    rows = QUICK_ROWS if effort.quick else ROWS
    chance, positive, loss = files.binary_dump(rows)
    source: Path | dict[str, np.ndarray] = {"p": chance, "y": positive}
    path = tmp_path / "dump.parquet"
    if form == "parquet":
        files.write_binary(path, chance, positive)
        source = path
    threads = available_cpus()
    use_threads(threads)

    def ours() -> fx.EvalResult:
        return fx.evaluate(source, **OPTIONS)

    assert ours().metrics["cross_entropy"].value == pytest.approx(loss, rel=1e-6)
    turns = Turns(effort.patience(marked=True))
    rivals = files.binary_peers(source)
    for name, call in rivals.items():
        assert call() == pytest.approx(loss, rel=1e-5)
        turns.add(name, call, always=True)
    turns.add_rate("read", partial(roofline().read, threads))
    seconds = turns.run(benchmark, ours, effort.rounds(marked=False))
    if seconds is None:
        return
    nbytes = chance.nbytes + positive.nbytes
    best = min(rivals, key=turns.best.__getitem__, default=None)
    benchmark.extra_info.update(
        {
            "job": "evaluate binary", "layout": form, "classes": 1, "threads": threads, "seconds": seconds,
            "rows": rows, "bytes": nbytes, "gb_per_second": nbytes / seconds / 1e9, "bound": "read",
            "ceiling_gb_per_second": turns.rates["read"] / 1e9,
            "fraction_of_ceiling": nbytes / seconds / turns.rates["read"],
            "peers_gb_per_second": {name: nbytes / turns.best[name] / 1e9 for name in rivals},
            "peers_missing": peers.missing(),
        }
    )  # fmt: skip
    if best is not None:
        benchmark.extra_info.update(best_peer=best, ratio_to_best_peer=turns.best[best] / seconds)

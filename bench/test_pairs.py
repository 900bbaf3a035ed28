"""`compare` of two dumps with all metrics, in memory, from Parquet and by shuffled ids, in turn with the reads alone.

python -m pytest bench/test_pairs.py [--quick] [-k arrays]
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

import fastxent as fx
from bench import files, peers
from bench.cases import use_threads
from bench.cpus import available_cpus
from bench.roofline import roofline
from bench.turns import Effort, Turns

BYTES, QUICK_BYTES = 512 << 20, 64 << 20  # of the logits of either dump
GROUP = 32 << 20  # of a row group


def dumps(classes: int, nbytes: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(logits of the first dump, logits of the second, targets); the second differs a little."""
    a, target, _ = files.dump(classes, nbytes)
    noise = np.random.default_rng(1).normal(scale=0.3, size=(min(len(a), 64), classes)).astype(np.float32)
    b = a.copy()
    for begin in range(0, len(b), len(noise)):
        b[begin : begin + len(noise)] += noise[: len(b) - begin]
    return a, b, target


def write(path: Path, x: np.ndarray, target: np.ndarray, order: np.ndarray) -> None:
    """Write a dump with ids, its rows in some order."""
    rows = max(1, GROUP // (x.shape[1] * x.itemsize))
    schema = pa.schema({"id": pa.int64(), "target": pa.int64(), "logits": pa.list_(pa.float32())})
    with pq.ParquetWriter(path, schema, compression="none", use_dictionary=False) as writer:
        for begin in range(0, len(x), rows):
            at = order[begin : begin + rows]
            lists = pa.FixedSizeListArray.from_arrays(pa.array(x[at].reshape(-1)), x.shape[1])
            columns = [pa.array(at), pa.array(target[at]), lists.cast(schema.field("logits").type)]
            writer.write_table(pa.table(columns, schema=schema), row_group_size=rows)


@pytest.mark.parametrize("form", ["arrays", "parquet", "by id"])
@pytest.mark.parametrize("classes", [1000, 32_000])
def test_pairs(form: str, classes: int, tmp_path: Path, effort: Effort, benchmark: BenchmarkFixture) -> None:
    a, b, target = dumps(classes, QUICK_BYTES if effort.quick else BYTES)
    nbytes, threads = a.nbytes + b.nbytes, available_cpus()
    sources: list[Any] = [{"logits": a, "target": target}, {"logits": b, "target": target}]
    options: dict[str, Any] = {}
    use_threads(threads)
    turns = Turns(effort.patience(marked=True))
    want = fx.compare(*sources)
    if form != "arrays":
        sources = [tmp_path / "a.parquet", tmp_path / "b.parquet"]
        order = np.arange(len(a))
        write(sources[0], a, target, order)
        write(sources[1], b, target, order)
        del a, b
    if form == "parquet":
        turns.add("pyarrow", lambda: [pq.read_table(path) for path in sources], always=True)
    if form == "by id":
        aligned = list(sources)
        turns.add("aligned", lambda: fx.compare(*aligned), always=True)
        rows = pq.read_table(sources[1]).take(np.random.default_rng(2).permutation(len(order)))
        sources[1], options = tmp_path / "shuffled.parquet", {"on": "id", "memory": nbytes // 4}  # a temporary file
        pq.write_table(rows, sources[1], compression="none", use_dictionary=False, row_group_size=len(rows) // 16 + 1)
        del rows
    turns.add_rate("read", partial(roofline().read, threads))

    def ours() -> fx.CompareResult:
        return fx.compare(*sources, **options)

    assert ours().divergences == want.divergences
    seconds = turns.run(benchmark, ours, effort.rounds(marked=False))
    if seconds is None:
        return
    benchmark.extra_info.update(
        {
            "job": f"compare {form}", "layout": form, "classes": classes, "threads": threads, "seconds": seconds,
            "bytes": nbytes, "gb_per_second": nbytes / seconds / 1e9, "bound": "read",
            "ceiling_gb_per_second": turns.rates["read"] / 1e9,
            "fraction_of_ceiling": nbytes / seconds / turns.rates["read"], "peers_gb_per_second": {},
            "peers_missing": peers.missing(),
        }
    )  # fmt: skip
    if form == "parquet":
        benchmark.extra_info["ratio_to_pyarrow"] = turns.best["pyarrow"] / seconds
    if form == "by id":
        benchmark.extra_info["times_aligned"] = seconds / turns.best["aligned"]

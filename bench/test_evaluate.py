"""`evaluate` with all metrics on files of every layout, in turn with readers that only read.

python -m pytest bench/test_evaluate.py [--quick] [--size 2GB] [-k zstd]
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

import fastxent as fx
from bench import files, peers
from bench.cases import use_threads
from bench.cpus import available_cpus
from bench.roofline import roofline
from bench.turns import Effort, Turns


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    many = () if metafunc.config.getoption("--quick") else (49_152,)
    chosen = [(classes, layout) for classes in (1000, *many) for layout in files.LAYOUTS]
    metafunc.parametrize(("classes", "layout"), chosen, ids=[f"C{c}-{layout}" for c, layout in chosen])


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """Emptied at once: pytest would keep the files of three runs."""
    yield tmp_path
    shutil.rmtree(tmp_path)


def test_evaluate(classes: int, layout: str, folder: Path, effort: Effort, benchmark: BenchmarkFixture) -> None:
    x, target, truth = files.dump(classes, effort.file)
    path = folder / ("dump.arrow" if layout == "arrow-ipc" else "dump.parquet")
    files.write(path, x, target, layout)
    threads = available_cpus()
    use_threads(threads)

    def ours() -> fx.EvalResult:
        return fx.evaluate(path, logits_dtype="float32" if layout == "fixed-size-binary" else None)

    result = ours()
    assert result.rows.used == len(x)
    assert result.metrics["cross_entropy"].value == pytest.approx(truth, rel=1e-6)

    turns = Turns(effort.patience(marked=True))
    readers = files.readers(path, layout)
    if "pyarrow + torch" in readers:
        assert readers["pyarrow + torch"]() == pytest.approx(truth, rel=1e-5)
    for name, call in readers.items():
        turns.add(name, call, always=name == "pyarrow")
    turns.add("file into memory", files.FileRead(path), always=True)
    bare = files.bare_decoding(x, layout, folder)
    if bare is not None:
        turns.add("codec alone", bare, always=True)
    turns.add_rate("read", partial(roofline().read, threads))
    seconds = turns.run(benchmark, ours, effort.rounds(marked=False))
    if seconds is None:
        return
    rate = x.nbytes / seconds
    reading = {name: turns.best[name] for name in readers}
    best = min(reading, key=reading.__getitem__)
    benchmark.extra_info.update(
        {
            "job": "evaluate", "layout": layout, "classes": classes, "threads": threads, "seconds": seconds,
            "bytes": x.nbytes, "file_bytes": path.stat().st_size, "gb_per_second": rate / 1e9,
            "bound": "read", "ceiling_gb_per_second": turns.rates["read"] / 1e9,
            "fraction_of_ceiling": rate / turns.rates["read"],
            "peers_gb_per_second": {name: x.nbytes / value / 1e9 for name, value in reading.items()},
            "peers_missing": peers.missing(), "best_peer": best, "ratio_to_best_peer": reading[best] / seconds,
            "ratio_to_file_read": turns.best["file into memory"] / seconds,
            "timing": {k: v for k, v in result.timing.items() if isinstance(v, int | float)},
        }
    )  # fmt: skip
    if "pyarrow" in reading:
        benchmark.extra_info["ratio_to_pyarrow"] = reading["pyarrow"] / seconds
    if bare is not None:
        benchmark.extra_info["ratio_to_codec"] = turns.best["codec alone"] / seconds

"""Array functions over the table of cases: right first, then timed in turn with the peers and the memory's ceiling.

python -m pytest bench/test_kernels.py [--quick] [--logits 16MiB] [-k loss-C1000]
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, replace
from functools import partial
from typing import Any

import numpy as np
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from bench import peers
from bench.cases import Case, cases, data_of, runner, truth_of, use_threads
from bench.roofline import roofline
from bench.turns import Effort, Turns

ALONE = ", one thread"


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    quick = metafunc.config.getoption("--quick")
    chosen = [case for case in cases() if case.marked or not quick]
    metafunc.parametrize("case", chosen, ids=str)


def test_kernel(case: Case, effort: Effort, benchmark: BenchmarkFixture) -> None:
    data = data_of(case, effort.bytes(case.marked))
    truth = truth_of(case, data)
    call = runner(case, data)
    use_threads(case.threads)
    result = call()
    truth.check(result)
    moved = data.moved(result)
    del result

    turns = Turns(effort.patience(case.marked), before=lambda: use_threads(case.threads))
    rivals = peers.competitors(case, data)
    for name, rival in rivals.items():
        truth.check_peer(peers.finished(rival()), name)
        turns.add(name, rival)
    if case.dtype in ("float16", "bfloat16"):
        wide = replace(data, x=data.x.astype(np.float32), out=None if data.out is None else data.out.astype(np.float32))
        turns.add("fastxent float32", runner(case, wide), always=True)
    roof = roofline()
    for bound in roof.kinds(case.bound):
        turns.add_rate(bound.__name__, partial(bound, case.threads))
    if case.marked and case.threads > 1:
        turns.add("fastxent" + ALONE, call, before=lambda: use_threads(1), always=True)
        for bound in roof.kinds(case.bound):
            turns.add_rate(bound.__name__ + ALONE, partial(bound, 1))
    seconds = turns.run(benchmark, call, effort.rounds(case.marked))
    if seconds is not None:
        benchmark.extra_info.update(
            asdict(case) | {"marked": case.marked} | figures(case, moved, seconds, turns, rivals)
        )


def figures(case: Case, moved: int, seconds: float, turns: Turns, rivals: Iterable[str]) -> dict[str, Any]:
    """What is kept of a case, all of it from the same rounds."""
    rate = moved / seconds
    ceiling = max(value for name, value in turns.rates.items() if not name.endswith(ALONE))
    found = {
        "seconds": seconds,
        "bytes": moved,
        "gb_per_second": rate / 1e9,
        "bound": case.bound,
        "ceiling_gb_per_second": ceiling / 1e9,
        "fraction_of_ceiling": rate / ceiling,
        "peers_gb_per_second": {name: moved / turns.best[name] / 1e9 for name in rivals},
        "peers_missing": peers.missing(),
    }
    if "copy_numpy" in turns.rates:
        found["fraction_of_numpy_copy"] = rate / turns.rates["copy_numpy"]
    if found["peers_gb_per_second"]:
        name = min(rivals, key=turns.best.__getitem__)
        found |= {"best_peer": name, "ratio_to_best_peer": turns.best[name] / seconds}
    if "fastxent float32" in turns.best:
        found["ratio_to_float32"] = turns.best["fastxent float32"] / seconds
    if (alone := turns.best.get("fastxent" + ALONE)) is not None:
        found["speed_up"] = alone / seconds
        found["one_thread_fraction_of_ceiling"] = (
            moved / alone / max(v for name, v in turns.rates.items() if name.endswith(ALONE))
        )
    return found

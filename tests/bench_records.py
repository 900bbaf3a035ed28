"""Benchmark runs that were never run: for the tests of what is kept of a run, and of the dashboard."""

from __future__ import annotations

import hashlib
import math
from typing import Any

import numpy as np

from bench import marks, records

MACHINES = (("AMD EPYC", 2), ("Intel Xeon", 8), ("Neoverse N1", 4))
PEERS = {"torch": 10.0, "jax+optax": 6.0}
JOBS = ("loss", "record", "gradient", "log_softmax")
CLASSES = (2, 10, 1000, 32_000, 128_256)
DTYPES = ("float32", "float64", "float16", "bfloat16")
STEP = 0.8  # a regression: from its run on, a case reaches this much of what it did


def report(machine: int = 0, factor: float = 1.0) -> dict[str, Any]:
    """Figures as `bench.table` saves them, of a few cases."""
    processor, cpus = MACHINES[machine]
    cases = [
        case(job, classes, dtype, threads, factor)
        for job, classes, dtype in (("loss", 1000, "float32"), ("gradient", 32_000, "float32"), ("loss", 2, "float16"))
        for threads in (1, cpus)
    ] + [case("evaluate", 1000, "float32", cpus, factor) | {"layout": "zstd", "ratio_to_codec": 0.5}]
    return _report(processor, cpus, cases)


def case(job: str, classes: int, dtype: str, threads: int, factor: float = 1.0) -> dict[str, Any]:
    """One case, at 0.8 of the ceiling times ``factor``."""
    rate = 24.0 * factor
    return {
        "job": job, "classes": classes, "dtype": dtype, "threads": threads, "spread": 0.01234, "seconds": 1 / rate,
        "bytes": 10**9, "gb_per_second": rate, "bound": "copy" if job in ("gradient", "log_softmax") else "read",
        "ceiling_gb_per_second": 30.0, "fraction_of_ceiling": 0.8 * factor,
        "peers_gb_per_second": {name: 24.0 / ratio for name, ratio in PEERS.items()},
        "best_peer": "jax+optax", "ratio_to_best_peer": 6.0 * factor, "peers_missing": [], "marked": threads > 1,
    } | ({"speed_up": 1.8, "one_thread_fraction_of_ceiling": 0.5} if threads > 1 else {})  # fmt: skip


def _report(processor: str, cpus: int, cases: list[dict[str, Any]]) -> dict[str, Any]:
    startup = {"import": 0.003123456, "import torch": 1.5, "cold evaluate": 13.376, "cached evaluate": 0.9}
    peak = {"peak": 283_000_000, "memory": 64_000_000, "size": 512_000_000}
    whole = startup | {"cold cross_entropy": 2.1, "cached cross_entropy": 0.4}
    return {
        "machine": {
            "processor": processor, "cpus": cpus, "caches": {"l2": 1 << 21, "l3": 1 << 25},
            "flags": ["avx2", "avx512f"], "memory": 25 << 30, "system": "Linux", "python": "3.12.1",
            "fastxent": "0.1.0", "commit": "0123456789abcdef0123456789abcdef01234567", "changed_since_commit": False,
            "load_average": [0.1, 0.2, 0.3], "versions": {"numpy": "2.4.6", "numba": "0.68.1"},
        },
        "quick": False, "seconds": 500.2, "ceilings": {"read 1t": 2e10, f"read {cpus}t": 3e10}, "cases": cases,
        "marks": [vars(row) | {"met": row.verdict} for row in marks.rows(cases, whole, peak)],
        "startup": startup, "peak_memory": peak, "accuracy": [],
    }  # fmt: skip


def runs(count: int = 300, broken: int = 12) -> list[dict[str, Any]]:
    """Records of many runs in turn on three machines, every tenth quick, with noise of 1 %.

    From the ``broken``-th last full run of the first machine on, its loss of 1000 float32 on all threads is `STEP`.
    """
    rng = np.random.default_rng(0)
    kept = []
    for run in range(count):
        machine, quick = run % len(MACHINES), run % 10 == 9
        processor, cpus = MACHINES[machine]
        cases = []
        for job in JOBS:
            for classes in CLASSES:
                for dtype in DTYPES:
                    for threads in (1, cpus):
                        grown = 0.5 + 0.4 * min(1, run / count) - 0.02 * abs(math.log10(classes) - 3)
                        factor = grown * math.exp(rng.normal(0, 0.01)) * (0.7 if threads == 1 else 1)
                        slowed = (job, classes, dtype) == ("loss", 1000, "float32") and threads > 1 and machine == 0
                        factor *= STEP if slowed and run >= count - broken * len(MACHINES) else 1
                        cases.append(case(job, classes, dtype, threads, factor))
        for layout in ("none", "zstd", "arrow-ipc"):
            found = case("evaluate", 1000, "float32", cpus, 0.4 * math.exp(rng.normal(0, 0.01)))
            of = {"ratio_to_pyarrow": 5.5, "ratio_to_file_read": 0.5, "ratio_to_codec": 0.8}
            cases.append(found | {"layout": layout} | of)
        whole = _report(processor, cpus, cases) | {"quick": quick}
        whole["machine"]["commit"] = hashlib.sha1(f"{run}".encode()).hexdigest()
        date = f"2026-{1 + run // 28:02d}-{1 + run % 28:02d}T{run % 24:02d}:00:00Z"
        kept.append(records.record(whole, date))
    return kept

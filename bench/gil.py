"""How much of the time threads wait for the interpreter lock, instead of reading and computing.

    .venv/bin/python -m bench.gil dump.parquet --threads 1 2 4

Two measures, of `evaluate` over files in the page cache (run on a machine that does nothing else):

* *waiting*: the part of the clock in which a worker was neither computing nor reading, 1 - (its processor time / the
  time of the run). One thread has nobody to wait for: what it shows is the noise floor, and the loop's end.
* *lock*: a probe beside the workers asks for the interpreter lock every 2 ms, and notes how long it took to get it
  beyond what its sleep takes in an idle process. Kernels, reads and codecs let go of the lock, so a probe gets it at
  once unless some worker is running Python. Its mean over the period is the share of time the lock was taken.
"""

from __future__ import annotations

import argparse
import statistics
import threading
import time
from typing import Any

import fastxent as fx

_PERIOD = 0.002


class Probe:
    """A thread that sleeps and notes how late it was woken."""

    def __init__(self) -> None:
        self.late: list[float] = []
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        while not self._over.is_set():
            start = time.perf_counter()
            time.sleep(_PERIOD)
            self.late.append(time.perf_counter() - start - _PERIOD)

    def __enter__(self) -> Probe:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()


def measure(paths: list[str], threads: int, seconds: float) -> dict[str, Any]:
    """Evaluate for some seconds, after one run that brings the files in and compiles."""
    fx.evaluate(paths, threads=threads)
    with Probe() as idle:
        time.sleep(1.0)
    runs = []
    with Probe() as probe:
        start = time.perf_counter()
        while time.perf_counter() - start < seconds:
            runs.append(fx.evaluate(paths, threads=threads).timing or {})
    late = max(0.0, statistics.fmean(probe.late) - statistics.fmean(idle.late))
    last = runs[-1]
    return {
        "threads": threads,
        "GB/s": statistics.median(run["gb_per_second"] for run in runs),
        "waiting": 1.0 - statistics.fmean(share for run in runs for share in run["utilisation"]),
        "lock": late / (late + _PERIOD),
        **{kind: last[f"{kind}_seconds"] / last["seconds"] / threads for kind in ("read", "decode", "kernel", "state")},
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("paths", nargs="+")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--seconds", type=float, default=5.0)
    options = parser.parse_args()
    for threads in options.threads:
        found = measure(options.paths, threads, options.seconds)
        print("  ".join(f"{name} {value:.3g}" for name, value in found.items()), flush=True)


if __name__ == "__main__":
    main()

"""One process of `bench.compare`: prepares a case, and times it whenever it is its turn. JSON lines in and out.

    {"prepare": "loss-C1000-float32-2t", "bytes": 1000, "check": true}  ->  {"seconds": of a call that is warm}
    {"time": 3}                                                         ->  {"seconds": a call, of that many}

Which fastxent it times is its PYTHONPATH's; cases and checks are those beside this file.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fastxent as fx
from bench.cases import cases, data_of, runner, truth_of, use_threads
from bench.cpus import available_cpus

LAYOUTS = ("none", "zstd", "arrow-ipc", "binary")  # of the files that `evaluate` is timed on
CLASSES = 1000
FILES = {f"evaluate-C{CLASSES}-{layout}": layout for layout in LAYOUTS}
# What an older or a broken fastxent may answer with; anything else is a mistake of this program.
REFUSALS = (AttributeError, TypeError, ValueError, NotImplementedError, AssertionError, RuntimeError, fx.FastxentError)


def file_of(folder: Path, layout: str) -> Path:
    return folder / f"{layout}.{'arrow' if layout == 'arrow-ipc' else 'parquet'}"


def prepared(name: str, nbytes: int, check: bool, folder: Path) -> Callable[[], Any]:
    """The call that the case times; ``check`` it against the truth first."""
    if name in FILES:
        use_threads(available_cpus())
        path = file_of(folder, FILES[name])
        return lambda: fx.evaluate(path)
    case = next(case for case in cases() if str(case) == name)
    use_threads(case.threads)
    data = data_of(case, nbytes)
    call = runner(case, data)
    if check:
        truth_of(case, data).check(call())
    return call


def timed(call: Callable[[], Any], number: int) -> float:
    start = time.perf_counter()
    for _ in range(number):
        call()
    return (time.perf_counter() - start) / number


def main(folder: Path) -> None:
    call: Callable[[], Any] = int
    answer(package=fx.__file__)
    for line in sys.stdin:
        asked = json.loads(line)
        if "time" in asked:
            answer(seconds=timed(call, asked["time"]))
            continue
        try:
            call = prepared(asked["prepare"], asked["bytes"], asked["check"], folder)
            call()
            answer(seconds=timed(call, 1))
        except REFUSALS as error:
            answer(error=f"{type(error).__name__}: {' '.join(str(error).split())[:300]}")


def answer(**values: Any) -> None:
    print(json.dumps(values), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))

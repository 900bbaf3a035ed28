"""What the fuzzers of file formats share: numbered cases under limits of time and memory, and their command line."""

from __future__ import annotations

import argparse
import faulthandler
import os
import random
import re
import resource
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from fastxent.errors import FastxentError

ROOT = Path(__file__).resolve().parents[1]
ALLOWANCE = 400 << 20  # resident memory a run may add, whatever a file claims
SECONDS = 10  # of the processor, of a case
STALLED = 180  # seconds until a case counts as hanging: a busy machine may stop it for long


def outcomes_of(case: Callable[[random.Random], str], count: int, seed: int) -> Counter[str]:
    """Run ``count`` cases; return how often each outcome occurred.

    case: function of a generator, which follows from the seed and the number of the case. It returns the outcome.
    """
    outcomes: Counter[str] = Counter()
    start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for number in range(count):
        faulthandler.dump_traceback_later(STALLED, exit=True)
        began = time.process_time()
        try:
            outcomes[case(random.Random(f"{seed}/{number}"))] += 1
            if time.process_time() - began > SECONDS:
                raise TimeoutError(f"the case took more than {SECONDS} seconds")
        except BaseException:
            print(f"case {number} of seed {seed}", file=sys.stderr)
            raise
        finally:
            faulthandler.cancel_dump_traceback_later()
        grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - start) << 10
        if grown > ALLOWANCE:
            raise MemoryError(f"case {number} of seed {seed}: {grown >> 20} MiB more than at the start")
    return outcomes


def outcomes_in_folder(
    case: Callable[[random.Random, Path], str], count: int, seed: int, before: int
) -> Counter[str]:  # fmt: skip
    """`outcomes_of` of cases that write into a folder.

    before: cases that are run first, without a limit of time: they compile what the others need.
    """
    with tempfile.TemporaryDirectory() as folder:
        for k in range(before):
            case(random.Random(f"compile {k}"), Path(folder))
        return outcomes_of(lambda rng: case(rng, Path(folder)), count, seed)


def outcome(read: Callable[[], str]) -> str:
    """Return what ``read`` returns, or "refused" for an error of one line."""
    try:
        return read()
    except FastxentError as error:
        if "\n" in str(error):
            raise AssertionError("an error of several lines") from error
        return "refused"


def main(run: Callable[[int, int], Counter[str]], description: str | None) -> None:
    """The command line of a fuzzer.

    run: function of the count and the seed.
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    faulthandler.enable()
    for outcome, number in run(options.count, options.seed).most_common():
        print(f"{outcome}: {number}")


def short_run(module: str, count: int, *, bounds: bool = True) -> Counter[str]:
    """Run a fuzzer in a process of its own, which a signal would end; return its outcomes.

    bounds: bool. Kernels raise at the first index out of range.
    """
    environment = {**os.environ, "NUMBA_BOUNDSCHECK": "1"} if bounds else None  # such kernels have a cache of their own
    done = subprocess.run(
        [sys.executable, "-m", module, "--count", str(count), "--seed", "0"],
        cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    found = re.findall(r"^(.+): (\d+)$", done.stdout, re.MULTILINE)
    counts = Counter({name: int(number) for name, number in found})
    assert counts.total() == count
    return counts

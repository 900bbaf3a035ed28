"""That `bench.compare` can be trusted, on a real machine: left alone, it takes some half an hour.

    python -m bench.prove [--runs 20] [-k PATTERN] [--full]

A tree whose rows are read a quarter of a time more than once must be caught; then the unchanged tree is compared with
itself and must pass every time. Exit code 0 if so.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from bench.compare import CONSOLE, FULL, QUICK, Effort, chosen, compare, lay_out
from bench.paired import Verdict

SLOWED = """

_once = RowPass.sweep


def _and_a_quarter_again(self, begin, end, write=None, losses=None):
    _once(self, begin, begin + (end - begin) // 4)
    return _once(self, begin, end, write, losses)


RowPass.sweep = _and_a_quarter_again
"""


def compared(names: list[str], effort: Effort, slowed: bool) -> list[Verdict]:
    """HEAD with itself, or with a copy that is slower."""
    with tempfile.TemporaryDirectory(prefix="fastxent-prove-") as folder:
        sides = lay_out("HEAD", "HEAD", Path(folder))
        if slowed:
            with (sides["head"] / "fastxent" / "kernels" / "launch.py").open("a") as file:
                file.write(SLOWED)
        return compare(sides, names, effort, base="HEAD", head="HEAD, slowed" if slowed else "HEAD")


def main() -> int:
    parser = argparse.ArgumentParser(description="Prove bench.compare on this machine.")
    parser.add_argument("--runs", type=int, default=20, help="of the unchanged tree")
    parser.add_argument("-k", help="only cases whose name has this; one of them must be a loss")
    parser.add_argument("--full", action="store_true", help="full comparisons, not quick ones")
    options = parser.parse_args()
    effort, names = FULL if options.full else QUICK, chosen(options.k)
    caught = [v.case for v in compared(names, effort, slowed=True) if v.slower]
    CONSOLE.print(f"slowed: caught in {len(caught)} cases: {', '.join(caught)}")
    failed = 0
    for run in range(options.runs):
        failed += any(v.slower for v in compared(names, effort, slowed=False))
        CONSOLE.print(f"unchanged: {run + 1 - failed} of {run + 1} passed")
    return 0 if not failed and caught else 1


if __name__ == "__main__":
    sys.exit(main())

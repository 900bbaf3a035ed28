"""Is the working tree slower than another commit? Both side by side on this machine, in processes that take turns.

    python -m bench.compare BASE [-k loss] [--quick] [--generations 7] [--head REV]

BASE and head are laid out beside each other with the same benchmarks, and the same installed packages. Exit code 1: a
case is slower than base beyond the noise of this very run (`bench.paired` says what that means) and by more than 2 %.
Every timing is saved under bench/results/. A machine that is busy makes the noise larger, not the verdict wrong.
"""

from __future__ import annotations

import argparse
import io
import json
import math
import os
import random
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from bench import files, instructions, paired, taker
from bench.cases import cases

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "bench" / "results"
CONSOLE = Console(width=130, highlight=False)
SIDES = ("base", "head")


class Effort(NamedTuple):
    generations: int
    rounds: int
    bytes: int  # of logits
    least: float  # seconds in a timing


FULL = Effort(7, 9, 64 << 20, 0.03)
QUICK = Effort(5, 9, 32 << 20, 0.015)


class CompareError(Exception):
    """What keeps two trees from being compared, in one line."""


# ---- the two trees ---------------------------------------------------------------------------------------------


def lay_out(base: str, head: str | None, folder: Path) -> dict[str, Path]:
    """{side: a folder for PYTHONPATH}: that side's package, and the benchmarks of the working tree."""
    sides = {}
    for side, rev in zip(SIDES, (base, head), strict=True):
        place = sides[side] = folder / side
        place.mkdir()
        if rev is None:
            shutil.copytree(ROOT / "fastxent", place / "fastxent", ignore=shutil.ignore_patterns("__pycache__"))
        else:
            archive = git("archive", "--format=tar", rev, "fastxent")
            with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
                tar.extractall(place, filter="data")
        for name in ("bench", "tests"):
            (place / name).symlink_to(ROOT / name)
    return sides


def git(*arguments: str) -> bytes:
    done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, check=False)
    if done.returncode:
        raise CompareError(f"git {' '.join(arguments)}: {done.stderr.decode().strip()}")
    return done.stdout


# ---- processes that take turns ---------------------------------------------------------------------------------


class Process:
    """A process of one side, which answers one question at a time. It ends with its `with` block."""

    def __init__(self, tree: Path, data: Path) -> None:
        environment = os.environ | {"PYTHONPATH": str(tree), "PYTHONDONTWRITEBYTECODE": "1"}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "bench.taker", str(data)], cwd=tree, env=environment, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip
        self._tree = tree

    def __enter__(self) -> Process:
        try:
            package = self.answer()["package"]
            if not Path(package).is_relative_to(self._tree):
                raise CompareError(f"{self._tree.name} would time the fastxent of {package}")
        except CompareError:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()  # it keeps nothing
        self._process.communicate()

    def ask(self, **question: Any) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(question) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise CompareError("a process that is timed has died; its message is above") from None

    def answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise CompareError("a process that is timed has died; its message is above")
        found: dict[str, Any] = json.loads(line)
        return found


def warm(sides: dict[str, Path], names: list[str], effort: Effort, data: Path) -> dict[str, int]:
    """{case: calls in a timing}: compiles every kernel, checks head's results, drops what base cannot do."""
    slowest: dict[str, float] = {}
    for side in SIDES:
        with Process(sides[side], data) as process:
            for name in names if side == "base" else list(slowest):
                process.ask(prepare=name, bytes=effort.bytes, check=side == "head")
                found = process.answer()
                if "error" not in found:
                    slowest[name] = max(slowest.get(name, 0.0), found["seconds"])
                elif side == "base":
                    CONSOLE.print(f"left out, base cannot: {name}: {found['error']}", style="red")
                else:
                    raise CompareError(f"head fails {name}: {found['error']}")
    return {name: max(1, math.ceil(effort.least / seconds)) for name, seconds in slowest.items()}


def measure(sides: dict[str, Path], numbers: dict[str, int], effort: Effort, data: Path) -> np.ndarray:
    """Seconds (generation, process, round, case) of fresh processes that take turns in random order."""
    order = random.Random(time.time_ns())
    seconds = np.empty((effort.generations, len(paired.SIDES), effort.rounds, len(numbers)))
    for g in range(effort.generations):
        began = time.perf_counter()
        with ExitStack() as stack:
            processes = {}
            for p in order.sample(range(len(paired.SIDES)), len(paired.SIDES)):
                processes[p] = stack.enter_context(Process(sides[SIDES[paired.SIDES[p]]], data))
            for m, (name, number) in enumerate(numbers.items()):
                for process in processes.values():
                    process.ask(prepare=name, bytes=effort.bytes, check=False)
                for process in processes.values():
                    if "error" in (found := process.answer()):
                        raise CompareError(f"{name}: {found['error']}")
                for r in range(effort.rounds):
                    for p in order.sample(range(len(processes)), len(processes)):
                        processes[p].ask(time=number)
                        seconds[g, p, r, m] = processes[p].answer()["seconds"]
        CONSOLE.print(f"generation {g + 1} of {effort.generations}: {time.perf_counter() - began:.0f} s")
    return seconds


# ---- the verdict -----------------------------------------------------------------------------------------------


def chosen(pattern: str | None) -> list[str]:
    """The cases of the table of marks and of `evaluate`; with a pattern, all those whose names have it."""
    if pattern is None:
        names = [str(case) for case in cases() if case.marked] + list(taker.FILES)
    else:
        names = [name for name in (*map(str, cases()), *taker.FILES) if re.search(pattern, name)]
    if not names:
        raise CompareError(f"no case is called anything like {pattern!r}")
    return sorted(names, key=lambda name: name.split("-")[2])  # data of one dtype is made once


def show(found: list[paired.Verdict], seconds: np.ndarray, counts: dict[str, float]) -> None:
    table = Table(title="head against base", title_justify="left", box=SIMPLE)
    for name in ("case", "base ms", "head ms", "change", "noise", "p", "instructions", ""):
        table.add_column(name, justify="left" if name in ("case", "") else "right")
    typical = 1e3 * np.median(seconds.reshape(len(seconds), 2, -1, len(found)), axis=(0, 2))
    for m, v in enumerate(found):
        said, style = ("SLOWER", "red") if v.slower else ("faster", "green") if v.faster else ("", None)
        count = f"{counts[v.case]:+.2%}" if v.case in counts else "-"
        table.add_row(
            v.case, f"{typical[0, m]:.2f}", f"{typical[1, m]:.2f}", f"{v.change:+.1%}", f"±{v.noise:.1%}",
            f"{min(v.p_slower, v.p_faster):.4f}", count, said, style=style,
        )  # fmt: skip
    CONSOLE.print(table)


def compare(sides: dict[str, Path], names: list[str], effort: Effort, **about: Any) -> list[paired.Verdict]:
    """Time, judge, show and save; ``about`` is saved beside."""
    with tempfile.TemporaryDirectory(prefix="fastxent-dumps-") as folder:
        data = Path(folder)
        if wanted := [layout for name, layout in taker.FILES.items() if name in names]:
            x, target, _ = files.dump(taker.CLASSES, effort.bytes)
            for layout in wanted:
                files.write(taker.file_of(data, layout), x, target, layout)
        numbers = warm(sides, names, effort, data)
        if not numbers:
            raise CompareError("base can do none of these cases")
        counts, told = instructions.ratios(sides, list(numbers), effort.bytes, data)
        CONSOLE.print(told)
        seconds = measure(sides, numbers, effort, data)
    found = paired.verdicts(list(numbers), seconds)
    show(found, seconds, counts)
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{time.strftime('%Y%m%dT%H%M%S')}-compare.json"
    path.write_text(json.dumps(about | {
        "effort": effort._asdict(), "instructions": counts, "verdicts": [asdict(v) for v in found],
        "seconds": seconds.tolist(),
    }))  # fmt: skip
    slower = sum(v.slower for v in found)
    CONSOLE.print(f"{slower} of {len(found)} cases slower beyond noise and {paired.LEAST:.0%}; "
                  f"timings: {path.relative_to(ROOT)}")  # fmt: skip
    return found


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Compare the speed of the working tree with that of a commit.")
    parser.add_argument("base", help="the commit to be no slower than")
    parser.add_argument("--head", help="a commit to stand for the working tree")
    parser.add_argument("-k", help="only cases whose name has this (a regular expression), of all there are")
    parser.add_argument("--quick", action="store_true", help="less data and fewer generations: a minute or two")
    parser.add_argument("--generations", type=int, help="of fresh processes; more see smaller changes")
    options = parser.parse_args(arguments)
    effort = QUICK if options.quick else FULL
    effort = effort._replace(generations=options.generations or effort.generations)
    try:
        base = git("rev-parse", "--verify", f"{options.base}^{{commit}}").decode().strip()
        with tempfile.TemporaryDirectory(prefix="fastxent-compare-") as folder:
            sides = lay_out(base, options.head, Path(folder))
            head = options.head or "working tree"
            found = compare(sides, chosen(options.k), effort, base=base, head=head)
        return 1 if any(v.slower for v in found) else 0
    except (CompareError, ValueError) as error:
        print(f"bench-compare: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())

"""Runs every benchmark and prints the table of marks, filled in; figures are saved under bench/results/, and what the
dashboard needs of them under bench/history/.

    python -m bench.table [--quick] [--size 2GB] [--no-history]

A figure counts as a ratio measured in one run on one machine that does nothing else; that of a quick run not at all.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

import fastxent as fx
from bench import accuracy, marks, peers, records, roofline, startup
from bench.cpus import available_cpus
from fastxent.options.sizes import parse_size

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "bench" / "results"
VERSIONS = ("numpy", "numba", "llvmlite", "pyarrow", "scipy", "torch", "jax", "optax", "scikit-learn", "polars",
            "duckdb", "arro3-io", "pytest-benchmark")  # fmt: skip
BUSY = 0.5  # load average from which on no figure counts
CONSOLE = Console(width=170, highlight=False)


def machine() -> dict[str, Any]:
    """What the figures depend on, and nothing that names the machine."""
    from cpuinfo import get_cpu_info

    cpu = get_cpu_info()
    installed = {d.metadata["Name"].lower(): d.version for d in importlib.metadata.distributions()}
    commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False)
    changed = subprocess.run(
        ["git", "status", "--porcelain", "fastxent"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    return {
        "processor": cpu.get("brand_raw"),
        "cpus": available_cpus(),
        "caches": {level: cpu.get(f"{level}_cache_size") for level in ("l2", "l3")},
        "flags": sorted(
            flag for flag in cpu.get("flags", ()) if flag.startswith(("avx", "fma", "f16c", "neon", "sve"))
        ),
        "memory": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "system": platform.platform(),
        "python": platform.python_version(),
        "fastxent": fx.__version__,
        "commit": commit.stdout.strip(),
        "changed_since_commit": bool(changed.stdout.strip()),
        "load_average": os.getloadavg(),
        "versions": {name: installed[name] for name in VERSIONS if name in installed},
    }


def settle(patience: float = 180.0) -> None:
    """Wait for what ran a minute ago to leave the load average: only what goes on disturbs."""
    until = time.monotonic() + patience
    if os.getloadavg()[0] > BUSY:
        CONSOLE.print(f"waiting for the load of {os.getloadavg()[0]:.1f} to fall, at most {patience:.0f} s")
    while os.getloadavg()[0] > BUSY and time.monotonic() < until:
        time.sleep(5)


def benchmarks(quick: bool, size: str | None, path: Path) -> tuple[int, list[dict[str, Any]]]:
    """(pytest's exit code, the figures of every case) of the benchmarks run by pytest, in a process of their own.

    What pytest-benchmark itself saves stays under ``path``, for its own `pytest-benchmark compare`.
    """
    command = [sys.executable, "-m", "pytest", "bench", "-q", "--no-header", "-W", "default", "-p", "no:cacheprovider"]
    command += ["--benchmark-json", str(path), "--benchmark-quiet", "--benchmark-columns=min"]
    command += (["--quick"] if quick else []) + (["--size", size] if size else [])
    done = subprocess.run(command, cwd=ROOT, check=False)
    if not path.exists() or not path.stat().st_size:
        return done.returncode or 1, []
    return done.returncode, [with_spread(b) for b in json.loads(path.read_text())["benchmarks"]]


def with_spread(benchmark: dict[str, Any]) -> dict[str, Any]:
    """The figures of a case and, from pytest-benchmark's own, how far half of its rounds lay apart, relatively."""
    stats = benchmark["stats"]
    return benchmark["extra_info"] | {"spread": stats["iqr"] / stats["median"]}


def print_marks(rows: list[marks.Row]) -> None:
    table = Table(title="Marks: ratios measured in this run", title_justify="left", box=SIMPLE)
    columns = dict.fromkeys(("job", "best peer (ours is)", "ours", "ratio", "of", "mark", "aim", "met"), "right")
    for name, side in (columns | dict.fromkeys(("job", "best peer (ours is)", "of", "met"), "left")).items():
        table.add_column(name, justify=side, no_wrap=True)  # type: ignore[arg-type]

    def number(value: float | None) -> str:
        return "-" if value is None else f"{value:.0f}" if value >= 100 else f"{value:.2f}"

    for row in rows:
        sign = "<=" if row.most else ">="
        limits = [f"{sign} {number(v)}" if v is not None else "-" for v in (row.mark, row.aim)]
        style = "red" if row.verdict == "NO" else None
        table.add_row(row.job, row.peer, row.ours, number(row.figure), row.unit, *limits, row.verdict, style=style)
    CONSOLE.print(table)


def main() -> int:
    parser = argparse.ArgumentParser(description="Run every benchmark; print the table of marks.")
    parser.add_argument("--quick", action="store_true", help="the table's cases alone, on little data")
    parser.add_argument("--size", help="logits in each file of `evaluate`, such as 2GB")
    parser.add_argument("--no-history", action="store_true", help="append no record to bench/history/")
    options = parser.parse_args()
    if not options.quick:
        settle()
    began, date = time.perf_counter(), time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    about = machine()
    CONSOLE.print(f"{about['processor']}, {about['cpus']} CPUs; fastxent {about['fastxent']}, numba "
                  f"{about['versions']['numba']}; load {about['load_average'][0]:.1f}")  # fmt: skip
    if about["load_average"][0] > BUSY:
        CONSOLE.print("the machine is busy: no figure of this run counts", style="red")
    if missing := peers.missing():
        CONSOLE.print(f"left out, not installed: {', '.join(missing)}", style="red")
    ceilings = roofline.ceilings(3 if options.quick else 7)
    CONSOLE.print("; ".join(f"{name} {value / 1e9:.1f} GB/s" for name, value in ceilings.items()))
    fresh = startup.startup(rounds=1 if options.quick else 3)
    least = 256_000_000 if options.quick else 512_000_000
    peak = startup.peak_memory(max(least, parse_size(options.size) if options.size else 0), memory=64_000_000)
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{time.strftime('%Y%m%dT%H%M%S')}{'-quick' if options.quick else ''}.json"
    code, found = benchmarks(options.quick, options.size, path.with_suffix(".benchmark.json"))
    errors = accuracy.accuracy(options.quick)
    rows = marks.rows(found, fresh, peak)
    accuracy.show(CONSOLE, errors)
    print_marks(rows)
    report = {
        "machine": about, "quick": options.quick, "seconds": time.perf_counter() - began, "ceilings": ceilings,
        "marks": [vars(row) | {"met": row.verdict} for row in rows], "cases": found, "startup": fresh,
        "peak_memory": peak, "accuracy": errors,
    }  # fmt: skip
    path.write_text(json.dumps(report, indent=1))
    if code:
        CONSOLE.print("a benchmark failed: no record of this run is kept", style="red")
    elif not options.no_history:
        CONSOLE.print(f"record: {records.append(report, date).relative_to(ROOT)}; commit it, and see `make dashboard`")
    unmet = [row.job for row in rows if row.verdict == "NO"]
    CONSOLE.print(f"{len(unmet)} marks not met; {report['seconds']:.0f} s; figures: {path.relative_to(ROOT)}")
    return code


if __name__ == "__main__":
    sys.exit(main())

"""Short runs of the mutation fuzzers, with kernels that raise at the first index out of range."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]


@pytest.mark.parametrize(
    ("fuzzer", "count", "outcomes"),
    [
        ("fuzz_pages", 3000, ("refused", "unchanged", "read", "no footer")),
        ("fuzz_files", 2000, ("refused", "unchanged", "read")),
    ],
)
def test_mutated_files_never_crash_hang_or_pass(fuzzer: str, count: int, outcomes: tuple[str, ...]) -> None:
    environment = {**os.environ, "NUMBA_BOUNDSCHECK": "1"}  # which kept kernels are told apart by
    done = subprocess.run(
        [sys.executable, "-m", f"tests.io.parquet.{fuzzer}", "--count", str(count), "--seed", "0"],
        cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    counts = {name: int(number) for name, number in re.findall(r"^(.+): (\d+)$", done.stdout, re.MULTILINE)}
    assert sum(counts.values()) == count
    assert min(counts[outcome] for outcome in outcomes) > 30  # it hits every part

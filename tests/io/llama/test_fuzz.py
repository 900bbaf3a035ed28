"""A short run of the fuzzer of llama.cpp's files, with kernels that raise at the first index out of range."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]


def test_mutated_llama_files_never_crash_hang_or_lose_rows() -> None:
    environment = {**os.environ, "NUMBA_BOUNDSCHECK": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "tests.io.llama.fuzz_llama", "--count", "1500", "--seed", "0"],
        cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    counts = {name: int(number) for name, number in re.findall(r"^(.+): (\d+)$", done.stdout, re.MULTILINE)}
    assert sum(counts.values()) == 1500
    assert min(counts["refused"], counts["read"], counts["read in part"]) > 100

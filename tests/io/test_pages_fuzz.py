"""A short run of the mutation fuzzer, with kernels that raise at the first index out of range."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_mutated_files_never_crash_hang_or_pass(tmp_path: Path) -> None:
    environment = {**os.environ, "NUMBA_BOUNDSCHECK": "1", "FASTXENT_CACHE_DIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-m", "tests.io.fuzz_pages", "--count", "3000", "--seed", "0"],
        cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    counts = {name: int(number) for name, number in re.findall(r"^(.+): (\d+)$", done.stdout, re.MULTILINE)}
    assert sum(counts.values()) == 3000
    assert min(counts["refused"], counts["unchanged"], counts["read"], counts["no footer"]) > 50  # it hits every part

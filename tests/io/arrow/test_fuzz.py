"""A short run of the fuzzer of Arrow files, in a process of its own: a signal would end it."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]


def test_mutated_arrow_files_never_crash_hang_or_lose_rows() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.io.arrow.fuzz_arrow", "--count", "1000", "--seed", "0"],
        cwd=ROOT, capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    counts = {name: int(number) for name, number in re.findall(r"^(.+): (\d+)$", done.stdout, re.MULTILINE)}
    assert sum(counts.values()) == 1000
    assert min(counts["refused"], counts["read"]) > 200

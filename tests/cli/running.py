"""Command lines in this process and in others, and a dump for them."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

DIGITS = str(Path(__file__).parents[2] / "examples" / "digits.parquet")
Cli = Callable[..., tuple[int, str, str]]


def dump(path: Path, logits: Any = None, target: Any = None, **columns: Any) -> Path:
    """Write a small dump, in row groups of two rows."""
    logits = [[2.0, 0.0, 1.0], [0.0, 3.0, 1.0], [1.0, 0.0, 0.0], [0.0, 0.5, 4.0]] if logits is None else logits
    logits = logits if isinstance(logits, pa.Array) else pa.array(logits, pa.list_(pa.float32()))
    target = [0, 1, 2, 2] if target is None else target
    pq.write_table(pa.table({"logits": logits, "target": target, **columns}), path, row_group_size=2)
    return path


def check_failure(code: int, out: str, err: str, message: str) -> None:
    assert (code, out) == (2, ""), err
    assert err.startswith("fastxent: error: ")
    assert err.count("\n") == 1
    assert err.endswith("\n")
    assert re.search(message, err), err


def process(*arguments: str, **settings: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "fastxent", *arguments], stderr=subprocess.PIPE, text=True, timeout=300, **settings
    )

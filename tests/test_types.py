"""The types of the public functions, as mypy sees them: a wrong word fails, and the reduction decides the result."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("mypy")

RIGHT = """
from typing import assert_type
import numpy as np
import fastxent as fx

x, y = np.zeros((2, 3)), np.zeros(2, int)
assert_type(fx.cross_entropy(x, y), float)
assert_type(fx.cross_entropy(x, y, reduction="sum", temperature=2.0), float)
assert_type(fx.cross_entropy(x, y, reduction="none", input="probs", out=np.zeros(2)), np.ndarray)
assert_type(fx.nll_loss(x, y, reduction="none"), np.ndarray)
assert_type(fx.cross_entropy_with_grad(x, y).loss, float)
assert_type(fx.cross_entropy_with_grad(x, y, reduction="none").loss, np.ndarray)
assert_type(fx.focal_loss(x, y), float)
assert_type(fx.focal_loss(x, y, reduction="none"), np.ndarray)
assert_type(fx.binary_cross_entropy_with_logits(x, x, pos_weight=2.0), float)
assert_type(fx.binary_cross_entropy(x, x, reduction="none"), np.ndarray)
assert_type(fx.kl_divergence(x, x, input="probs", base=2), float)
assert_type(fx.js_divergence(x, x, reduction="none"), np.ndarray)
fx.row_statistics(x, y, softcap=30.0)
fx.evaluate("dump.parquet", input="log_probs", on_bad_row="skip", by="kind", engine="ray", top_k=3)
fx.transform("dump.parquet", "out.parquet", output="grad", reduction="sum", dtype="float16")
fx.convert("dump.parquet", "out.parquet", layout="list", on_overflow="inf")
"""
WRONG = [
    'fx.cross_entropy(x, y, reduction="men")',
    'fx.cross_entropy(x, y, input="prob")',
    "fx.cross_entropy(x, y, temprature=2.0)",
    "fx.cross_entropy(x, y, out=x)",
    'fx.cross_entropy(x, y, reduction="batchmean")',
    'fx.nll_loss(x, y, input="probs")',
    'fx.binary_cross_entropy(x, x, reduction="all")',
    'fx.kl_divergence(x, x, input="scores")',
    'fx.row_statistics(x, y, input="prob")',
    'fx.entropy(x, input="prob")',
    'fx.evaluate("a", input="prob")',
    'fx.evaluate("a", on_bad_row="ignore")',
    'fx.evaluate("a", engine="spark")',
    'fx.evaluate("a", metric="accuracy")',
    'fx.plan("a", input="prob")',
    'fx.transform("a", "b", output="gradient")',
    'fx.transform("a", "b", reduction="men")',
    'fx.convert("a", "b", layout="lists")',
    'fx.convert("a", "b", on_overflow="clip")',
]


def test_the_types_of_calls(tmp_path: Path) -> None:
    text = RIGHT + "\n".join(WRONG) + "\n"
    (tmp_path / "calls.py").write_text(text)
    root = Path(__file__).parents[1]
    command = [sys.executable, "-m", "mypy", "--config-file", str(root / "pyproject.toml"), str(tmp_path / "calls.py")]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=600)
    found = {int(line.split(":")[1]) for line in done.stdout.splitlines() if ": error:" in line}
    first = RIGHT.count("\n") + 1
    assert found == set(range(first, first + len(WRONG))), done.stdout + done.stderr

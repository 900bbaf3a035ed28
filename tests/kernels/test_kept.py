"""Compiled kernels that processes keep for one another."""

import os
import subprocess
import sys

MANY = "\n        ".join(f"total += x[{i}] / (k + {i})" for i in range(200))  # too many to be copied into the caller
MADE = f"""
from fastxent.kernels.jit import jit

def make(k):
    @jit
    def kernel(x):
        total = 0.0
        {MANY}
        return total

    @jit
    def caller(x):
        return kernel(x)

    return caller
"""


def test_kernels_of_one_name_that_other_processes_kept_stay_apart(tmp_path):
    """Each process counts what it compiles from 1, and the count is part of the name of machine code."""
    (tmp_path / "made.py").write_text(MADE)
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": path, "FASTXENT_CACHE_DIR": str(tmp_path / "kept")}

    def run(*numbers):
        program = f"import numpy as np, made\nfor k in {numbers!r}: print(made.make(k)(np.eye(200)[0]))"
        found = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True)
        return found.stdout.split()

    assert run(1) == ["1.0"]
    assert run(2, 1) == ["0.5", "1.0"]
    assert run(1, 2, 4) == ["1.0", "0.5", "0.25"]


def test_a_function_elsewhere_is_compiled_anew_when_its_file_changes(tmp_path):
    """Benchmarks and tests have kernels too, which the hash of the package's sources says nothing of."""
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1", "FASTXENT_CACHE_DIR": str(tmp_path / "kept")}
    environment["PYTHONPATH"] = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    for factor in ("2.0", "3.0"):
        source = f"from fastxent.kernels.jit import jit\n\n@jit\ndef kernel(x):\n    return x * {factor}\n"
        (tmp_path / "mine.py").write_text(source)
        program = [sys.executable, "-c", "import mine; print(mine.kernel(1.0))"]
        for _ in range(2):
            found = subprocess.run(program, env=environment, capture_output=True, text=True)
            assert found.stdout.split() == [factor]

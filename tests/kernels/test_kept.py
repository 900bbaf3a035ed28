"""Compiled kernels that processes keep for one another."""

import os
import subprocess
import sys
import textwrap
from concurrent.futures import ThreadPoolExecutor

import pytest

from fastxent.kernels import jit

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


def test_a_second_process_compiles_no_kernel_of_a_comparison():
    """Compiled anew in each process, the divergences would take seconds. What Numba can compile, it need not look up
    either: it would import SciPy's linear algebra, and with it half a second."""
    program = """
        import sys, numpy as np, fastxent as fx
        from numba.core import event

        class Listener(event.Listener):
            def on_start(self, event):
                print(event.data["dispatcher"].py_func.__module__)

            def on_end(self, event):
                pass

        event.register("numba:compile", Listener())
        dump = {"logits": np.eye(20, dtype=np.float32), "target": np.arange(20)}
        fx.compare(dump, dump)
        print(*{"numba.np.linalg", "scipy.linalg"} & set(sys.modules))
    """
    command = [sys.executable, "-c", textwrap.dedent(program)]
    for _ in range(2):  # the first may have to compile
        compiled = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    assert compiled == []


CONSTANTS = """
from fastxent.kernels.jit import jit

@jit
def add(x, k):
    return x + k

@jit
def caller(x, k):
    return add(x, 1) + add(x, 2) + add(x, k)
"""


def test_calls_with_constants_share_the_code_of_a_kernel(tmp_path):
    (tmp_path / "constants.py").write_text(CONSTANTS)
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    # A folder of its own: a kernel that an earlier run of the suite kept would not be compiled here.
    environment = {**os.environ, "PYTHONPATH": path, "FASTXENT_CACHE_DIR": str(tmp_path / "kept")}
    program = "from constants import add, caller; print(caller(5, 3), len(add.overloads))"
    found = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True)
    assert found.stdout.split() == ["21", "1"]


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


MINE = """
import errno, os, pathlib
from fastxent.cli.compiling import compilations
from fastxent.kernels import jit

def make(k):
    @jit.jit
    def kernel(x):
        return k * x
    return kernel

kernels = [make(k) for k in range(6)]

def results(x=1):
    with compilations() as compiled:
        print(*[kernel(x) for kernel in kernels], compiled.count)

def refuse(*_):
    raise OSError(number, os.strerror(number))
"""


@pytest.fixture
def mine(tmp_path):
    """Run a program after MINE with a kernel cache of its own, and return the finished process."""
    (tmp_path / "mine.py").write_text(MINE)

    def run(program="results()", **environment):
        path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
        kept = {"FASTXENT_CACHE_DIR": str(tmp_path / "kept"), "PYTHONPATH": path}
        program = [sys.executable, "-c", f"from mine import *\n{program}"]
        return subprocess.run(program, env={**os.environ, **kept, **environment}, capture_output=True, text=True)

    return run


def outcome(run):
    return run.stdout, run.stderr


ANEW, KEPT = ("0 1 2 3 4 5 6\n", ""), ("0 1 2 3 4 5 0\n", "")


def test_damaged_entries_are_compiled_and_written_anew(mine, tmp_path):
    """Loaded, any of them would end the process or this test."""
    assert outcome(mine()) == ANEW
    assert outcome(mine()) == KEPT
    entries = sorted(tmp_path.rglob("*.nbc"))
    kept = [path.read_bytes() for path in entries]
    half = len(kept[0]) // 2
    assert len(entries) == 6
    entries[0].write_bytes(b"")
    entries[1].write_bytes(kept[1][:half])
    entries[2].write_bytes(bytes(len(kept[2])))
    entries[3].write_bytes(kept[3][:half] + bytes(512) + kept[3][half + 512 :])
    entries[4].write_bytes(kept[4][:half] + bytes([kept[4][half] ^ 1]) + kept[4][half + 1 :])
    entries[5].write_bytes(kept[0])  # whole, and of another kernel
    assert outcome(mine()) == ANEW
    assert outcome(mine()) == KEPT


def test_entries_that_cannot_be_unpickled_are_compiled_anew(mine, tmp_path):
    """They are whole, and refer to what is not there."""
    mine()
    for path in tmp_path.rglob("*.nbc"):
        content = b"cnumba.core\nno_such_thing\n."
        path.write_bytes(jit._checksum(path, content) + content)
    assert outcome(mine()) == ANEW


def test_another_signature_is_another_entry(mine):
    mine()
    assert outcome(mine("results(1.0)")) == ("0.0 1.0 2.0 3.0 4.0 5.0 6\n", "")
    assert outcome(mine("results(); results(1.0)")) == ("0 1 2 3 4 5 0\n0.0 1.0 2.0 3.0 4.0 5.0 0\n", "")


def test_a_cache_that_cannot_be_written_is_read(mine):
    mine()
    assert (
        outcome(mine("import mine; mine.number = errno.EROFS; pathlib.Path.mkdir = os.replace = refuse; results()"))
        == KEPT
    )


@pytest.mark.parametrize("warnings", ["default", "error"])
def test_a_full_disk_is_warned_of_once(mine, tmp_path, warnings):
    """Even where warnings are errors, which would leave the compiler as an error in a kernel."""
    found = mine("import mine; mine.number = errno.ENOSPC; os.replace = refuse; results()", PYTHONWARNINGS=warnings)
    assert found.stdout == ANEW[0]
    assert found.stderr.count("cannot keep compiled kernels in ") == found.stderr.count("arning: ") == 1
    assert "No space left on device; set FASTXENT_CACHE_DIR to a writable folder" in found.stderr
    assert not [path for path in (tmp_path / "kept").rglob("*") if path.is_file()]


def test_processes_may_write_the_same_cache(mine, tmp_path):
    with ThreadPoolExecutor(3) as pool:
        found = list(pool.map(mine, ["results()"] * 3))
    assert [(run.stdout[:11], run.stderr) for run in found] == [("0 1 2 3 4 5", "")] * 3
    assert outcome(mine()) == KEPT
    assert sum(path.is_file() for path in (tmp_path / "kept").rglob("*")) == 6  # no temporary file is left


def test_everybody_may_read_what_one_has_kept(mine, tmp_path):
    """An image is warmed up by root and used by others."""
    mine("os.umask(0o022); results()")
    assert {path.stat().st_mode & 0o777 for path in tmp_path.rglob("*.nbc")} == {0o644}


def test_numba_without_its_compiler_is_refused_in_one_line(mine):
    found = mine(NUMBA_DISABLE_JIT="1")
    assert found.returncode == 1
    assert found.stderr.splitlines()[-1].startswith("fastxent.errors.ConfigError: NUMBA_DISABLE_JIT must be 0 or unset")

"""The program as a process: pipes, signals, interrupts, and kernels that are kept."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fastxent.cli import program
from tests.cli.running import DIGITS, check_failure, process

PROGRESS = r"(fastxent: (compiling|evaluating).*\n)*"  # printed where a run takes long


@pytest.fixture(autouse=True)
def no_signal_is_ignored() -> Iterator[None]:
    """Programs inherit what ``nohup`` and ``&`` have a test run ignore."""
    ignored = [n for n in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP) if signal.getsignal(n) is signal.SIG_IGN]
    for number in ignored:
        signal.signal(number, signal.SIG_DFL)
    yield
    for number in ignored:
        signal.signal(number, signal.SIG_IGN)


def test_a_closed_pipe_is_quiet() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = process("eval", DIGITS, "--format", "json", stdout=writer)
    os.close(writer)
    assert done.returncode == 0
    assert re.fullmatch(PROGRESS, done.stderr)


def test_a_full_standard_output_is_one_line() -> None:
    with open("/dev/full", "w") as full:
        done = process("eval", DIGITS, stdout=full)
    check_failure(done.returncode, "", done.stderr, r"cannot write to standard output: No space left on device")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_signal_half_way_leaves_nothing(number: signal.Signals, code: int, tmp_path: Path) -> None:
    """The process signals itself when it reports its first progress: some rows are done, and not all."""
    final = tmp_path / "out.parquet"
    source = tmp_path / "in.parquet"
    rng = np.random.default_rng(0)
    logits = pa.array(list(rng.normal(size=(20_000, 50)).astype(np.float32)))
    pq.write_table(pa.table({"logits": logits, "target": rng.integers(0, 50, 20_000)}), source, row_group_size=500)
    script = f"""
import contextlib, os, sys
from fastxent.cli import finish
from fastxent.cli.program import main
sent = []
@contextlib.contextmanager
def reporting(*_):
    def report(rows, *rest):
        if 0 < rows < 20_000 and not sent:
            sent.append(rows)
            os.kill(os.getpid(), {int(number)})
    yield report
finish.progress_bar = reporting
sys.argv[1:] = ["transform", {str(source)!r}, {str(final)!r}, "--memory", "1MB"]
main()
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=300)
    assert (done.returncode, done.stdout) == (code, ""), done.stderr
    assert done.stderr == ("fastxent: interrupted; nothing was left half-written\n" if code == 130 else "")
    assert [p.name for p in tmp_path.iterdir()] == ["in.parquet"]


@pytest.mark.parametrize(
    "module",
    [
        "fastxent.cli.program", "click", "fastxent.results.result", "fastxent.cli.commands.convert",
        "fastxent.verbs.evaluate", "numpy", "numba", "llvmlite.binding", "pyarrow", "pyarrow.parquet",
        "fastxent.kernels.rows.wide", "fastxent.state.metrics",
    ],
)  # fmt: skip
def test_an_interrupt_during_an_import_is_one_line(module: str) -> None:
    """It comes while code made from a string runs, as it does when modules define dataclasses: CPython then remembers
    an interrupt, though it is caught, and ends the process by a signal."""
    script = f"""
import sys
class Interrupting:
    def find_spec(self, name, *_):
        if name == {module!r}:
            sys.meta_path.remove(self)
            exec("import os, signal; os.kill(os.getpid(), signal.SIGINT)")
sys.meta_path.insert(0, Interrupting())
sys.argv[1:] = ["eval", {DIGITS!r}]
from fastxent.__main__ import main
main()
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=300)
    told = "fastxent: interrupted; nothing was left half-written\n"
    assert (done.returncode, done.stdout, done.stderr) == (130, "", told)


def _library_error(error: str) -> str:
    """A module that an interrupt reaches in code which turns any exception into one of its own."""
    return f"""
import os, signal
try:
    os.kill(os.getpid(), signal.SIGINT)
except BaseException as interrupt:
    raise {error} from interrupt
"""


@pytest.mark.parametrize("module", ["numba", "fastxent.cli.program", "fastxent.verbs.evaluate"])
@pytest.mark.parametrize(
    "error", ["RuntimeError('calling __set_name__')", "OSError(5, 'read')", "ImportError('numba needs NumPy')"]
)
def test_an_interrupt_that_a_library_wraps_is_one_line(module: str, error: str) -> None:
    script = f"""
import sys
class Interrupting:
    def find_spec(self, name, *_):
        if name == {module!r}:
            sys.meta_path.remove(self)
            exec({_library_error(error)!r})
sys.meta_path.insert(0, Interrupting())
sys.argv[1:] = ["eval", {DIGITS!r}]
from fastxent.__main__ import main
main()
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=300)
    told = "fastxent: interrupted; nothing was left half-written\n"
    assert (done.returncode, done.stdout, done.stderr) == (130, "", told)


def test_interrupts_at_any_moment_end_cleanly(tmp_path: Path) -> None:
    """A dozen, spread over a run from its first lines to its end: 130 and one line, or a result. Every other run is
    one that keeps its progress."""
    source = tmp_path / "in.parquet"
    rng = np.random.default_rng(0)
    logits = pa.array(list(rng.normal(size=(20_000, 8)).astype(np.float32)))
    pq.write_table(pa.table({"logits": logits, "target": rng.integers(0, 8, 20_000)}), source, row_group_size=50)
    arguments = ["eval", str(source), "--threads", "2", "--format", "json"]
    program = """
import sys
print(end=".", flush=True)
from fastxent.__main__ import main
main()
"""
    seconds, codes = 0.0, []
    for moment in [None, None, *range(1, 13)]:
        shutil.rmtree(tmp_path / "progress", ignore_errors=True)
        folder = [] if moment is None or moment % 2 else ["--resume", str(tmp_path / "progress")]
        child = subprocess.Popen([sys.executable, "-c", program, *arguments, *folder],
                                 stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)  # fmt: skip
        assert child.stdout is not None
        assert child.stdout.read(1) == "."
        start = time.monotonic()
        if moment is not None:
            time.sleep(moment / 13 * seconds)
            child.send_signal(signal.SIGINT)
        out, told = child.communicate(timeout=300)
        if moment is None:  # to its end, for how long that takes: the second time, with all kernels there
            seconds = time.monotonic() - start
        codes.append(child.returncode)
        if child.returncode == 130:
            assert out == ""
            assert re.fullmatch(PROGRESS + r"fastxent: interrupted; .*\n", told)
        else:
            assert child.returncode == 0, told
            assert re.fullmatch(PROGRESS, told)
            assert json.loads(out)["rows"]["used"] == 20_000
    assert codes[:2] == [0, 0]
    assert 130 in codes


ENDS = {  # what a program that a signal ends returns and prints
    "SIGINT": (130, "fastxent: interrupted; nothing was left half-written\n"),
    "SIGTERM": (143, ""),
    "SIGHUP": (129, ""),
}


@pytest.mark.parametrize("name", ENDS)
def test_a_signal_in_a_callback_from_c_is_not_lost(name: str) -> None:
    """ctypes prints what the handler of a signal raises in such a call, and goes on."""
    script = f"""
import contextlib, ctypes, os, signal, sys, time
from fastxent.cli import finish
from fastxent.cli.program import main
@contextlib.contextmanager
def reporting(*_):
    ctypes.CFUNCTYPE(None)(lambda: os.kill(os.getpid(), signal.{name}))()
    time.sleep(20)
    yield None
finish.progress_bar = reporting
sys.argv[1:] = ["eval", {DIGITS!r}]
main()
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=300)
    code, told = ENDS[name]
    assert (done.returncode, done.stdout, done.stderr) == (code, "", told)


@pytest.mark.parametrize("kernel", [1, 3, 5])
@pytest.mark.parametrize("name", ENDS)
def test_a_signal_while_llvm_links_a_kernel_ends_cleanly(name: str, kernel: int) -> None:
    """LLVM asks Python for the code of kernels that are kept. If what the handler raises is dropped there, it links a
    kernel without code, and its call ends the process by SIGSEGV."""
    script = f"""
import os, signal, sys, threading
from numba.core.codegen import JITCodeLibrary
ask = JITCodeLibrary._object_getbuffer_hook.__func__
asked = []
def asking(cls, module):
    if threading.current_thread() is threading.main_thread():
        asked.append(module)
        if len(asked) == {kernel}:
            os.kill(os.getpid(), signal.{name})
    return ask(cls, module)
JITCodeLibrary._object_getbuffer_hook = classmethod(asking)
sys.argv[1:] = ["eval", {DIGITS!r}, "--threads", "1"]
from fastxent.__main__ import main
main()
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=300)
    code, told = ENDS[name]
    assert (done.returncode, done.stdout, done.stderr) == (code, "", told)


def test_an_interrupt_ends_workers_that_wait_for_their_turn(tmp_path: Path) -> None:
    """One long unit in front holds the others' results back: all of them must see the interrupt, and soon."""
    source = tmp_path / "in.parquet"
    rng = np.random.default_rng(0)
    logits = pa.array(list(rng.normal(size=(40_000, 200)).astype(np.float32)))
    table = pa.table({"logits": logits, "target": rng.integers(0, 200, 40_000)})
    with pq.ParquetWriter(source, table.schema) as writer:
        writer.write_table(table.slice(0, 20_000), row_group_size=20_000)
        writer.write_table(table.slice(20_000), row_group_size=500)
    script = f"""
import os, signal, time
import fastxent as fx
stop, after = [], []
def report(rows, *rest):
    if not stop and rows > 2_000:
        stop.append(rows)
        os.kill(os.getpid(), signal.SIGINT)
    if stop:
        after.append(rows)
        time.sleep(0.01)  # time for the interrupt to be seen
options = dict(threads=4, memory="1MB", progress=report)
try:
    fx.transform({str(source)!r}, {str(tmp_path / "out.parquet")!r}, **options)
except KeyboardInterrupt:
    print(len(after))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 100  # of some 1,000 units without a stop
    assert [p.name for p in tmp_path.iterdir()] == ["in.parquet"]


def test_warmup_leaves_nothing_to_compile() -> None:
    """After it, in the same process, no evaluation of the bundled dump needs code that is not in memory."""
    script = f"""
from fastxent.cli.program import run
from fastxent.kernels import jit
assert run(["warmup"]) == 0
def load(self, *_):
    raise AssertionError(self._function.__name__)
jit._Cache.load_overload = load
assert run(["eval", {DIGITS!r}, "--format", "json"]) == 0
assert run(["eval", {DIGITS!r}, "--format", "json", "--by", "fold", "--cluster", "block", "--weight", "block"]) == 0
assert run(["eval", {DIGITS!r}, "--format", "json", "--temperature", "1.5"]) == 0
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines()[-1].startswith("fastxent: [")
    folder = Path(done.stdout.splitlines()[0])
    assert list(folder.glob("*.nbc"))


def test_warmup_with_nowhere_to_keep_kernels(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    environment = {**os.environ, "FASTXENT_CACHE_DIR": str(tmp_path / "file")}
    done = process("warmup", stdout=subprocess.PIPE, env=environment)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.splitlines()[-1].startswith("fastxent: error: cannot keep compiled kernels in ")


@pytest.mark.parametrize("interrupted", [False, True])
def test_what_an_interrupt_left_half_built_is_not_reported(interrupted: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    reported: list[object] = []
    monkeypatch.setattr(program, "interrupted", lambda: interrupted)
    monkeypatch.setattr(sys, "__unraisablehook__", reported.append)
    what = SimpleNamespace(exc_type=AttributeError, exc_value=None)
    program._unraisable(what)  # type: ignore[arg-type]
    assert reported == ([] if interrupted else [what])

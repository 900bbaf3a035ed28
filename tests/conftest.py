"""The profile of property tests, one compilation of each kernel, and the program called in this process."""

from __future__ import annotations

import fcntl
import gc
import hashlib
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from tests.cli.running import Cli

# None depends on a clock, as machines are busy and first calls compile.
settings.register_profile("fastxent", deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("fastxent")
ROOT = Path(__file__).parent


def pytest_configure() -> None:
    if "PYTEST_XDIST_WORKER" in os.environ:
        _compile_once()


def _compile_once() -> None:
    """Let the processes of a parallel run compile each kernel once: one that needs a kernel which another is compiling
    waits, and loads it.

    Locked are bytes of this file, one for each kernel. A process takes them behind its own lock of the compiler, and
    callees after callers, so that no two wait for each other.
    """
    from numba.core.compiler_lock import global_compiler_lock
    from numba.core.dispatcher import Dispatcher

    from fastxent.kernels.jit import _Cache

    compile_kernel = Dispatcher.compile
    file = open(__file__, "r+b")  # noqa: SIM115 (open as long as the process)

    def compile_once(self: Any, sig: Any) -> Any:
        with global_compiler_lock:
            if not isinstance(self._cache, _Cache):
                return compile_kernel(self, sig)
            name = self._cache._path(sig, self.targetctx).name
            at = int.from_bytes(hashlib.sha256(name.encode()).digest()[:6])
            fcntl.lockf(file, fcntl.LOCK_EX, 1, at)
            try:
                return compile_kernel(self, sig)
            finally:
                fcntl.lockf(file, fcntl.LOCK_UN, 1, at)

    Dispatcher.compile = compile_once


@pytest.fixture(scope="module", autouse=True)
def _freeze() -> None:
    """Spare the garbage collector what files before this one have left: millions of objects of the compiler, which each
    collection would look through."""
    gc.collect()
    gc.freeze()


SLOW = (
    "functions/test_memory.py", "functions/test_functional.py", "functions/test_same_bits.py",
    "verbs/test_transform.py", "kernels/test_processors.py", "io/parquet/test_fuzz.py", "verbs/test_evaluate.py",
    "kernels/test_rows.py", "cli/test_processes.py", "engine/test_resume.py",
)  # fmt: skip


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files that take long, so that no process is left with one of them at the end."""
    places = {ROOT / name: k for k, name in enumerate(SLOW)}
    items.sort(key=lambda item: places.get(item.path, len(places)))


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> Cli:
    """Runs a command line in this process: exit code, stdout, stderr."""
    from fastxent.cli.program import run

    def call(*arguments: object) -> tuple[int, str, str]:
        code = run([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call

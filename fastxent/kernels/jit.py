"""The one Numba policy: how every kernel of fastxent is compiled and where its code is kept.

* serial and ``nogil``: threads belong to the caller (a pool), never to a kernel;
* no fast-math: answers depend on NaN, infinities and the order of additions;
* no bounds checks: what reaches a kernel has been proven in range by its launcher;
* division follows IEEE (``error_model="numpy"``) and kernels raise nothing: they return codes;
* lazily compiled, and cached on disk under a name that holds a hash of the function's file, of every file with
  compiled code that it imports, directly or not, and of the versions of the package and of Numba. So the cache can
  never serve the code of other sources. Numba's own stamp looks only at the file of the outermost function and would
  miss an edit in a helper.

The cache has one file per specialisation, written under a temporary name and renamed: a checksum, and a pickled compile
result. A file that is missing, damaged or unreadable is a cache miss, and is written anew. A folder that cannot be
written is still read; the first kernel that cannot be kept there costs one warning.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import gc
import hashlib
import os
import pickle
import re
import sys
import tempfile
import uuid
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import llvmlite
import numba
import numpy
from numba.core import caching
from numba.core.compiler import CompileResult
from numba.core.dispatcher import Dispatcher
from numba.core.runtime import rtsys
from numba.core.serialize import dumps
from numba.core.sigutils import normalize_signature
from numba.core.types.misc import unliteral

from fastxent._version import __version__
from fastxent.errors import ConfigError, OutputError
from fastxent.kernels.compiler import Compiler
from fastxent.kernels.signals import held, hold_while_linking

if numba.config.DISABLE_JIT:
    raise ConfigError("NUMBA_DISABLE_JIT must be 0 or unset, got 1: kernels use instructions that Python does not have")

hold_while_linking()

_PACKAGE = Path(__file__).resolve().parent.parent
_VERSIONS = sys.implementation.cache_tag, getattr(sys, "abiflags", ""), numpy.__version__, llvmlite.__version__
_SETTINGS = numba.config.OPT, numba.config.BOUNDSCHECK, numba.config.DEBUGINFO_DEFAULT  # by which code differs

_COMPILES = re.compile(rb"^\s*from fastxent\.kernels\.jit import .*\b(?:jit|brief|bare|inline)\b", re.MULTILINE)
_IMPORTS = re.compile(rb"^[ \t]*from (fastxent[\w.]*) import (\([^)]*\)|[^\n#]*)", re.MULTILINE)


@functools.cache
def compiled_sources() -> frozenset[Path]:
    """Every file that may hold compiled code: those of ``kernels``, and others that compile functions."""
    return frozenset(filter(_compiles, _PACKAGE.rglob("*.py")))


@functools.cache
def _compiles(path: Path) -> bool:
    """Whether a path of the package is a file that may hold compiled code."""
    if path.is_relative_to(_PACKAGE / "kernels"):
        return path.is_file()
    return path.is_file() and _COMPILES.search(path.read_bytes()) is not None


@functools.cache
def _imported(path: Path) -> frozenset[Path]:
    """The files with compiled code that a file of the package imports."""
    found = set()
    for module, names in _IMPORTS.findall(path.read_bytes()):
        folder = _PACKAGE.parent.joinpath(*module.decode().split("."))
        for name in (None, *re.findall(r"\w+", names.decode())):
            at = folder if name is None else folder / name
            found |= {at.with_suffix(".py"), at / "__init__.py"}
    return frozenset(filter(_compiles, found))


@functools.cache
def sources_of(path: Path) -> tuple[Path, ...]:
    """The files that the compiled code of a file depends on: its own, and those it imports, directly or not."""
    found, left = set(), {path}
    while left:
        found |= left
        left = set().union(*map(_imported, left)) - found
    return tuple(sorted(found))


@functools.cache
def source_stamp(path: Path) -> str:
    """Hash of the versions of Numba and of the package, and of all that the compiled code of a file depends on."""
    digest = hashlib.sha256(numba.__version__.encode())
    digest.update((_PACKAGE / "_version.py").read_bytes())
    inside = path.is_relative_to(_PACKAGE)
    for source in sources_of(path) if inside else (path, *sorted(compiled_sources())):
        # Benchmarks and tests have kernels too. Their folders do not count.
        name = source.relative_to(_PACKAGE).as_posix() if source.is_relative_to(_PACKAGE) else source.name
        digest.update(name.encode())
        digest.update(source.read_bytes())
    return digest.hexdigest()


def cache_directory() -> Path:
    """Return the folder of compiled kernels, which may not exist yet.

    ``FASTXENT_CACHE_DIR`` wins, then ``NUMBA_CACHE_DIR``, then the user's cache folder.

    Raises:
        FileNotFoundError: the user has no home folder.
    """
    chosen = os.environ.get("FASTXENT_CACHE_DIR") or os.environ.get("NUMBA_CACHE_DIR")
    try:
        if chosen:
            base = Path(chosen)
        elif sys.platform == "win32":
            base = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
        elif sys.platform == "darwin":
            base = Path.home() / "Library" / "Caches"
        else:
            base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    except RuntimeError:
        raise FileNotFoundError(errno.ENOENT, "there is no home folder") from None
    return base / "fastxent" / __version__


def writable_cache() -> Path:
    """Create the folder of compiled kernels and return it.

    Raises:
        OutputError: nothing can be written there.
    """
    try:
        folder = cache_directory()
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise OutputError(_unkept(error)) from None
    return folder


def _unkept(error: OSError) -> str:
    """Say that kernels cannot be kept: one line for all that are not, whatever their names."""
    try:
        where = f" in {str(cache_directory())!r}"
    except FileNotFoundError:
        where = ""
    return (
        f"cannot keep compiled kernels{where}: {error.strerror or error}; set FASTXENT_CACHE_DIR to a writable folder"
    )


@functools.cache
def _warn(message: str) -> None:
    """Warn once in a process. Where warnings are errors, write the line instead: raised in a compilation, a warning
    would leave Numba as an error in the kernel."""
    try:
        warnings.warn(message, RuntimeWarning, stacklevel=2)
    except RuntimeWarning:
        print(f"fastxent: warning: {message}", file=sys.stderr)


def _closure(function: Callable[..., Any]) -> tuple[Any, ...] | None:
    """What tells a function from others of the same source: plain values it was made with, and such functions."""
    parts: list[Any] = [f"{function.__module__}.{function.__qualname__}"]
    for cell in function.__closure__ or ():
        value = cell.cell_contents
        part = _closure(value.py_func) if isinstance(value, Dispatcher) else _plain(value)
        if part is None:
            return None
        parts.append(part)
    return tuple(parts)


def _files(function: Callable[..., Any]) -> list[Path]:
    """The file of a function, and those of the functions that it was made with."""
    cells = [cell.cell_contents for cell in function.__closure__ or ()]
    made_with = [file for value in cells if isinstance(value, Dispatcher) for file in _files(value.py_func)]
    return [Path(function.__code__.co_filename).resolve(), *made_with]


def _plain(value: Any) -> tuple[str, ...] | None:
    """A value whose text says all about it, as text; None for any other."""
    if isinstance(value, tuple):
        items = [_plain(item) for item in value]
        return None if None in items else ("tuple", *map(repr, items))
    return (repr(value),) if value is None or isinstance(value, bool | int | float | str) else None


class _Cache(caching.NullCache):  # type: ignore[misc]
    """The compiled code of one function on disk, as Numba asks for it: a file for each signature and processor."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function

    def _path(self, sig: Any, target_context: Any) -> Path:
        """Return the file of a specialisation, named after all that its code depends on."""
        function = self._function
        names = function.__module__, function.__qualname__, function.__code__.co_firstlineno
        stamps = [source_stamp(path) for path in _files(function)]
        key = repr((names, stamps, sig, target_context.codegen().magic_tuple(), _VERSIONS, _SETTINGS))
        return cache_directory() / f"{self._function.__name__}-{hashlib.sha256(key.encode()).hexdigest()[:32]}.nbc"

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        with held():  # what a handler raises is no fault of an entry
            return self._load(sig, target_context)

    def _load(self, sig: Any, target_context: Any) -> Any:
        rtsys.initialize(target_context)  # symbols that kernels use; `refresh` would import half of Numba, and SciPy
        try:
            path = self._path(sig, target_context)
            kept = path.read_bytes()
            checksum, content = kept[:_CHECKSUM], kept[_CHECKSUM:]
            if checksum == _checksum(path, content):
                args, parts = pickle.loads(content)  # noqa: S301 (own)
                if args == normalize_signature(sig)[0]:  # types may share a name: named tuples
                    return CompileResult._rebuild(target_context, *parts)
        except Exception:  # noqa: BLE001 (whatever is wrong with an entry, the kernel can be compiled)
            pass
        return None

    def save_overload(self, sig: Any, cres: Any) -> None:
        if cres.library.has_dynamic_globals:
            return
        try:
            path = self._path(sig, cres.target_context)
            path.parent.mkdir(parents=True, exist_ok=True)
            content = dumps((cres.signature.args, cres._reduce()))
            draft = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")
            try:
                draft.write_bytes(_checksum(path, content) + content)
                os.replace(draft, path)
            finally:
                with contextlib.suppress(OSError):
                    draft.unlink()
        except OSError as error:
            _warn(_unkept(error))


_CHECKSUM = hashlib.sha256().digest_size


def _checksum(path: Path, content: bytes) -> bytes:
    """Checksum of an entry and of its name, so that no file is taken for another."""
    return hashlib.sha256(path.name.encode() + content).digest()


# What is not said here, a function would take over from the one whose compilation asks for it first.
_POLICY = {
    "nogil": True, "error_model": "numpy", "boundscheck": False, "_nrt": True,
    "no_cfunc_wrapper": True, "pipeline_class": Compiler,
}  # fmt: skip


def jit(function: Callable[..., Any], **options: Any) -> Any:
    """Compile a kernel, or a helper that kernels call, under the policy above.

    A function that was made with values (a closure) is named after them. Numba tells machine code apart by qualified
    name, argument types and a count of what the process has compiled. Code kept by another process brings along that
    process's count, and of two symbols of one name the first is run: softmax would be log-softmax, both being
    ``emit_kernel.<locals>.kernel``.

    A call with constants, such as ``f(x, 0)``, takes the code of ``f(x, i)``. Numba would compile a specialisation for
    each constant, whose value its code does not use.

    options: of Numba, beside those of the policy.
    """
    made_of = _closure(function)
    if made_of is None and Path(function.__code__.co_filename).is_relative_to(_PACKAGE):
        raise TypeError(f"{function.__qualname__} could not be kept: make it with numbers, text and compiled functions")
    if function.__closure__:
        mark = uuid.uuid4().hex if made_of is None else hashlib.sha256(repr(made_of).encode()).hexdigest()
        function.__qualname__ += f"_{mark[:16]}"
    dispatcher = numba.njit(**{**_POLICY, **options})(function)
    template = dispatcher.get_call_template  # called by the compiler of a caller, with types that name a constant
    dispatcher.get_call_template = lambda args, kws: template([unliteral(arg) for arg in args], kws)
    dispatcher.compile = _without_collector(dispatcher.compile)
    if made_of is not None and os.path.isfile(function.__code__.co_filename):  # else nothing tells two versions apart
        dispatcher._cache = _Cache(function)
    return dispatcher


def _without_collector(compile_function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile while the garbage collector waits. It would look through the compiler's objects again and again, which
    takes a seventh of the time, and find next to nothing."""

    def compile_function_quickly(signature: Any) -> Any:
        enabled = gc.isenabled()
        gc.disable()
        try:
            return compile_function(signature)
        finally:
            if enabled:
                gc.enable()

    return compile_function_quickly


def brief(function: Callable[..., Any]) -> Any:
    """`jit` for a few microseconds of work, which keeps the interpreter lock: to wait for it again takes longer."""
    return jit(function, nogil=False)


def bare(function: Callable[..., Any]) -> Any:
    """`jit` for many small functions that pass arrays on, which neither allocate nor return arrays: no references are
    counted. Numba's counts are atomic additions, some ten nanoseconds each time an array is unpacked from a tuple."""
    return jit(function, _nrt=False)


def inline(function: Callable[..., Any]) -> Any:
    """A helper whose body is copied into each caller: for a few lines of arithmetic."""
    return numba.njit(nogil=True, error_model="numpy", boundscheck=False, inline="always")(function)

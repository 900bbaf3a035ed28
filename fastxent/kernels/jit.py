"""The one Numba policy: how every kernel of fastxent is compiled and where its code is kept.

* serial and ``nogil``: threads belong to the caller (a pool), never to a kernel;
* no fast-math: answers depend on NaN, infinities and the order of additions;
* no bounds checks: what reaches a kernel has been proven in range by its launcher;
* division follows IEEE (``error_model="numpy"``) and kernels raise nothing: they return codes;
* lazily compiled, and cached on disk under a name that holds a hash of all kernel sources and the
  package version, so a cache can never serve the code of another version. Numba's own stamp looks
  only at the file of the outermost function and would miss an edit in a helper.

A cache that cannot be written is no error: the code is compiled anew and one warning says so.
"""

from __future__ import annotations

import functools
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

import numba
from numba.core import caching
from numba.core.dispatcher import Dispatcher

_PACKAGE = Path(__file__).resolve().parent.parent

on_compile: Callable[[str], None] | None = None  # called with the name of each function that is about to be compiled

_COMPILES = re.compile(rb"^\s*from fastxent\.kernels\.jit import .*\b(?:jit|brief|inline)\b", re.MULTILINE)


@functools.cache
def compiled_sources() -> tuple[Path, ...]:
    """Every file that may hold compiled code: those of ``kernels``, and others that compile functions."""
    kernels = _PACKAGE / "kernels"
    found = (p for p in _PACKAGE.rglob("*.py") if p.is_relative_to(kernels) or _COMPILES.search(p.read_bytes()))
    return tuple(sorted(found))


@functools.cache
def source_stamp() -> str:
    """Hash of the versions of Numba and of the package, and of every file that may hold compiled code."""
    digest = hashlib.sha256(numba.__version__.encode())
    for path in (_PACKAGE / "_version.py", *compiled_sources()):
        digest.update(path.relative_to(_PACKAGE).as_posix().encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()[:20]


@functools.cache
def cache_directory() -> Path | None:
    """The folder compiled kernels are kept in, or None (said once) where none can be written.

    ``FASTXENT_CACHE_DIR`` wins, then ``NUMBA_CACHE_DIR``, then the user's cache folder.
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
        folder = base / "fastxent" / source_stamp()
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except (OSError, RuntimeError) as error:  # RuntimeError: no home directory
        warnings.warn(
            f"fastxent cannot keep compiled kernels ({error}); each process compiles them anew. "
            "Set FASTXENT_CACHE_DIR to a writable folder.",
            RuntimeWarning,
            stacklevel=2,
        )
        return None
    return folder


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


def _plain(value: Any) -> tuple[str, ...] | None:
    """A value whose text says all about it, as text; None for any other."""
    if isinstance(value, tuple):
        items = [_plain(item) for item in value]
        return None if None in items else ("tuple", *map(repr, items))
    return (repr(value),) if value is None or isinstance(value, bool | int | str) else None


class _Locator(caching._CacheLocator):  # type: ignore[misc]
    """Tells Numba's cache where to write and what makes an entry stale."""

    def __init__(self, py_func: Callable[..., Any]) -> None:
        self._name = f"{py_func.__module__}.{py_func.__qualname__}:{py_func.__code__.co_firstlineno}"
        self._file = Path(py_func.__code__.co_filename)

    def get_cache_path(self) -> str:
        return str(cache_directory())

    def get_source_stamp(self) -> str:
        """That of the package's kernels; and of its own file, where a function is none of them (benchmarks, tests)."""
        if self._file.is_relative_to(_PACKAGE):
            return source_stamp()
        try:
            return source_stamp() + hashlib.sha256(self._file.read_bytes()).hexdigest()
        except OSError:  # typed in: nothing tells one version from another
            return source_stamp() + uuid.uuid4().hex

    def get_disambiguator(self) -> str:
        return hashlib.sha256(self._name.encode()).hexdigest()[:10]

    @classmethod
    def from_function(cls, py_func: Callable[..., Any], py_file: str) -> _Locator:
        return cls(py_func)


class _Impl(caching.CompileResultCacheImpl):  # type: ignore[misc]
    def __init__(self, py_func: Callable[..., Any]) -> None:
        self._lineno = py_func.__code__.co_firstlineno
        self._locator = _Locator(py_func)
        self._filename_base = self.get_filename_base(py_func.__name__, getattr(sys, "abiflags", ""))


class _Cache(caching.FunctionCache):  # type: ignore[misc]
    """Numba's function cache, for which a damaged or full disk is a miss and never an error."""

    _impl_class = _Impl

    def _index_key(self, sig: Any, codegen: Any) -> Any:
        """Numba's, but a kernel that a kernel was made with counts by what it was made of, not by its identity, which
        is another in every process. The sources are part of the stamp."""
        made_of = _closure(self._py_func)
        if made_of is None:
            return super()._index_key(sig, codegen)
        return sig, codegen.magic_tuple(), made_of

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        try:
            return super().load_overload(sig, target_context)
        except (OSError, EOFError, pickle.UnpicklingError, ValueError, TypeError, AttributeError, KeyError, IndexError):
            return None

    def save_overload(self, sig: Any, data: Any) -> None:
        try:
            super().save_overload(sig, data)
        except OSError as error:
            warnings.warn(f"fastxent could not keep a compiled kernel: {error}", RuntimeWarning, stacklevel=2)


class _LazyCache(caching.NullCache):  # type: ignore[misc]
    """Stands in until the first compilation, so that importing a kernel touches no disk."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function

    @functools.cached_property
    def _cache(self) -> Any:
        return _Cache(self._function) if cache_directory() else caching.NullCache()

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        kept = self._cache.load_overload(sig, target_context)
        if kept is None and on_compile is not None:
            on_compile(self._function.__name__)
        return kept

    def save_overload(self, sig: Any, cres: Any) -> None:
        self._cache.save_overload(sig, cres)


def _name_apart(function: Callable[..., Any]) -> None:
    """Name a function after the values it was made with.

    Numba tells machine code apart by qualified name, argument types and a count of what the process has compiled. Code
    kept by another process brings along that process's count, and of two symbols of one name the first is run: softmax
    would be log-softmax, both being ``emit_kernel.<locals>.kernel``.
    """
    if function.__closure__:
        made_of = _closure(function)
        mark = uuid.uuid4().hex if made_of is None else hashlib.sha256(repr(made_of).encode()).hexdigest()
        function.__qualname__ += f"_{mark[:16]}"


def jit(function: Callable[..., Any], nogil: bool = True) -> Any:
    """Compile a kernel, or a helper that kernels call, under the policy above."""
    _name_apart(function)
    dispatcher = numba.njit(nogil=nogil, error_model="numpy", boundscheck=False)(function)
    dispatcher._cache = _LazyCache(function)
    return dispatcher


def brief(function: Callable[..., Any]) -> Any:
    """`jit` for a few microseconds of work, which keeps the interpreter lock: to wait for it again takes longer."""
    return jit(function, nogil=False)


def inline(function: Callable[..., Any]) -> Any:
    """A helper whose body is copied into each caller: for a few lines of arithmetic."""
    return numba.njit(nogil=True, error_model="numpy", boundscheck=False, inline="always")(function)

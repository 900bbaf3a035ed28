"""The stamp of the kernel cache: no file that holds compiled code may be outside it, or old code would be served."""

import ast
import importlib
import pkgutil
import sys
from pathlib import Path
from types import ModuleType

from numba.core.dispatcher import Dispatcher

import fastxent
from fastxent.kernels import jit

PACKAGE = Path(fastxent.__file__).resolve().parent
OPTIONAL = {"fastxent.__main__"}  # runs the program


def modules():
    names = [info.name for info in pkgutil.walk_packages(fastxent.__path__, "fastxent.")]
    return [importlib.import_module(name) for name in names if name not in OPTIONAL]


def compiled(module):
    """The functions that a module compiles, those that are copied into their callers included."""
    return [
        value
        for value in vars(module).values()
        if isinstance(value, Dispatcher) and value.__module__ == module.__name__
    ]


def test_every_compiled_function_is_in_a_stamped_file():
    stamped = set(jit.compiled_sources())
    found = {
        Path(function.py_func.__code__.co_filename).resolve() for module in modules() for function in compiled(module)
    }
    assert len(found) > 10
    assert found <= stamped


def test_what_compiled_functions_take_from_elsewhere_is_stamped():
    """Numba freezes a global when it compiles: a constant of a file outside the stamp could change unseen."""
    stamped = set(jit.compiled_sources())
    for module in modules():
        used = {name for function in compiled(module) for name in function.py_func.__code__.co_names}
        for node in ast.walk(ast.parse(Path(module.__file__).read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("fastxent"):
                for alias in node.names:
                    if (alias.asname or alias.name) in used:
                        taken = getattr(sys.modules[node.module], alias.name)
                        origin = taken if isinstance(taken, ModuleType) else sys.modules[node.module]
                        assert Path(origin.__file__).resolve() in stamped, f"{module.__name__}: {alias.name}"


def test_the_stamp_follows_sub_packages(tmp_path, monkeypatch):
    """Two files of one name in different folders count apart, and so does a file that moves."""
    package = tmp_path / "fastxent"
    (package / "kernels" / "deep").mkdir(parents=True)
    (package / "io" / "deep").mkdir(parents=True)
    (package / "_version.py").write_text("__version__ = '0'")
    source = "from fastxent.kernels.jit import jit\n"
    (package / "io" / "deep" / "a.py").write_text(source)
    (package / "kernels" / "deep" / "b.py").write_text("")
    (package / "io" / "plain.py").write_text("import os\n")
    monkeypatch.setattr(jit, "_PACKAGE", package)

    def stamp():
        jit.compiled_sources.cache_clear()
        jit.source_stamp.cache_clear()
        return jit.source_stamp()

    try:
        first = stamp()
        (package / "io" / "plain.py").write_text("import sys\n")
        assert stamp() == first
        (package / "kernels" / "deep" / "b.py").write_text("x = 1\n")
        second = stamp()
        assert second != first
        (package / "io" / "deep" / "a.py").rename(package / "io" / "a.py")
        assert stamp() not in (first, second)
    finally:
        monkeypatch.undo()
        stamp()

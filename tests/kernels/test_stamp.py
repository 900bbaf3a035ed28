"""The stamp of the kernel cache: no file that holds compiled code may be outside it, or old code would be served."""

import ast
import importlib
import pkgutil
import sys
from pathlib import Path
from types import ModuleType

import pytest
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
    taken_from = 0
    for module in modules():
        functions = compiled(module)
        stamped = set(jit.sources_of(Path(module.__file__).resolve())) if functions else set()
        used = {name for function in functions for name in function.py_func.__code__.co_names}
        for node in ast.walk(ast.parse(Path(module.__file__).read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("fastxent"):
                for alias in node.names:
                    if (alias.asname or alias.name) in used:
                        taken = getattr(sys.modules[node.module], alias.name)
                        origin = taken if isinstance(taken, ModuleType) else sys.modules[node.module]
                        assert Path(origin.__file__).resolve() in stamped, f"{module.__name__}: {alias.name}"
                        taken_from += 1
    assert taken_from > 100


def test_files_with_compiled_code_import_the_package_in_the_one_way_that_the_stamp_reads():
    """Their imports as the parser of Python sees them: an import in another form would be outside the stamp."""
    for path in jit.compiled_sources():
        found = set()
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                assert not any(alias.name.startswith("fastxent") for alias in node.names), path
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0, path
                if node.module.split(".")[0] == "fastxent":
                    names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
                    found |= {Path(sys.modules[name].__file__).resolve() for name in names if name in sys.modules}
        assert found & jit.compiled_sources() <= set(jit.sources_of(path)), path


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package of its own, of which the stamp is taken."""
    root = tmp_path / "fastxent"
    for folder in ("kernels/deep", "io/deep"):
        (root / folder).mkdir(parents=True)
    (root / "_version.py").write_text("__version__ = '0'")
    monkeypatch.setattr(jit, "_PACKAGE", root)
    yield root
    monkeypatch.undo()
    forget()


def forget():
    for known in (jit.compiled_sources, jit._compiles, jit._imported, jit.sources_of, jit.source_stamp):
        known.cache_clear()


def stamp_of(path):
    forget()
    return jit.source_stamp(path)


COMPILES = "from fastxent.kernels.jit import jit\n"


def test_the_stamp_follows_imports(package):
    """Through modules, names, several lines and sub-packages; files that are not imported do not count."""
    top = package / "io" / "deep" / "a.py"
    middle, low, other = (package / "kernels" / name for name in ("middle.py", "deep/low.py", "other.py"))
    top.write_text(COMPILES + "from fastxent.kernels import (\n    middle,\n)\n")
    middle.write_text("    from fastxent.kernels.deep.low import x  # lazily\n")
    for path in (low, other, package / "io" / "plain.py"):
        path.write_text("x = 1\n")
    first = stamp_of(top)
    other.write_text("x = 2\n")
    (package / "io" / "plain.py").write_text("x = 2\n")
    assert stamp_of(top) == first
    low.write_text("x = 2\n")
    second = stamp_of(top)
    assert second != first
    low.rename(package / "kernels" / "low.py")
    middle.write_text("    from fastxent.kernels.low import x  # lazily\n")
    assert stamp_of(top) not in (first, second)


def test_files_that_import_each_other_have_a_stamp(package):
    a, b = package / "kernels" / "a.py", package / "kernels" / "b.py"
    a.write_text("from fastxent.kernels.b import x\n")
    b.write_text("from fastxent.kernels import a\n")
    assert jit.sources_of(a) == jit.sources_of(b) == (a, b)


def test_a_file_elsewhere_depends_on_all_compiled_code(package, tmp_path):
    mine, kernel = tmp_path / "mine.py", package / "kernels" / "a.py"
    mine.write_text("")
    kernel.write_text("x = 1\n")
    first = stamp_of(mine)
    kernel.write_text("x = 2\n")
    second = stamp_of(mine)
    mine.write_text("y = 1\n")
    assert len({first, second, stamp_of(mine)}) == 3


def test_a_function_made_with_another_depends_on_its_file(tmp_path):
    """A factory may be given a compiled function that its own file does not import."""
    from fastxent.kernels.exact import exact_add

    def make(helper):
        return lambda x: helper(x)

    files = jit._files(make(exact_add))
    assert files == [Path(__file__).resolve(), Path(exact_add.py_func.__code__.co_filename).resolve()]

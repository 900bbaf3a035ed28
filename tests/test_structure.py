"""The structure of the package: imports run one way, no files import each other in a circle, parts are small.

Every import counts, those inside functions and those for types too. The order of the packages stands in `ORDER`; it is
the order of the flow in docs/how-it-works.md.
"""

import ast
from collections import defaultdict
from pathlib import Path

import fastxent

PACKAGE = Path(fastxent.__file__).resolve().parent
ORDER = (
    ("__init__", "__main__"),
    ("cli",),
    ("verbs", "functions"),
    ("engine",),
    ("state",),
    ("scoring",),
    ("results",),
    ("io",),
    ("kernels",),
    ("options",),
    ("errors",),
    ("names", "_version"),
)
ROOT_ENTRIES = 12  # besides dunder files and py.typed
POSITIONAL = 8  # parameters of a function at most, self not counted
FUNCTION, KERNEL = 80, 120  # lines of a function at most, docstrings not counted
FILE, TESTS = 420, 500  # lines of a file at most


def module_of(path):
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return parts[:-1] if len(parts) > 1 and parts[-1] == "__init__" else parts


MODULES = {module_of(path): path for path in PACKAGE.rglob("*.py")}


def imported(path):
    """The modules of the package that a file imports, and the line of each import."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: a relative import"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            top, *parts = name.split(".")
            if top == "fastxent":
                while parts and tuple(parts) not in MODULES:
                    parts.pop()  # a name of the module before it
                yield tuple(parts) or ("__init__",), node.lineno


def layer(module):
    return next(place for place, names in enumerate(ORDER) if module[0] in names)


def test_every_package_has_its_place():
    entries = {path.stem for path in PACKAGE.iterdir() if not path.name.startswith("__") and path.name != "py.typed"}
    assert entries - {"_version"} == {name for names in ORDER for name in names} - {"__init__", "__main__", "_version"}
    assert len(entries - {"_version"}) <= ROOT_ENTRIES


def test_imports_run_one_way():
    upward = []
    for module, path in MODULES.items():
        for other, line in imported(path):
            if other[0] not in (module[0], "__init__") and layer(other) <= layer(module):
                upward.append(f"{path.relative_to(PACKAGE)}:{line} imports {'.'.join(other)}")
    assert not upward, "\n".join(upward)


def test_no_files_import_each_other_in_a_circle():
    arrows = defaultdict(set)
    for module, path in MODULES.items():
        arrows[module] = {other for other, _ in imported(path) if other != module}
    done, trail = set(), []

    def visit(module):
        if module in trail:
            circle = [".".join(name) for name in [*trail[trail.index(module) :], module]]
            raise AssertionError("a circle of imports: " + " -> ".join(circle))
        if module not in done:
            trail.append(module)
            for other in sorted(arrows[module]):
                visit(other)
            trail.pop()
            done.add(module)

    for module in sorted(MODULES):
        visit(module)


def outsized(path, root):
    """What of a file is over a limit, a line each."""
    text = path.read_text(encoding="utf-8")
    in_tests, in_kernels = root.name == "tests", "kernels" in path.relative_to(root).parts
    if len(text.splitlines()) > (TESTS if in_tests else FILE):
        yield f"{path}: {len(text.splitlines())} lines"
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            names = [argument.arg for argument in (*node.args.posonlyargs, *node.args.args)]
            count = len(names) - (names[:1] in (["self"], ["cls"]))
            docstring = ast.get_docstring(node, clean=False)
            lines = node.end_lineno - node.lineno + 1 - (len(docstring.splitlines()) if docstring else 0)
            if count > POSITIONAL:
                yield f"{path}:{node.lineno} {node.name}: {count} positional parameters"
            if lines > (KERNEL if in_kernels else FUNCTION):
                yield f"{path}:{node.lineno} {node.name}: {lines} lines"


def test_functions_and_files_are_small():
    tests = Path(__file__).resolve().parent
    found = [line for root in (PACKAGE, tests) for path in sorted(root.rglob("*.py")) for line in outsized(path, root)]
    assert not found, "\n".join(found)

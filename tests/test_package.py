"""The package as it is installed: light to import, at home anywhere, and true to what it says of itself."""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import fastxent as fx

PACKAGE = Path(fx.__file__).parent
HEAVY = ("numba", "pyarrow", "scipy", "numpy", "rich", "sklearn", "torch")


def python(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run code in a new interpreter with nothing in its environment but PATH and what is given."""
    return subprocess.run(
        [sys.executable, "-W", "always", "-c", code],
        env={"PATH": os.environ["PATH"], **environment},
        capture_output=True,
        text=True,
        timeout=300,
    )


@pytest.mark.parametrize("module", ["fastxent", "fastxent.cli.program", "fastxent.errors", "fastxent.options.config"])
def test_import_is_light(module: str) -> None:
    done = python(f"import sys, {module}; print(*sorted({set(HEAVY)!r} & set(sys.modules)))")
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, "", "")


def test_help_is_light() -> None:
    for arguments in (["--help"], ["eval", "--help"], ["--version"]):
        code = f"import sys; from fastxent.cli.program import run; code = run({arguments!r}); "
        code += f"sys.exit(code or bool({set(HEAVY)!r} & set(sys.modules)))"
        done = python(code)
        assert (done.returncode, done.stderr) == (0, "")


def test_evaluate_imports_no_pandas() -> None:
    """pyarrow does, on its own, for some calls; it takes a third of a second."""
    dump = PACKAGE.parent / "examples" / "digits.parquet"
    code = f"import sys, fastxent as fx; fx.evaluate({str(dump)!r}, by='fold', cluster='block', id='id')"
    done = python(f"{code}; print('pandas' in sys.modules)", HOME=os.environ["HOME"])
    assert (done.returncode, done.stdout.strip()) == (0, "False")


def test_version_is_the_installed_one() -> None:
    assert fx.__version__ == importlib.metadata.version("fastxent")


def test_every_public_name_resolves() -> None:
    for name in fx.__all__:
        assert getattr(fx, name) is not None
    assert set(dir(fx)) == set(fx.__all__)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'cross_entorpy'"):
        _ = fx.cross_entorpy  # type: ignore[attr-defined]


def test_no_module_has_the_name_of_a_public_function() -> None:
    """The import system binds a submodule as an attribute of its package, over whatever stands there."""
    assert not {path.stem for path in PACKAGE.iterdir()} & set(fx.__all__) - {"__version__"}


def test_the_types_are_shipped() -> None:
    assert (PACKAGE / "py.typed").is_file()


def test_every_file_beside_the_modules_is_packaged() -> None:
    """An editable install reads the templates of the report from the source tree; a wheel has the declared files."""
    project = PACKAGE.parent / "pyproject.toml"
    if not project.is_file():
        pytest.skip("the package is not read from its source tree")
    patterns = tomllib.loads(project.read_text())["tool"]["setuptools"]["package-data"]["fastxent"]
    packaged = {path for pattern in patterns for path in PACKAGE.glob(pattern)}
    files = {path for path in PACKAGE.rglob("*") if path.is_file() and "__pycache__" not in path.parts}
    assert {path for path in files if path.suffix != ".py"} <= packaged


# One of the functions that compile least, and yet more than one kernel
LOSS = "import fastxent as fx; print(fx.binary_cross_entropy_with_logits([0.0], [1]))"


@pytest.fixture(scope="module")
def read_only_install(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the package in which nobody may write (as far as that binds the user running this)."""
    folder = tmp_path_factory.mktemp("site")
    shutil.copytree(PACKAGE, folder / "fastxent", ignore=shutil.ignore_patterns("__pycache__", "*.nbi", "*.nbc"))
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o555 if path.is_dir() else 0o444)
    return folder


def test_a_read_only_install_keeps_its_kernels_elsewhere(read_only_install: Path, tmp_path: Path) -> None:
    before = sorted(read_only_install.rglob("*"))
    done = python(LOSS, PYTHONPATH=str(read_only_install), XDG_CACHE_HOME=str(tmp_path), PYTHONDONTWRITEBYTECODE="1")
    assert (done.returncode, done.stderr) == (0, "")
    assert float(done.stdout) == pytest.approx(0.6931471805599453)
    assert sorted(read_only_install.rglob("*")) == before
    assert list(tmp_path.rglob("*.nbc")), "the kernels were not kept"


@pytest.mark.parametrize("place", ["a file", "/proc/nowhere"])
def test_an_unwritable_cache_costs_one_warning(place: str, tmp_path: Path) -> None:
    """Not by permissions, which do not bind root: a folder cannot be made below a file, nor in /proc."""
    (tmp_path / "a file").touch()
    folder = place if place.startswith("/") else str(tmp_path / place)
    done = python(LOSS, HOME=str(tmp_path), FASTXENT_CACHE_DIR=folder)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) == pytest.approx(0.6931471805599453)
    assert done.stderr.count("RuntimeWarning") == 1
    assert "cannot keep compiled kernels" in done.stderr
    assert "set FASTXENT_CACHE_DIR to a writable folder" in done.stderr


def test_no_home_at_all(tmp_path: Path) -> None:
    code = "import pathlib\ndef no_home(*_): raise RuntimeError('Could not determine home directory.')\n"
    code += f"pathlib.Path.home = no_home\n{LOSS}"
    done = python(code)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) == pytest.approx(0.6931471805599453)
    assert done.stderr.count("RuntimeWarning") == 1

"""Temporary folders, and those that killed processes left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from fastxent.io.storage.temporary import temporary_folder

HOLDS = """
import sys
from fastxent.io.storage.temporary import temporary_folder
with temporary_folder() as folder:
    open(folder + "/rows", "wb").close()
    print(folder, flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def parent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return tmp_path


def test_a_folder_goes_with_its_block(parent: Path) -> None:
    with pytest.raises(KeyError), temporary_folder() as folder:
        (Path(folder) / "rows").write_bytes(b"1")
        raise KeyError
    assert not list(parent.iterdir())


def test_the_next_process_removes_what_a_killed_one_left(parent: Path) -> None:
    other = parent / "fastxent-checkpoints"  # somebody's, with a lock of another kind
    other.mkdir()
    (other / "lock").touch()
    process = subprocess.Popen([sys.executable, "-c", HOLDS], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    left = Path(process.stdout.readline().strip())
    with temporary_folder() as folder:
        assert {left, other, Path(folder)} == set(parent.iterdir())  # used by a process that lives
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    assert (left / "rows").exists()
    with temporary_folder() as folder:
        assert {other, Path(folder)} == set(parent.iterdir())

"""Files of torch where torch is not installed, and pickles."""

from __future__ import annotations

import pickle
import sys
import zipfile
from pathlib import Path

import pytest

import fastxent as fx


def test_torch_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with zipfile.ZipFile(tmp_path / "x.pt", "w") as archive:
        archive.writestr("x/data.pkl", b"\x80\x02.")
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(
        fx.SourceError, match=r"torch is not installed; install it with: pip install 'fastxent\[torch\]'"
    ):
        fx.evaluate(tmp_path / "x.pt")


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_pickles_are_refused(protocol: int, tmp_path: Path) -> None:
    (tmp_path / "x.pkl").write_bytes(pickle.dumps({"logits": [[0.5, 0.5]] * 9, "target": [0] * 9}, protocol))
    with pytest.raises(fx.SourceError, match=r"the file is a pickle .*unpickling runs code"):
        fx.evaluate(tmp_path / "x.pkl")

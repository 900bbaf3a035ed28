"""Files that `torch.save` writes, and folders of exllamav3."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import fastxent as fx
from fastxent.cli.program import run
from fastxent.io.source import open_source
from tests.fuzzing import short_run

RNG = np.random.default_rng(0)
X, Y = torch.from_numpy(RNG.normal(size=(500, 6)).astype(np.float32)), torch.from_numpy(RNG.integers(0, 6, 500))
NAMES = ("float64", "float32", "float16", "bfloat16")


@pytest.mark.parametrize("name", NAMES)
def test_a_dict_of_tensors(name: str, tmp_path: Path) -> None:
    path, x = tmp_path / "x.pt", X.to(getattr(torch, name))
    torch.save({"more": [1, "a"], "logits": x[:], "target": Y.short(), "w": Y.double(), "n": torch.tensor(3)}, path)
    expected = fx.evaluate({"logits": x, "target": Y, "w": Y.double()}, weight="w")
    for how in ({}, {"threads": 3}, {"memory": "1MB"}):
        assert fx.evaluate(path, weight="w", **how).state == expected.state  # type: ignore[arg-type]
    units = [pickle.loads(pickle.dumps(unit)) for unit in fx.plan(path, weight="w")]  # noqa: S301 - our own
    assert fx.merge_states([unit.run() for unit in units]).result().metrics == expected.metrics


def test_views_and_a_single_tensor(tmp_path: Path) -> None:
    torch.save({"logits": X[100:], "target": Y[100:]}, tmp_path / "view.pt")
    expected = fx.evaluate({"logits": X[100:], "target": Y[100:]})
    assert fx.evaluate(tmp_path / "view.pt").state == expected.state
    torch.save(X, tmp_path / "one.pth")
    assert (
        fx.evaluate(tmp_path / "one.pth", targets={"target": Y}).metrics
        == fx.evaluate({"logits": X, "target": Y}).metrics
    )
    torch.save({"logits": X.reshape(5, 100, 6), "target": Y.reshape(5, 100)}, tmp_path / "documents.pt")
    assert fx.evaluate(tmp_path / "documents.pt").rows.used == 500


@pytest.mark.parametrize("kind", [torch.uint8, torch.uint16, torch.uint32, torch.uint64])
def test_unsigned_targets(kind: torch.dtype, tmp_path: Path) -> None:
    torch.save({"logits": X, "target": Y.to(kind)}, tmp_path / "x.pt")
    assert fx.evaluate(tmp_path / "x.pt").metrics == fx.evaluate({"logits": X, "target": Y}).metrics


class _Evil:
    def __reduce__(self) -> Any:
        return print, ("run",)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"logits": X.t(), "target": Y}, r"'logits' of .* is not contiguous; save logits\.contiguous\(\)"),
        (
            {"logits": X.to_sparse(), "target": Y},
            r"'logits' of .*: its layout is sparse_coo; save logits\.to_dense\(\)",
        ),
        (
            {"logits": torch._neg_view(X), "target": Y},
            r"'logits' of .* negative bit is set; save logits\.resolve_neg\(\)",
        ),
        ({"logits": X.to(torch.complex64), "target": Y}, "complex64 is not supported"),
        ({"logits": _Evil(), "target": Y}, "cannot read .*; save a dict of tensors"),
        ([X, Y], "it holds no dict of tensors"),
        ({"a": 1}, "it holds no dict of tensors"),
        ({"1": X, 1: Y}, "two of its keys have one name"),
        ({"logits": "text", "target": Y}, "'logits' of .*: str is not supported"),
    ],
)
def test_what_is_not_read(content: Any, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save(content, tmp_path / "x.pt")
    with pytest.raises(fx.FastxentError, match=message) as error:
        fx.evaluate(tmp_path / "x.pt")
    assert "\n" not in str(error.value)
    assert capsys.readouterr().out == ""


def test_inspect_ends_in_a_line_that_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save({"logits": X, "labels": Y}, tmp_path / "x.pt")
    assert run(["inspect", str(tmp_path / "x.pt")]) == 0
    line = f"fastxent eval {tmp_path / 'x.pt'} --target labels"
    assert capsys.readouterr().out.endswith(f"run:\n  {line}\n")
    assert run(line.split()[1:]) == 0


def test_folders_of_exllamav3(tmp_path: Path) -> None:
    """A file for each row of tokens, whose targets are elsewhere."""
    for k in range(5):
        header = b'{"logits":{"dtype":"F16","shape":[1,100,6],"data_offsets":[0,1200]}}'
        data = X[100 * k : 100 * k + 100].half().numpy().tobytes()
        (tmp_path / f"row_{k:06d}.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + data)
    assert open_source(tmp_path, logits="logits").rows == 500
    found = fx.evaluate(tmp_path, targets={"target": Y})
    assert found.metrics == fx.evaluate({"logits": X.half(), "target": Y}).metrics


def test_mutated_files_never_crash_hang_or_give_more_rows() -> None:
    counts = short_run("tests.peers.fuzz_torch", 200, bounds=False)
    assert min(counts["refused"], counts["read"]) > 20

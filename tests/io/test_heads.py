"""Output heads: files of every kind, broken files, panels, and the bits of products."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from threadpoolctl import threadpool_limits

import fastxent as fx
from fastxent.io import blas, heads
from fastxent.io.named_tensors import named_tensor
from tests.fuzzing import short_run
from tests.verbs.hidden import safetensors

ROOT = Path(__file__).resolve().parents[2]
W = np.random.default_rng(0).normal(size=(300, 20)).astype(np.float32)
X = np.random.default_rng(1).normal(size=(48, 20)).astype(np.float32)


def product(head: object, bias: object = None, memory: int = 1 << 30) -> np.ndarray:
    opened = heads.Head.open(head, bias, memory, 1).of_states("float32")
    states = np.zeros((opened.least_rows, opened.width), np.float32)
    states[: len(X)] = X
    return opened.logits(states)[: len(X)].copy()


def test_files_of_every_kind(tmp_path, monkeypatch):
    monkeypatch.setattr(heads, "_PANEL_BYTES", 64 * 20 * 4)  # five panels
    bias = np.linspace(-1, 1, 300)
    truth = X.astype(np.float64) @ W.astype(np.float64).T + bias
    one = safetensors(tmp_path / "one.safetensors", {"w": W, "b": bias, "ids": np.arange(300)})
    model = tmp_path / "model"
    model.mkdir()
    shard = "model-00002-of-00002.safetensors"
    safetensors(model / shard, {"lm_head.weight": W, "lm_head.bias": bias, "norm.weight": W[:2]})
    index = {"weight_map": {"lm_head.weight": shard, "lm_head.bias": shard, "lost": "gone.safetensors"}}
    (model / "model.safetensors.index.json").write_text(json.dumps(index))
    np.save(tmp_path / "w.npy", W)
    np.save(tmp_path / "columns.npy", np.asfortranarray(W))
    np.save(tmp_path / "big.npy", W.astype(">f4"))
    np.save(tmp_path / "b.npy", bias)
    for memory in (1 << 30, 1):
        for head, offsets in (
            (one, one), (f"{one}:w", f"{one}:b"), (model, f"{model}:lm_head.bias"), (f"{model}:lm_head.weight", bias),
            (model / "model.safetensors.index.json", bias.tolist()), (model / shard, str(tmp_path / "b.npy")),
            (tmp_path / "w.npy", bias), (tmp_path / "columns.npy", bias), (tmp_path / "big.npy", bias), (W, bias),
            (W.tolist(), bias), (np.asfortranarray(W), bias), (W.astype(np.float64)[:, ::-1][:, ::-1], bias),
        ):  # fmt: skip
            given = [os.fspath(each) if isinstance(each, Path) else each for each in (head, offsets)]
            found = product(*given, memory)
            np.testing.assert_allclose(found, truth, rtol=1e-5, atol=1e-5)
    told = heads.Head.open(str(model), None, 1, 1)
    assert told.warnings == (
        f"{model / shard}:lm_head.weight: there is also 'lm_head.bias', which is not added; name it with bias (--bias)",
    )
    assert [file.name for file in told.files] == [str(model / shard), str(model / "model.safetensors.index.json")]
    for text, message in (
        (f"{model}:lost", "cannot read .*gone.safetensors"), (f"{model}:x", "there is no tensor 'x'"),
        (f"{tmp_path / 'w.npy'}:x", "a .npy file has no names; omit ':x'"), (str(tmp_path), "the folder holds neither"),
        (f"{one}:ids", "must hold float16, .* got int64"), (f"{one}:b", r"head must be \(C, d\)"),
    ):  # fmt: skip
        with pytest.raises(fx.FastxentError, match=message):
            heads.Head.open(text, None, 1, 1)


def test_another_matrix_does_not_replace_a_head_that_is_quantised(tmp_path):
    tensors = {"lm_head.weight": np.ones((5, 4), np.int64), "embed_tokens.weight": W[:5, :4]}
    path = safetensors(tmp_path / "head.safetensors", tensors)
    with pytest.raises(fx.ConfigError, match=r"lm_head\.weight must hold float16, .* got int64"):
        heads.Head.open(str(path), None, 1, 1)


def test_an_index_cannot_leave_its_folder(tmp_path):
    for shard in ("../x.safetensors", "/etc/passwd", "..", ""):
        path = tmp_path / "model.safetensors.index.json"
        path.write_text(json.dumps({"weight_map": {"lm_head.weight": shard}}))
        with pytest.raises(fx.SourceError, match="must name files of its folder"):
            named_tensor("head", str(path))
    for text in ("{", "[]", '{"weight_map": 3}', '{"weight_map": {"w": 3}}', "[" * 100_000, "\xff"):
        path.write_text(text, encoding="latin-1")
        with pytest.raises(fx.SourceError, match=f"cannot read {path}"):
            named_tensor("head", str(path))


@pytest.mark.parametrize("kind", ["float16", "bfloat16"])
def test_every_half_is_widened_exactly(kind):
    every = np.arange(1 << 16, dtype=np.uint16)
    typed = every.view(np.float16 if kind == "float16" else ml_dtypes.bfloat16)
    lost = heads._not_finite(every.view(np.float16) if kind == "float16" else every, kind)
    np.testing.assert_array_equal(lost, ~np.isfinite(typed.astype(np.float32)))
    finite = np.resize(every[~lost], 100_000)  # more than are widened at a time
    stored = finite.view(np.float16) if kind == "float16" else finite
    found = heads._widened(stored, kind, np.dtype(np.float32))
    truth = finite.view(typed.dtype).astype(np.float32)
    np.testing.assert_array_equal(found.view(np.uint32), truth.view(np.uint32))


def test_mutated_heads_and_folders_of_rows_are_refused_or_read():
    """They never crash, and are never read as other numbers than the files hold."""
    counts = short_run("tests.io.fuzz_tensors", 300, bounds=False)
    assert min(counts["refused"], counts["read"]) > 50


def test_blas_keeps_its_threads():
    def threads() -> list[int]:
        return [library.get_num_threads() for library in blas.libraries()]

    with threadpool_limits(limits=2, user_api="blas"):  # by this thread, which may alone change it then
        check_threads(threads)


def check_threads(threads: Callable[[], list[int]]) -> None:
    before = threads()
    assert before
    inside, leave = threading.Barrier(3), threading.Barrier(3)

    def work() -> None:
        with blas.one_thread():
            inside.wait()
            leave.wait()

    others = [threading.Thread(target=work, daemon=True) for _ in range(2)]
    for other in others:
        other.start()
    inside.wait()
    assert set(threads()) == {1}
    with blas.one_thread():
        pass
    assert set(threads()) == {1}, "others are inside"
    leave.wait()
    for other in others:
        other.join()
    assert threads() == before


def test_without_threadpoolctl(monkeypatch):
    monkeypatch.setitem(sys.modules, "threadpoolctl", None)
    blas.libraries.cache_clear()
    with pytest.raises(fx.ConfigError, match=r"^head requires threadpoolctl; install it with: pip install 'fastxent"):
        fx.evaluate({"logits": X, "target": np.zeros(48, int)}, head=W)
    blas.libraries.cache_clear()


@pytest.mark.parametrize("kernels", ["Sandybridge", "Haswell", "SkylakeX"])
def test_bits_of_products_with_the_kernels_of_other_processors(kernels):
    done = subprocess.run(
        [sys.executable, "-m", "tests.io.products"], cwd=ROOT, env={**os.environ, "OPENBLAS_CORETYPE": kernels},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode == -signal.SIGILL:
        pytest.skip("this processor does not have the instructions of these kernels")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "differ:", done.stdout


@pytest.mark.parametrize("kind", ["float16", "bfloat16"])
def test_every_number_of_half_precision_is_widened(kind):
    bits = np.arange(1 << 16, dtype=np.uint16)
    infinite = heads._INFINITE[kind]
    bits = bits[(bits & infinite) != infinite]
    stored = bits.view(np.float16) if kind == "float16" else bits
    truth = bits.view(np.float16 if kind == "float16" else ml_dtypes.bfloat16).astype(np.float32)
    for begin in (0, 1, 5):  # parts of a vector at the end
        found = heads._widened(stored[begin:].reshape(1, -1), kind, np.dtype(np.float32))
        assert np.array_equal(found[0].view(np.uint32), truth[begin:].view(np.uint32))

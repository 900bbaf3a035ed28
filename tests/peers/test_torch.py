"""Conformance with torch on the CPU: values, gradients by autograd, and the accuracy rule against its own errors."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import fastxent as fx
import reference as ref

TORCH = {"float32": torch.float32, "float64": torch.float64, "float16": torch.float16, "bfloat16": torch.bfloat16}


def tensor(array: np.ndarray) -> torch.Tensor:
    if array.dtype == ref.BFLOAT16:
        return torch.from_numpy(array.view(np.uint16).copy()).view(torch.bfloat16)
    return torch.from_numpy(np.array(array))


def numbers(result: torch.Tensor) -> np.ndarray:
    """In float64, which holds every value of the narrower dtypes."""
    return result.detach().to(torch.float64).numpy()


def assert_no_worse(result, truth, peer, dtype, terms=None) -> None:
    """The accuracy rule, as `reference.excess` measures it."""
    worst = ref.excess(result, truth, peer, dtype, terms=terms)
    assert worst <= 1, f"{worst} ulp farther from the truth than torch"


# ---- cross-entropy over the whole grid -----------------------------------------------------------------------

SHAPES = [(6, 5), (3, 1), (9, 130), (2, 4, 3), (2, 5, 3, 2), (7,)]  # torch's class axis is 1


def case(shape: tuple[int, ...], dtype: str, soft: bool):
    """(logits, target, class axis, class weights)"""
    axis = 0 if len(shape) == 1 else 1
    classes, seed = shape[axis], [*shape, soft]
    rng = np.random.default_rng(seed)
    x = (rng.normal(size=shape) * 3).astype(ref.DTYPES[dtype])
    rest = shape[:axis] + shape[axis + 1 :]
    if soft:
        target = np.moveaxis(rng.dirichlet(np.ones(classes), size=rest or None), -1, axis).astype(ref.DTYPES[dtype])
    else:
        target = np.where(rng.random(rest) < 0.3, -100, rng.integers(classes, size=rest))
        target.reshape(-1)[:1] = classes - 1
    return x, target, axis, (rng.integers(1, 9, size=classes) / 4).astype(ref.DTYPES[dtype])


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("dtype", TORCH)
@pytest.mark.parametrize("soft", [False, True], ids=["ids", "soft"])
def test_cross_entropy_and_its_gradient(shape, dtype, soft):
    x, target, axis, weight = case(shape, dtype, soft)
    ignored = [-100] if soft else [-100, 0]
    for weights, ignore_index, eps, reduction in itertools.product(
        [None, weight], ignored, [0.0, 0.1, 1.0], ["none", "sum", "mean"]
    ):
        options = {"ignore_index": ignore_index, "label_smoothing": eps, "reduction": reduction, "weight": weights}
        t = np.where(target == -100, ignore_index, target) if not soft else target
        if soft:
            del options["ignore_index"]
        truth, slope = ref.cross_entropy_with_grad(x, t, axis=axis, **options)
        loss, grad = fx.cross_entropy_with_grad(x, t, axis=axis, **options)
        torch_x = tensor(x).requires_grad_()
        options["weight"] = None if weights is None else tensor(weights)
        peer = F.cross_entropy(torch_x, tensor(t), **options)
        peer.sum().backward()
        narrow = np.float64 if dtype == "float64" else np.float32
        assert_no_worse(loss, truth, numbers(peer), narrow)
        largest = np.ones(1) if weights is None else ref.wide(weights)
        shares = np.ones(x.size // x.shape[axis])
        if not soft:
            shares = np.broadcast_to(largest, x.shape[axis])[t[t != ignore_index]]
        terms = float(largest.max() / (shares.sum() if reduction == "mean" and shares.size else 1))
        rows = (np.moveaxis(v, axis, -1) for v in (grad, slope, numbers(torch_x.grad)))
        assert_no_worse(*rows, x.dtype, terms=terms)


@pytest.mark.parametrize("reduction", ["none", "sum", "mean"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_nll_loss(dtype, reduction):
    x, target, _, weight = case((9, 130), dtype, False)
    log_p = fx.log_softmax(x)
    for weights in (None, weight):
        ours = fx.nll_loss(log_p, target, weight=weights, reduction=reduction)
        peer = F.nll_loss(
            tensor(log_p), tensor(target), weight=None if weights is None else tensor(weights), reduction=reduction
        )
        truth = ref.nll_loss(log_p, target, weight=weights, reduction=reduction)
        assert_no_worse(ours, truth, numbers(peer), dtype)


def test_all_ignored_and_masked():
    x, target = torch.zeros(2, 3), torch.full((2,), -100)
    for reduction in ("none", "sum", "mean"):
        peer = F.cross_entropy(x, target, reduction=reduction)
        np.testing.assert_array_equal(fx.cross_entropy(x, target, reduction=reduction), numbers(peer))
    x[:, 1] = -torch.inf
    x.requires_grad_()
    peer = F.cross_entropy(x, torch.tensor([0, 1]), reduction="none")
    peer.sum().backward()
    loss, grad = fx.cross_entropy_with_grad(x.detach(), [0, 1], reduction="none")
    np.testing.assert_allclose(loss, numbers(peer), rtol=1e-7)
    np.testing.assert_allclose(grad, numbers(x.grad), rtol=1e-7)


# ---- the accuracy rule ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", ref.FAMILIES)
@pytest.mark.parametrize("dtype", TORCH)
def test_no_row_is_farther_from_the_truth_than_torch(family, dtype):
    for c in (1, 2, 3, 10, 33, 100, 128, 129, 1000, 4099):
        n = 50 if c <= 129 else 10
        x = ref.rows_of(family, n, c, ref.DTYPES[dtype], seed=c)
        target = np.random.default_rng(c).integers(c, size=n)
        truth, slope = ref.cross_entropy_with_grad(x, target, reduction="none")
        torch_x = tensor(x).requires_grad_()
        peer = F.cross_entropy(torch_x, tensor(target), reduction="none")
        peer.sum().backward()
        loss, grad = fx.cross_entropy_with_grad(x, target, reduction="none")
        assert_no_worse(loss, truth, numbers(peer), loss.dtype)
        assert_no_worse(grad, slope, numbers(torch_x.grad), x.dtype, terms=1)
        log_p = ref.log_softmax(x)
        assert_no_worse(fx.log_softmax(x), log_p, numbers(F.log_softmax(tensor(x), -1)), x.dtype, terms=0)
        assert_no_worse(fx.softmax(x), np.exp(log_p), numbers(F.softmax(tensor(x), -1)), x.dtype, terms=0)
        lse = (fx.logsumexp(x), ref.logsumexp(x), numbers(torch.logsumexp(tensor(x), -1)))
        assert_no_worse(*(v[:, None] for v in lse), loss.dtype, terms=1)  # the sum of the maximum and a logarithm


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("c", [128_256, 1_000_000])
def test_no_long_row_is_farther_from_the_truth_than_torch(c, dtype):
    for family in ("language model", "peaked", "flat"):
        x = ref.rows_of(family, 1, c, ref.DTYPES[dtype])
        truth, slope = ref.cross_entropy_with_grad(x, [c // 3], reduction="none")
        torch_x = tensor(x).requires_grad_()
        peer = F.cross_entropy(torch_x, torch.tensor([c // 3]), reduction="none")
        peer.sum().backward()
        loss, grad = fx.cross_entropy_with_grad(x, [c // 3], reduction="none")
        assert_no_worse(loss, truth, numbers(peer), np.float32)
        assert_no_worse(grad, slope, numbers(torch_x.grad), x.dtype, terms=1)


# ---- binary, divergences -------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", TORCH)
@pytest.mark.parametrize("reduction", ["none", "sum", "mean"])
@pytest.mark.parametrize("soft", [False, True], ids=["0 or 1", "soft"])
def test_binary_cross_entropy_with_logits(dtype, reduction, soft):
    rng = np.random.default_rng(30)
    for shape in ((50,), (7, 5), (1,), (2, 3, 33)):
        x = (rng.normal(size=shape) * 8).astype(ref.DTYPES[dtype])
        target = (rng.random(shape) if soft else rng.integers(2, size=shape)).astype(x.dtype)
        weight = (rng.integers(1, 9, size=shape) / 4).astype(x.dtype)
        pos_weight = (rng.integers(1, 9, size=shape[-1]) / 4).astype(x.dtype)
        for w, b in itertools.product([None, weight], [None, pos_weight]):
            truth, slope = ref.binary_cross_entropy_with_grad(
                x, target, weight=w, pos_weight=b, reduction=reduction, input="logits"
            )
            loss, grad = fx.binary_cross_entropy_with_logits_with_grad(
                x, target, weight=w, pos_weight=b, reduction=reduction
            )
            torch_x = tensor(x).requires_grad_()
            options = {"weight": None if w is None else tensor(w), "pos_weight": None if b is None else tensor(b)}
            peer = F.binary_cross_entropy_with_logits(torch_x, tensor(target), reduction=reduction, **options)
            peer.sum().backward()
            assert_no_worse(loss, truth, numbers(peer), np.float64 if dtype == "float64" else np.float32)
            terms = 2 * 2 / (x.size if reduction == "mean" else 1)  # the weights reach 2
            flat = (np.reshape(v, (-1, 1)) for v in (grad, slope, numbers(torch_x.grad)))
            assert_no_worse(*flat, x.dtype, terms=terms)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("reduction", ["none", "sum", "mean"])
def test_binary_cross_entropy(dtype, reduction):
    rng = np.random.default_rng(31)
    p = rng.uniform(1e-6, 1 - 1e-6, size=(40, 3)).astype(dtype)
    target, weight = rng.random(p.shape).astype(dtype), rng.uniform(size=p.shape).astype(dtype)
    for w in (None, weight):
        truth, slope = ref.binary_cross_entropy_with_grad(p, target, weight=w, reduction=reduction)
        loss, grad = fx.binary_cross_entropy_with_grad(p, target, weight=w, reduction=reduction)
        torch_p = tensor(p).requires_grad_()
        peer = F.binary_cross_entropy(
            torch_p, tensor(target), weight=None if w is None else tensor(w), reduction=reduction
        )
        peer.sum().backward()
        assert_no_worse(loss, truth, numbers(peer), dtype)
        assert_no_worse(grad, slope, numbers(torch_p.grad), dtype)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("reduction", ["none", "sum", "batchmean"])
def test_kl_divergence(dtype, reduction):
    p, q = (ref.rows_of("normal", 20, 65, dtype, seed=s) for s in (1, 2))
    log_p, log_q = (F.log_softmax(tensor(v).double(), -1) for v in (p, q))
    peer = F.kl_div(log_q, log_p, log_target=True, reduction=reduction)
    peer = numbers(peer.sum(-1) if reduction == "none" else peer)
    close = {"rtol": 1e-12 if dtype == "float64" else 2e-6}
    np.testing.assert_allclose(fx.kl_divergence(p, q, reduction=reduction), peer, **close)
    given = [v.exp().numpy().astype(dtype) for v in (log_p, log_q)]
    np.testing.assert_allclose(
        fx.kl_divergence(*given, input="probs", reduction=reduction), peer, rtol=close["rtol"] * 5
    )


# ---- torch's own arrays --------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", TORCH)
def test_tensors_are_taken_as_they_are(dtype):
    x = ref.rows_of("normal", 5, 40, ref.DTYPES[dtype])
    target = np.array([0, 39, -100, 2, 7])
    for given in (tensor(x), tensor(np.ascontiguousarray(x.T)).T):
        loss, grad = fx.cross_entropy_with_grad(given, torch.from_numpy(target), reduction="none")
        expected = fx.cross_entropy_with_grad(x, target, reduction="none")
        np.testing.assert_array_equal(loss, expected.loss)
        np.testing.assert_array_equal(ref.bits_of(grad), ref.bits_of(expected.grad))
        np.testing.assert_array_equal(fx.row_statistics(given, target).lse, fx.row_statistics(x, target).lse)


def test_a_tensor_that_requires_grad_counts_as_its_values():
    x = torch.randn(4, 3, requires_grad=True)
    assert fx.cross_entropy(x, torch.tensor([0, 1, 2, 0])) == fx.cross_entropy(x.detach(), [0, 1, 2, 0])


@pytest.mark.parametrize(("name", "gradient"), [("float64", False), ("float32", True), ("bfloat16", False)])
def test_a_dump_of_tensors_evaluates_as_its_numbers_do(name, gradient):
    x = torch.from_numpy(np.random.default_rng(40).normal(size=(50, 7))).to(TORCH[name])
    target = torch.from_numpy(np.random.default_rng(41).integers(7, size=50))
    dump = {"logits": x.clone().requires_grad_() if gradient else x, "target": target}
    value = fx.evaluate(dump).metrics["cross_entropy"].value
    assert value == fx.cross_entropy(x, target)

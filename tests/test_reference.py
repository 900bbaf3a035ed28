"""The oracle itself: textbook values, and its gradients against central differences of its losses."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

import reference as ref
from reference import WIDE

N, C = 4, 5


def central_differences(loss, x: np.ndarray, h: float = 1e-6) -> np.ndarray:
    """d loss / d x, the error of which is of the order of h squared."""
    slope = np.empty(x.shape, WIDE)
    for at in np.ndindex(x.shape):
        up, down = x.astype(WIDE), x.astype(WIDE)
        up[at] += WIDE(h)
        down[at] -= WIDE(h)
        slope[at] = (loss(up) - loss(down)) / (2 * WIDE(h))
    return slope


OPTIONS = {
    "plain": {},
    "weight": {"weight": np.array([0.5, 2.0, 0.0, 1.0, 3.0])},
    "smoothing": {"label_smoothing": 0.3},
    "sample weight": {"sample_weight": np.array([1.0, -2.0, 0.5, 0.75])},
    "temperature": {"temperature": 1.7},
    "softcap": {"softcap": 2.5},
    "z-loss": {"z_loss": 0.1},
    "mask": {"class_mask": np.array([True, True, False, True, True])},
    "base": {"base": 2.0},
}
PAIRS = [pair for pair in itertools.combinations(OPTIONS, 2) if pair != ("smoothing", "mask")]  # that one is infinite


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("soft", [False, True], ids=["ids", "soft"])
@pytest.mark.parametrize("names", PAIRS, ids=" + ".join)
def test_gradient_is_the_slope_of_the_loss(names, soft, reduction):
    rng = np.random.default_rng(5)
    x = rng.normal(size=(N, C))
    if soft:
        target = rng.dirichlet(np.ones(C), size=N)
        if "mask" in names:
            target[:, 2] = 0
    else:
        target = np.array([0, 4, -100, 1])
    options = OPTIONS[names[0]] | OPTIONS[names[1]] | {"reduction": reduction}
    _, grad = ref.cross_entropy_with_grad(x, target, **options)
    slope = central_differences(lambda v: ref.cross_entropy(v, target, **options), x)
    np.testing.assert_allclose(grad, slope, rtol=1e-8, atol=1e-11)


def test_masked_smoothing_is_infinite():
    loss = ref.cross_entropy(np.zeros((1, 3)), [0], label_smoothing=0.1, class_mask=[True, True, False])
    assert loss == np.inf


@pytest.mark.parametrize("input", ["probs", "log_probs"])
@pytest.mark.parametrize("clip_eps", [None, 0.05])
def test_gradient_of_probabilities_is_the_slope_of_the_loss(input, clip_eps):
    rng = np.random.default_rng(6)
    p = rng.dirichlet(np.ones(C), size=N)
    x = p if input == "probs" else np.log(p)
    options = {"input": input, "clip_eps": clip_eps, "weight": np.arange(1.0, C + 1), "label_smoothing": 0.2}
    _, grad = ref.cross_entropy_with_grad(x, [0, 1, 2, -100], **options)
    slope = central_differences(lambda v: ref.cross_entropy(v, [0, 1, 2, -100], **options), x)
    np.testing.assert_allclose(grad, slope, rtol=1e-7, atol=1e-11)


@pytest.mark.parametrize("input", ["probs", "logits"])
@pytest.mark.parametrize("label_smoothing", [0.0, 0.2])
def test_binary_gradient_is_the_slope_of_the_loss(input, label_smoothing):
    rng = np.random.default_rng(7)
    x, t = rng.uniform(0.1, 0.9, size=(N, C)), rng.uniform(size=(N, C))
    options = {"input": input, "label_smoothing": label_smoothing, "weight": rng.uniform(size=(N, C))}
    options["pos_weight"] = rng.uniform(0.5, 2, size=C)
    _, grad = ref.binary_cross_entropy_with_grad(x, t, **options)
    slope = central_differences(lambda v: ref.binary_cross_entropy(v, t, **options), x)
    np.testing.assert_allclose(grad, slope, rtol=1e-8, atol=1e-12)


def test_textbook_values():
    half = WIDE(0.5)
    uniform, point = np.full(8, WIDE(1) / 8), np.eye(8)[3]
    np.testing.assert_allclose(ref.cross_entropy(np.zeros((3, 7)), [0, 1, 2]), np.log(WIDE(7)), rtol=1e-18)
    np.testing.assert_allclose(ref.cross_entropy([[0.0, np.log(3.0)]], [1]), np.log(WIDE(4) / 3), rtol=1e-15)
    np.testing.assert_allclose(ref.entropy(uniform, base=2), 3, rtol=1e-18)
    assert ref.entropy(point) == 0
    np.testing.assert_allclose(ref.kl_divergence(point, uniform, input="probs", base=2), 3, rtol=1e-18)
    np.testing.assert_allclose(ref.js_divergence([1.0, 0.0], [0.0, 1.0], input="probs"), np.log(WIDE(2)), rtol=1e-18)
    np.testing.assert_allclose(ref.binary_cross_entropy(half, 1.0), np.log(WIDE(2)), rtol=1e-18)
    np.testing.assert_allclose(ref.focal_loss([[0.0, 0.0]], [0]), np.log(WIDE(2)) / 4, rtol=1e-18)
    np.testing.assert_allclose(ref.logsumexp(np.log([1.0, 2.0, 3.0])), np.log(WIDE(6)), rtol=1e-15)
    assert ref.row_statistics([0.0, 3.0, 3.0, 1.0], 2).rank == 1


def test_entropy_cross_entropy_and_divergence_agree():
    rng = np.random.default_rng(8)
    x, y = rng.normal(size=(2, N, C))
    divergence = ref.kl_divergence(x, y, reduction="none")
    cross = ref.cross_entropy(y, ref.softmax(x), reduction="none")
    np.testing.assert_allclose(divergence, cross - ref.entropy(x, input="logits"), rtol=1e-15)
    np.testing.assert_allclose(ref.row_statistics(x).sum_p2, (ref.softmax(x) ** 2).sum(axis=-1), rtol=1e-17)


@pytest.mark.parametrize(
    ("result", "truth", "dtype", "error"),
    [
        (1.0, 1.0, "float32", 0),
        (1 + 2**-23, 1.0, "float32", 1),
        (1 - 2**-24, 1.0, "float32", 0.5),
        (2.0**-149, 0.0, "float32", 1),
        (1 + 2**-52, 1.0, "float64", 1),
        (1 + 2**-10, 1.0, "float16", 1),
        (1 + 2**-7, 1.0, "bfloat16", 1),
        (2.0**-24, 0.0, "float16", 1),
        (np.inf, 1e39, "float32", 0),
        (3e38, 1e39, "float32", np.inf),
        (np.nan, np.nan, "float32", 0),
        (np.nan, 1.0, "float32", np.inf),
        (np.inf, 1.0, "float32", np.inf),
        (np.inf, -np.inf, "float32", np.inf),
    ],
)
def test_ulp_error(result, truth, dtype, error):
    assert ref.ulp_error(result, truth, ref.DTYPES[dtype]) == error


@pytest.mark.parametrize("family", ref.FAMILIES)
@pytest.mark.parametrize("dtype", ref.DTYPES)
def test_the_plain_formula_is_close_to_the_oracle(family, dtype):
    rows = ref.rows_of(family, 20, 33, ref.DTYPES[dtype])
    plain = ref.plain_log_softmax(rows)
    truth = ref.log_softmax(rows)
    with np.errstate(invalid="ignore"):  # -inf - -inf, which the second test knows for equal
        near = np.abs(plain - truth) <= 8 * np.finfo(plain.dtype).eps * (1 + np.abs(truth))
    assert (near | (ref.ulp_error(plain, truth, plain.dtype) == 0)).all()

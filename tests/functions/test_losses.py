"""log_loss and the binary losses: what they take, what they refuse, and what has no weight."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pandas as pd
import polars as pl
import pytest
from sklearn import metrics

import fastxent as fx
import reference as ref

P = np.array([[0.9, 0.1], [0.2, 0.8], [0.4, 0.6]])
P3 = np.array([[0.5, 0.3, 0.2], [0.1, 0.8, 0.1], [0.2, 0.2, 0.6]])
Y = [0, 1, 1]


@pytest.mark.parametrize(
    ("target", "probs", "options"),
    [
        (Y, np.array([[1, 0], [0, 1], [1, 0]]), {}),
        (Y, np.array([[1, 0], [0, 1], [1, 0]], bool), {}),
        (Y, [[1, 0], [0, 1], [1, 0]], {}),
        (Y, [0.1, 0.8, 0.6], {}),
        (Y, P[:, 1:], {}),
        (Y, pd.DataFrame({"p": P[:, 1]}), {}),
        (Y, pd.DataFrame(P, columns=["ham", "spam"]), {}),
        (Y, P.astype(">f8"), {}),
        (np.array(Y, ">i2"), P, {}),
        (np.array(Y)[:, None], P, {}),
        (pd.DataFrame({"y": Y}), P, {}),
        (np.eye(2, dtype=int)[Y], P, {}),
        (np.eye(2)[Y], P[:, 1], {}),
        (np.eye(3, dtype=bool), P3, {}),
        (np.eye(3)[[2, 0, 0]], P3, {"sample_weight": [1, 2, 0]}),
        (["dog", "cat", "cat"], P, {}),
        (np.array(["b", "a", "a"], object), P, {"labels": ["a", "b"]}),
        (pd.Series(["b", "a", "a"], dtype="category"), P, {}),
        (pl.Series(["b", "a", "a"]), P, {}),
        ([False, True, True], P, {}),
        ([-1, 1, 1], P, {}),
        ([2, 1, 1], P3, {"labels": range(3)}),
        (Y, np.array([[0.0, 1.0], [0.2, 0.8], [0.4, 0.6]]), {"sample_weight": [0, 1, 1]}),
    ],
)
def test_log_loss_takes_what_scikit_learn_takes(target, probs, options):
    truth = metrics.log_loss(target, probs, **options)
    assert fx.log_loss(probs, target, **options) == pytest.approx(truth, rel=1e-14)


@pytest.mark.parametrize(
    ("options", "probs", "message"),
    [
        ({"labels": ["dog", "cat"]}, P, r"sorted labels \['cat', 'dog'\]"),
        ({}, P * 0.9, r"probs of 3 rows do not sum to 1: the sum of row 0 is 0\.9"),
    ],
)
def test_log_loss_warns_where_scikit_learn_does(options, probs, message):
    target = ["dog", "cat", "cat"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        truth = metrics.log_loss(target, probs, **options)
    with pytest.warns(UserWarning, match=message) as told:
        assert fx.log_loss(probs, target, **options) == pytest.approx(truth, rel=1e-14)
    assert told[0].filename == __file__


@pytest.mark.parametrize("dtype", ref.DTYPES)
def test_numbers_that_are_not_probabilities_are_named_with_their_place(dtype):
    for bad in (1.5, -0.25, math.nan, math.inf):
        probs = P.astype(ref.DTYPES[dtype])
        probs[1, 0] = bad
        for call in (
            lambda p: fx.log_loss(p, Y),
            lambda p: fx.binary_cross_entropy(p, P),
            lambda p: fx.binary_cross_entropy(p, P, reduction="none"),
            lambda p: fx.binary_cross_entropy_with_grad(p, P),
        ):
            with pytest.raises(fx.ConfigError, match=rf"^probs must hold numbers from 0 to 1, got {bad} at \[1, 0\]$"):
                call(probs)


@pytest.mark.parametrize("bad", [1.0 + 1e-6, -1e-30, math.nan])
@pytest.mark.parametrize("n", [1, 16, 17, 40_000])
def test_a_binary_target_is_from_0_to_1(n, bad):
    p, target = np.full(n, 0.5, np.float32), np.ones(n)
    assert fx.binary_cross_entropy(p, target) == pytest.approx(math.log(2))
    target[n - 1] = bad
    with pytest.raises(fx.ConfigError, match=rf"^target must hold numbers from 0 to 1, got .* at \[{n - 1}\]$"):
        fx.binary_cross_entropy(p, target)
    x = np.full(n, 0.25)
    loss = fx.binary_cross_entropy_with_logits(x, target, reduction="none")  # there any number, as in torch
    truth = ref.binary_cross_entropy(x, target, input="logits", reduction="none").astype(float)
    np.testing.assert_allclose(loss, truth, rtol=1e-14)


@pytest.mark.parametrize(
    ("probs", "target", "options", "message"),
    [
        (P, P, {}, "target must hold labels, or rows of one 1 and otherwise 0"),
        (P, [[1, 1], [0, 1], [1, 0]], {}, "target must hold labels, or rows of one 1 and otherwise 0"),
        (P, [0, 0, 0], {}, "labels must have one entry for each of the 2 columns of probs, got 1"),
        (P, [0, 1, 5], {"labels": [0, 1]}, "target of row 2 must be one of the labels, got 5"),
        (P, ["0", "1", "1"], {"labels": [0, 1]}, "target of row 0 must be one of the labels, got '0'"),
        (P, Y, {"labels": ["0", "1"]}, "target of row 0 must be one of the labels, got 0"),
        (P, [None, "a", "b"], {}, "target must hold labels of one sortable type"),
        (P[None], Y, {}, "probs must have the shape"),
        (P, Y[:2], {}, "target must have the shape"),
        (P, Y, {"sample_weight": [1.0]}, "sample_weight must have one entry per row"),
        (pd.DataFrame(P, columns=["b", "a"]), ["a", "b", "b"], {}, "columns of probs must be in the order"),
        (pl.DataFrame(P, schema=["1", "0"]), Y, {}, "columns of probs must be in the order"),
    ],
)  # fmt: skip
def test_log_loss_says_what_does_not_fit(probs, target, options, message):
    with pytest.raises(fx.ConfigError, match=f"^{message}"):
        fx.log_loss(probs, target, **options)


# ---- a weight of 0 -------------------------------------------------------------------------------------------

INF = np.inf


@pytest.mark.parametrize("reduction", ["none", "sum", "mean"])
@pytest.mark.parametrize(("c", "dtype"), [(3, "float32"), (3, "float64"), (100, "float32"), (100, "bfloat16")])
def test_a_class_or_a_row_of_weight_0_adds_nothing_where_its_loss_is_infinite(c, dtype, reduction):
    x = ref.rows_of("normal", 4, c, ref.DTYPES[dtype])
    x[1, 2] = -INF
    target = np.array([0, 2, 1, 0])
    soft = np.eye(c)[target] * [[1.0], [0.0], [1.0], [1.0]]
    by_class = np.where(np.arange(c) == 2, 0.0, 1.5)
    by_row = np.array([1.0, 0.0, 2.0, -0.5])
    for y, options in (
        (target, {"weight": by_class}),
        (target, {"sample_weight": by_row}),
        (target, {"sample_weight": by_row, "label_smoothing": 0.1}),
        (target, {"weight": by_class, "label_smoothing": 0.1}),
        (soft, {}),
        (np.eye(c)[target], {"weight": by_class}),
        (np.eye(c)[target], {"sample_weight": by_row}),
    ):
        truth, slope = ref.cross_entropy_with_grad(x, y, reduction=reduction, **options)
        loss, grad = fx.cross_entropy_with_grad(x, y, reduction=reduction, **options)
        assert np.isfinite(truth.astype(float)).all()
        np.testing.assert_allclose(loss, truth.astype(float), rtol=1e-5)
        np.testing.assert_allclose(ref.wide(grad).astype(float), slope.astype(float), rtol=1e-2, atol=1e-5)
        np.testing.assert_array_equal(fx.cross_entropy(x, y, reduction=reduction, **options), loss)


@pytest.mark.parametrize("input", ["probs", "log_probs"])
def test_probabilities_of_0_without_weight_add_nothing(input):
    p = np.array([[0.0, 0.5, 0.5], [0.2, 0.3, 0.5]])
    with np.errstate(divide="ignore"):
        x = p if input == "probs" else np.log(p)
    for options in ({"weight": [0.0, 1.0, 2.0]}, {"sample_weight": [0.0, 1.0]}):
        loss, grad = fx.cross_entropy_with_grad(x, [0, 1], input=input, **options)
        assert loss == pytest.approx(-math.log(0.3))
        np.testing.assert_allclose(grad, [[0, 0, 0], [0, -1 / 0.3 if input == "probs" else -1, 0]], rtol=1e-14)


def test_binary_losses_of_weight_0_add_nothing():
    p, t = np.array([1.0, 0.0, 0.5, 0.25]), np.array([0.0, 1.0, 1.0, 0.0])
    weight = np.array([0.0, 0.0, 2.0, 1.0])
    for dtype in (np.float32, np.float64):
        loss, grad = fx.binary_cross_entropy_with_grad(p.astype(dtype), t, weight=weight, reduction="none")
        np.testing.assert_allclose(loss, [0, 0, 2 * math.log(2), -math.log(0.75)], rtol=1e-6)
        np.testing.assert_allclose(grad, [0, 0, -4, 4 / 3], rtol=1e-6)
        x = np.array([INF, -INF, 0.0, 0.0], dtype)
        loss, grad = fx.binary_cross_entropy_with_logits_with_grad(x, t, weight=weight, reduction="none")
        np.testing.assert_allclose(loss, [0, 0, 2 * math.log(2), math.log(2)], rtol=1e-6)
        np.testing.assert_allclose(grad, [0, 0, -1, 0.5], rtol=1e-6)
        assert np.isfinite(fx.binary_cross_entropy_with_logits(x, t, weight=weight))
    one_sided = fx.binary_cross_entropy_with_logits(np.array([-INF, 1.0]), np.ones(2), pos_weight=0.0)
    assert one_sided == 0.0


def test_focal_loss_and_log_loss_of_weight_0_add_nothing():
    x = np.array([[0.0, -INF, 1.0], [0.0, 1.0, 2.0]])
    rows = fx.focal_loss(x, [1, 2], alpha=[1.0, 0.0, 1.0], reduction="none")
    assert rows[0] == 0
    assert rows[1] == fx.focal_loss(x, [1, 2], reduction="none")[1]
    assert fx.focal_loss(x, [1, 2], alpha=0.0) == 0
    p = np.array([[0.0, 1.0], [0.5, 0.5]])
    assert fx.log_loss(p, [0, 1], sample_weight=[0.0, 1.0], clip_eps=0.0) == math.log(2)


def test_a_row_that_is_nan_stays_nan_whatever_its_weight():
    """Only ignore_index leaves it out, as in torch."""
    x = np.array([[0.0, np.nan, 1.0], [0.0, 1.0, 2.0]])
    for options in ({"weight": [1.0, 0.0, 1.0]}, {"sample_weight": [0.0, 1.0]}):
        loss, grad = fx.cross_entropy_with_grad(x, [1, 2], reduction="none", **options)
        truth, slope = ref.cross_entropy_with_grad(x, [1, 2], reduction="none", **options)
        np.testing.assert_array_equal(np.isnan(loss), np.isnan(truth))
        np.testing.assert_array_equal(np.isnan(grad), np.isnan(slope))
        assert np.isnan(loss[0])
        assert np.isnan(fx.cross_entropy(x, [1, 2], **options))
    assert np.isnan(fx.focal_loss(x, [1, 2], alpha=[1.0, 0.0, 1.0], reduction="none")[0])
    for name in ("binary_cross_entropy_with_logits", "binary_cross_entropy_with_logits_with_grad"):
        result = getattr(fx, name)(np.array([np.nan, 1.0]), np.ones(2), weight=[0.0, 1.0], reduction="none")
        assert np.isnan(np.stack(result)).any(axis=-1 if name.endswith("grad") else None).all()


# ---- a mean that is undefined --------------------------------------------------------------------------------


@pytest.mark.parametrize(("c", "dtype"), [(4, "float32"), (4, "float64"), (4, "float16"), (100, "float32")])
def test_the_gradient_of_an_undefined_mean_is_nan_in_every_class(c, dtype):
    x = ref.rows_of("normal", 3, c, ref.DTYPES[dtype])
    x[:, 1] = -INF
    mask = np.arange(c) != 2
    weight = np.where(np.arange(c) == 0, 0.0, 1.0)
    ids = np.array([0, 0, -100])
    for target, used, options in (
        (ids, [0, 1], {"weight": weight}),
        (ids, [0, 1], {"weight": weight, "class_mask": mask}),
        (ids, [0, 1], {"sample_weight": [1.0, -1.0, 5.0], "class_mask": mask, "temperature": 2.0}),
        (np.eye(c)[[0, 0, 3]], [0, 1, 2], {"sample_weight": [1.0, -2.0, 1.0]}),
    ):
        loss, grad = fx.cross_entropy_with_grad(x, target, **options)
        truth, slope = ref.cross_entropy_with_grad(x, target, **options)
        assert math.isnan(loss)
        assert np.isnan(truth)
        expected = np.zeros((3, c), bool)
        expected[used] = True  # ignored rows have no part in it: 0, as in torch
        np.testing.assert_array_equal(np.isnan(ref.wide(grad)), expected)
        np.testing.assert_array_equal(np.isnan(slope), expected)
        out = np.empty((c, 3), grad.dtype).T
        assert fx.cross_entropy_with_grad(x, target, out=out, **options).grad is out
        np.testing.assert_array_equal(np.isnan(ref.wide(out)), expected)


@pytest.mark.parametrize("clip_eps", [None, 1e-3])
def test_the_gradient_of_an_undefined_mean_of_probabilities_is_nan(clip_eps):
    p = np.array([[0.0, 0.5, 0.5], [1.0, 0.0, 0.0]])
    options = {"input": "probs", "clip_eps": clip_eps, "sample_weight": [1.0, -1.0]}
    assert np.isnan(fx.cross_entropy_with_grad(p, [1, 0], **options).grad).all()
    assert np.isnan(ref.cross_entropy_with_grad(p, [1, 0], **options)[1]).all()

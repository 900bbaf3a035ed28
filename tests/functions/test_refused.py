"""Empty input, and options that make no sense."""

from __future__ import annotations

import math

import numpy as np
import pytest

import fastxent as fx
from tests.functions.examples import LOGITS, TARGET, C


@pytest.mark.parametrize("shape", [(0, 4), (0, 3, 4), (3, 0, 4)])
def test_empty_input(shape):
    x, target = np.zeros(shape, np.float32), np.zeros(shape[:-1], np.int64)
    assert fx.cross_entropy(x, target, reduction="sum") == 0
    assert math.isnan(fx.cross_entropy(x, target))
    assert math.isnan(fx.cross_entropy(x, np.zeros(shape)))
    assert fx.cross_entropy(x, target, reduction="none").shape == shape[:-1]
    assert fx.cross_entropy_with_grad(x, target).grad.shape == shape
    assert fx.log_softmax(x).shape == fx.softmax(x).shape == shape
    assert fx.logsumexp(x).shape == fx.entropy(x).shape == fx.row_statistics(x, target).rank.shape == shape[:-1]
    assert fx.focal_loss(x, target, reduction="sum") == fx.kl_divergence(x, x, reduction="sum") == 0
    assert math.isnan(fx.js_divergence(x, x))
    assert math.isnan(fx.binary_cross_entropy_with_logits(x, x))


@pytest.mark.parametrize("shape", [(0,), (3, 0), (0, 0)])
def test_no_classes_is_an_error(shape):
    x, target = np.zeros(shape), np.zeros(shape[:-1], np.int64)
    for call in (fx.log_softmax, fx.softmax, fx.logsumexp, fx.entropy, fx.row_statistics):
        with pytest.raises(ValueError, match="class"):
            call(x)
    for call in (fx.cross_entropy, fx.cross_entropy_with_grad, fx.nll_loss, fx.focal_loss, fx.row_statistics):
        with pytest.raises(ValueError, match="class"):
            call(x, target)
    for call in (fx.kl_divergence, fx.js_divergence):
        with pytest.raises(ValueError, match="class"):
            call(x, x)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"reduction": "avg"}, "reduction"),
        ({"input": "scores"}, "input"),
        ({"temperature": 0.0}, "temperature"),
        ({"temperature": -1.0}, "temperature"),
        ({"temperature": math.nan}, "temperature"),
        ({"softcap": 0.0}, "softcap"),
        ({"softcap": -3.0}, "softcap"),
        ({"base": 1.0}, "base"),
        ({"base": -2.0}, "base"),
        ({"weight": np.ones(C + 1)}, "weight"),
        ({"weight": np.ones((5, C))}, "weight"),
        ({"sample_weight": np.ones(4)}, "sample_weight"),
        ({"class_mask": np.ones(C - 1, bool)}, "class_mask"),
        ({"axis": 2}, "axis"),
        ({"axis": -3}, "axis"),
        ({"clip_eps": -0.1, "input": "probs"}, "clip_eps"),
        ({"clip_eps": 0.6, "input": "probs"}, "clip_eps"),
    ],
)
def test_an_option_that_makes_no_sense_is_named(options, message):
    with pytest.raises(ValueError, match=message):
        fx.cross_entropy(LOGITS, TARGET, **options)


NOT_A_NUMBER = ["1", True, math.nan, math.inf, 1j, [1.0], np.ones(2), object()]


@pytest.mark.parametrize(
    ("call", "names", "optional"),
    [
        (lambda **o: fx.cross_entropy(LOGITS, TARGET, **o), ["label_smoothing", "temperature", "z_loss"], False),
        (lambda **o: fx.cross_entropy(LOGITS, TARGET, **o), ["softcap", "base"], True),
        (lambda **o: fx.cross_entropy(LOGITS, TARGET, **o), ["ignore_index", "axis"], False),
        (lambda **o: fx.cross_entropy(LOGITS, TARGET, input="probs", **o), ["clip_eps"], True),
        (lambda **o: fx.row_statistics(LOGITS, TARGET, **o), ["ignore_index", "temperature", "axis"], False),
        (lambda **o: fx.focal_loss(LOGITS, TARGET + 100, **o), ["gamma", "axis"], False),
        (lambda **o: fx.softmax(LOGITS, **o), ["temperature", "axis"], False),
        (lambda **o: fx.logsumexp(LOGITS, **o), ["temperature", "axis"], False),
        (lambda **o: fx.entropy(LOGITS, **o), ["base"], True),
        (lambda **o: fx.kl_divergence(LOGITS, LOGITS, **o), ["base"], True),
        (lambda **o: fx.log_loss([0.5, 0.5], [0, 1], **o), ["clip_eps"], True),
        (lambda **o: fx.binary_cross_entropy_with_logits(LOGITS, LOGITS, **o), ["label_smoothing"], False),
    ],
)
def test_an_option_of_another_type_is_one_line(call, names, optional):
    for name in names:
        for value in [
            *NOT_A_NUMBER,
            *([1.0] if name in ("axis", "ignore_index") else []),
            *([] if optional else [None]),
        ]:
            with pytest.raises(fx.ConfigError, match=rf"^{name} must be [^\n]*, got [^\n]*$"):
                call(**{name: value})


@pytest.mark.parametrize("value", [None, 1, ["mean"], np.array(["mean", "sum"]), b"mean", "Mean"])
def test_a_choice_of_another_type_is_one_line(value):
    for name, call in {
        "reduction": lambda **o: fx.cross_entropy(LOGITS, TARGET, **o),
        "input": lambda **o: fx.entropy(LOGITS, **o),
        "dtype": lambda **o: fx.softmax(LOGITS, **o) if value is not None else fx.softmax(LOGITS, dtype="none"),
    }.items():
        with pytest.raises(fx.ConfigError, match=rf"^{name} must be one of [^\n]*, got [^\n]*$"):
            call(**{name: value})

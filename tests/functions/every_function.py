"""Every array function on the same rows, and whether two of its answers have the same bits."""

from __future__ import annotations

import numpy as np

import fastxent as fx
import reference as ref

N, C = 6, 37
TARGET = np.array([0, 36, -100, 5, 17, 1])


def every_function(x, target, **options) -> dict[str, np.ndarray]:
    """What each array function makes of the rows, one entry a row."""
    loss, grad = fx.cross_entropy_with_grad(x, target, reduction="none", **options)
    statistics = fx.row_statistics(x, target, **options)._asdict()
    return {
        "loss": fx.cross_entropy(x, target, reduction="none", **options),
        "smooth": fx.cross_entropy(x, target, label_smoothing=0.1, z_loss=1e-4, reduction="none", **options),
        "loss with grad": loss,
        "grad": grad,
        "logsumexp": fx.logsumexp(x, **options),
        "softmax": fx.softmax(x, **options),
        "log_softmax": fx.log_softmax(x, **options),
        "entropy": fx.entropy(x, input="logits", **options),
    } | statistics


def assert_same_bits(results: dict, expected: dict) -> None:
    assert results.keys() == expected.keys()
    for name, result in results.items():
        assert result.dtype == expected[name].dtype, name
        np.testing.assert_array_equal(ref.bits_of(result), ref.bits_of(expected[name]), err_msg=name)


def unaligned(x: np.ndarray) -> np.ndarray:
    buffer = bytearray(x.nbytes + 1)
    view = np.frombuffer(buffer, np.uint8)[1:].view(x.dtype).reshape(x.shape)
    view[...] = x
    return view

"""Arrays that grow."""

from __future__ import annotations

import numpy as np


def grown(array: np.ndarray, size: int, axis: int = 0) -> np.ndarray:
    """The array with zeros behind it, so that it has ``size`` along an axis: `np.pad`, without what that costs."""
    shape = list(array.shape)
    shape[axis] = size - shape[axis]
    return np.concatenate([array, np.zeros(shape, array.dtype)], axis=axis)

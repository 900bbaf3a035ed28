"""The one table of float types, against NumPy and ml_dtypes."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pyarrow as pa
import pytest

import reference as ref
from fastxent.kernels.floats import FLOAT_TYPES, widened


@pytest.mark.parametrize("name", FLOAT_TYPES)
def test_the_table_agrees_with_the_types_themselves(name):
    kind, truth = FLOAT_TYPES[name], ref.DTYPES[name]
    assert kind.name == name
    assert kind.width == truth.itemsize
    assert kind.epsilon == float((ml_dtypes if name == "bfloat16" else np).finfo(truth).eps)
    assert kind.missing.dtype == kind.stored
    assert np.isnan(np.array([kind.missing]).view(truth)).all()
    assert (
        np.array([kind.missing]).view(f"u{kind.width}")[0]
        == kind.nan
        == np.array([np.nan], truth).view(f"u{kind.width}")[0]
    )
    assert kind.tag.itemsize == kind.width
    assert pa.type_for_alias(kind.arrow).to_pandas_dtype() == kind.stored.type


@pytest.mark.parametrize("name", FLOAT_TYPES)
def test_widening_is_exact(name):
    truth = ref.DTYPES[name]
    bits = np.arange(1 << 16).astype(f"u{truth.itemsize}") << np.uint64(8 * (truth.itemsize - 2))
    stored = bits.astype(f"u{truth.itemsize}").view(FLOAT_TYPES[name].stored)
    wide = widened(stored, name)
    assert wide.dtype == FLOAT_TYPES[name].compute
    np.testing.assert_array_equal(wide, stored.view(truth).astype(wide.dtype))
    assert (wide is stored) == (name in ("float32", "float64"))

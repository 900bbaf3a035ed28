"""Options that are numbers."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest

from fastxent import ConfigError
from fastxent.options.checks import real_number, whole_number


@pytest.mark.parametrize("value", [2, 2.0, np.float32(2), np.int8(2), np.array(2.0), Fraction(2)])
def test_a_number_of_any_library_is_a_float(value):
    result = real_number("x", value, low=2.0, high=2.0)
    assert (type(result), result) == (float, 2.0)


@pytest.mark.parametrize("value", ["2", None, True, np.True_, math.nan, math.inf, 10**400, 2j, [2.0], np.ones(1), b"2"])
def test_what_is_not_a_finite_number_is_named(value):
    with pytest.raises(ConfigError, match=r"^x must be a finite number, got .+$"):
        real_number("x", value)


def test_bounds_are_inclusive_or_not():
    for value, bounds in ((0, {"above": 0.0}), (1, {"below": 1.0}), (-1e-9, {"low": 0.0}), (1.1, {"high": 1.0})):
        with pytest.raises(ConfigError, match=r"x must lie there, got"):
            real_number("x", value, "lie there", **bounds)


@pytest.mark.parametrize("value", [3, np.uint8(3), np.array(3)])
def test_an_integer_of_any_library_is_an_int(value):
    result = whole_number("k", value, low=3, high=3)
    assert (type(result), result) == (int, 3)


@pytest.mark.parametrize("value", [3.0, "3", None, True, np.False_, np.float64(3), 3.5, [3]])
def test_what_is_not_an_integer_is_named(value):
    with pytest.raises(ConfigError, match=r"^k must be an integer, got .+$"):
        whole_number("k", value)


def test_an_error_is_one_short_line():
    with pytest.raises(ConfigError) as error:
        real_number("x", np.zeros((30, 30)))
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 120

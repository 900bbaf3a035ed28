"""`compare` of dumps of which one has more classes: `class_mask` says which count."""

from __future__ import annotations

import numpy as np
import pyarrow.parquet as pq
import pytest

import fastxent as fx
from tests.verbs import pairs
from tests.verbs.pairs import CLASSES, ROWS
from tests.verbs.test_compare_by_id import bits

MORE = 5  # classes of padding
PADDED = np.concatenate([pairs.A, np.full((ROWS, MORE), 50.0, np.float32)], axis=1)
MASK = [1] * CLASSES + [0] * MORE


@pytest.mark.parametrize("wide", ["a", "b"])
def test_classes_of_padding_do_not_count(tmp_path, wide):
    want = fx.compare(pairs.dump(pairs.A), pairs.dump(pairs.B))
    sides = [pairs.dump(PADDED), pairs.dump(pairs.B)]
    if wide == "b":
        sides.reverse()
        want = fx.compare(pairs.dump(pairs.B), pairs.dump(pairs.A))
    assert bits(fx.compare(*sides, class_mask=MASK)) == bits(want)
    for name, table in zip("ab", sides, strict=True):
        pq.write_table(table, tmp_path / f"{name}.parquet", row_group_size=50, data_page_size=500)
    files = tmp_path / "a.parquet", tmp_path / "b.parquet"
    assert bits(fx.compare(*files, class_mask=MASK, memory="1MB", threads=2)) == bits(want)


def test_other_classes_may_be_excluded_too():
    mask = [0, *MASK[1:]]
    found = fx.compare(pairs.dump(PADDED), pairs.dump(pairs.B), class_mask=mask, on_bad_row="skip", metrics="accuracy")
    want = fx.compare(pairs.dump(pairs.A), pairs.dump(pairs.B), class_mask=mask[:CLASSES], on_bad_row="skip",
                      metrics="accuracy")  # fmt: skip
    assert bits(found) == bits(want)


def test_what_the_mask_must_say():
    a, b = pairs.dump(PADDED), pairs.dump(pairs.B)
    with pytest.raises(fx.SourceError, match=r"must have the same classes, got 28 in .* and 23 in .*; class_mask"):
        fx.compare(a, b)
    for mask, got in ((MASK[:CLASSES], "23 entries"), ([1] * 28, "5 that are not 0")):
        with pytest.raises(fx.ConfigError, match=f"^class_mask must have 28 entries, .* last 5, .* got {got}$"):
            fx.compare(a, b, class_mask=mask)
    with pytest.raises(fx.ConfigError, match=r"^class_weight cannot be combined"):
        fx.compare(a, b, class_mask=MASK, class_weight=[1.0] * 28)
    with pytest.raises(fx.ConfigError, match=r"^class_mask must have 23 entries"):
        fx.compare(b, b, class_mask=MASK)
    far = pairs.TARGET.copy()
    far[7] = CLASSES + 1
    with pytest.raises(fx.BadRowError, match=r"row 7.*target"):
        fx.compare(pairs.dump(PADDED, far), pairs.dump(pairs.B, far), class_mask=MASK)

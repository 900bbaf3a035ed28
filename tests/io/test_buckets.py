"""Rows through a temporary file: what is read is what was put at each place, in any order and from any threads."""

from __future__ import annotations

import threading
from contextlib import closing

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from fastxent.errors import OutputError
from fastxent.io import buckets
from fastxent.io.buckets import Buckets

WIDTH = 3


def rows_of(places: np.ndarray, dtype: type = np.float32) -> np.ndarray:
    """Rows that say which place they belong to."""
    return (places[:, None] * 10 + np.arange(WIDTH)).astype(dtype)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_rows_are_where_they_were_put(tmp_path_factory, monkeypatch, data):
    rows = data.draw(st.integers(1, 60), "rows")
    size = data.draw(st.integers(1, 70), "rows of a bucket")
    monkeypatch.setattr(buckets, "_LEAST", size * WIDTH * 4)
    order = np.array(data.draw(st.permutations(range(rows))), np.int64)
    step = data.draw(st.integers(1, rows), "rows of a block")
    with closing(Buckets(str(tmp_path_factory.mktemp("b")), (rows, WIDTH), np.dtype(np.float32), 1 << 20)) as held:
        held.put(order[:0], rows_of(order[:0]))
        for begin in range(0, rows, step):
            held.put(order[begin : begin + step], rows_of(order[begin : begin + step]))
        for _ in range(5):
            begin, end = sorted(data.draw(st.tuples(st.integers(0, rows), st.integers(0, rows)), "range"))
            found = np.asarray(held.read(begin, end, WIDTH).flatten()).reshape(-1, WIDTH)
            np.testing.assert_array_equal(found, rows_of(np.arange(begin, end)))


def test_threads_put_and_read_at_once(tmp_path, monkeypatch):
    monkeypatch.setattr(buckets, "_LEAST", 64 * 2)
    rows, parts = 3000, 4
    order = np.random.default_rng(1).permutation(rows)
    wrong = []
    with closing(Buckets(str(tmp_path), (rows,), np.dtype(np.float16), 1 << 12)) as held:

        def each(work, *arguments):
            threads = [threading.Thread(target=work, args=(k, *arguments)) for k in range(parts)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()

        def put(k):
            for some in np.array_split(order[k::parts], 9):
                held.put(some, (some % 2048).astype(np.float16))

        def read(k):
            for begin in range(k, rows - 100, 37):
                found = np.asarray(held.read(begin, begin + 100, None))
                if not (found == np.arange(begin, begin + 100) % 2048).all():
                    wrong.append(begin)

        each(put)
        each(read)
    assert wrong == []


def test_a_file_that_becomes_shorter_is_an_error(tmp_path):
    places = np.arange(5)
    with closing(Buckets(str(tmp_path), (5, WIDTH), np.dtype(np.float32), 1 << 20)) as held:
        held.put(places, rows_of(places))
        (path,) = tmp_path.iterdir()
        with path.open("r+b") as file:
            file.truncate(7)
        with pytest.raises(OutputError, match="it became shorter"):
            held.read(0, 5, WIDTH)

"""`compare` by ids: the rows of both in any order give the bits of the same rows by position."""

from __future__ import annotations

import json
import os
import re

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings, strategies as st

import fastxent as fx
from fastxent.cli.program import run
from fastxent.io.source import open_source
from fastxent.verbs import alignment, matching
from fastxent.verbs.matching import ids_of, match
from fastxent.verbs.spilled import match_spilled
from tests.verbs import pairs
from tests.verbs.pairs import ROWS

NUMBER = np.arange(ROWS) * 7 - 90
ORDER = np.random.default_rng(4).permutation(ROWS)
OPTIONS = dict(by="kind", id="id", largest=7)


def dumps_with_ids():
    a, b = pairs.both()
    return a.append_column("n", [NUMBER]), b.append_column("n", [NUMBER]).append_column("id", a["id"])


def bits(result):
    found = result.to_dict()
    return json.dumps({name: found[name] for name in found if name not in ("timing", "files", "largest", "versions")})


@pytest.fixture(scope="module")
def by_position():
    return fx.compare(*dumps_with_ids(), **OPTIONS)


@pytest.mark.parametrize("dtype", [np.int32, np.int64])
@pytest.mark.parametrize("rows", [0, 1, 5, matching._ROWS, 3 * matching._ROWS + 7])
def test_the_order_is_the_row_at_each_place(rows, dtype):
    random = np.random.default_rng(rows)
    some = np.flatnonzero(random.random(rows) < 0.8)
    places = np.full(rows, -1, dtype)
    places[some] = random.permutation(len(some))
    found = matching.order_of(places)
    assert found.dtype == dtype
    assert len(found) == len(some)
    assert np.array_equal(places[found], np.arange(len(some)))


@pytest.mark.parametrize("on", ["id", "n", ["id", "n"]])
def test_any_order_has_the_bits_of_the_same_rows_by_position(by_position, on):
    a, b = dumps_with_ids()
    assert bits(fx.compare(a, b.take(ORDER), on=on, **OPTIONS)) == bits(by_position)
    assert bits(fx.compare(a.take(ORDER), b, on=on, **OPTIONS)) == bits(by_position)
    assert bits(fx.compare(a, b, on=on, **OPTIONS)) == bits(by_position)


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16", "float64"])
def test_files_of_any_layout_through_a_temporary_file(tmp_path, monkeypatch, threads, dtype):
    """So little memory that the rows do not fit in half of it."""
    a, b = dumps_with_ids()
    pq.write_table(a, tmp_path / "a.parquet", row_group_size=40)
    pq.write_table(b, tmp_path / "sorted.parquet")
    pq.write_table(b.take(ORDER), tmp_path / "shuffled.parquet", row_group_size=25, data_page_size=500)
    for name in ("sorted", "shuffled"):
        fx.convert(tmp_path / f"{name}.parquet", tmp_path / f"{name}-{dtype}.parquet", dtype=dtype)
    b_sorted, b_shuffled = (tmp_path / f"{name}-{dtype}.parquet" for name in ("sorted", "shuffled"))
    used, real = [], alignment.Buckets
    monkeypatch.setattr(alignment, "Buckets", lambda *given: (used.append(given), real(*given))[1])
    monkeypatch.setattr(matching, "_ROWS", 50)
    want = bits(fx.compare(tmp_path / "a.parquet", b_sorted, **OPTIONS))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr("fastxent.verbs.comparison.reordered", _with_memory(alignment.reordered, 1 << 10))
    assert bits(fx.compare(tmp_path / "a.parquet", b_shuffled, on="id", threads=threads, **OPTIONS)) == want
    assert len(used) == 1
    assert not list(tmp_path.glob("fastxent-*"))


def test_rows_that_are_read_where_they_lie(by_position, tmp_path, monkeypatch):
    """Neither copied to memory nor to a temporary file."""
    a, b = dumps_with_ids()
    pq.write_table(b.take(ORDER), tmp_path / "b.parquet", row_group_size=100, compression="none", use_dictionary=False)
    monkeypatch.setattr("fastxent.io.scattered._LEAST", 1)
    monkeypatch.setattr("fastxent.io.in_place._SURE", 1e3)
    monkeypatch.setattr(alignment, "_destination", None)
    monkeypatch.setattr("fastxent.verbs.comparison.reordered", _with_memory(alignment.reordered, 1 << 10))
    assert bits(fx.compare(a, tmp_path / "b.parquet", on="id", **OPTIONS)) == bits(by_position)


def _with_memory(real, size):
    def reordered(source, places, rows, columns, options, **more):
        return real(source, places, rows, columns, {**options, "memory": size}, **more)

    return reordered


@pytest.mark.parametrize(
    "change",
    [
        lambda ids: ids.cast(pa.int16()),
        lambda ids: ids.cast(pa.float64()),
        lambda ids: ids.cast(pa.decimal128(21, 2)),
        lambda ids: ids.dictionary_encode(),
        lambda ids: pc.add(ids, 200).cast(pa.uint64()),
    ],
)
def test_one_value_is_one_id_whatever_its_type(by_position, change):
    a, b = dumps_with_ids()
    changed = change(b["n"])
    if changed.type == pa.uint64():
        a = a.set_column(a.schema.get_field_index("n"), "n", pc.add(a["n"], 200))
    b = b.set_column(b.schema.get_field_index("n"), "n", changed)
    assert bits(fx.compare(a, b.take(ORDER), on="n", **OPTIONS)) == bits(by_position)


def test_inner_uses_the_rows_of_both():
    a, b = dumps_with_ids()
    left, right = ORDER[: ROWS - 30], np.sort(ORDER[20:])
    common = ORDER[20 : ROWS - 30]
    found = fx.compare(a.take(left), b.take(right), on="id", how="inner", **OPTIONS)
    want = fx.compare(a.take(common), b.take(common), **OPTIONS)
    assert (found.rows.only_a, found.rows.only_b) == (20, 30)
    assert found.rows.total == len(common)
    values, expected = json.loads(bits(found)), json.loads(bits(want))
    assert values.pop("rows") != expected.pop("rows")
    assert values == expected
    assert {row.id for row in found.largest} == {row.id for row in want.largest}


@pytest.mark.parametrize("shared", [0, 4])
def test_inner_of_arrays_uses_the_rows_of_both(shared):
    x, target = pairs.A[:9], np.maximum(pairs.TARGET[:9], 0)
    a = {"logits": x, "target": target, "n": np.arange(9)}
    order = np.random.default_rng(2).permutation(9)
    b = {"logits": x[order], "target": target[order], "n": order + (9 - shared)}
    b["target"] = np.where(b["n"] < 9, target[np.minimum(b["n"], 8)], 0)
    found = fx.compare(a, b, on="n", how="inner")
    assert (found.rows.total, found.rows.only_a, found.rows.only_b) == (shared, 9 - shared, 9 - shared)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda b: b.slice(3), fx.SourceError,
         "got 3 in .* that are not in .*, the first 'row 0' in row 0; how='inner'"),
        (lambda b: pa.concat_tables([b, b.slice(0, 2)]), fx.SourceError,
         "ids must be unique, got 2 rows in .* 'row 0' in row 331"),
        (lambda b: b.set_column(2, "n", b["n"]).set_column(3, "id", pa.array([None, *b["id"].to_pylist()[1:]])),
         fx.ColumnError, r"ids must not be null, got 1 nulls in column 'id' of .*, the first in row 0"),
        (lambda b: b.drop_columns("id"), fx.ColumnError, "no column 'id'"),
    ],
)  # fmt: skip
def test_ids_that_do_not_match(change, error, message):
    a, b = dumps_with_ids()
    with pytest.raises(error, match=message):
        fx.compare(a, change(b), on="id")


def test_ids_of_two_types_are_named():
    a, b = dumps_with_ids()
    b = b.set_column(b.column_names.index("n"), "n", b["n"].cast(pa.string()).dictionary_encode())
    for how in ("exact", "inner"):
        with pytest.raises(fx.ColumnError, match=r"got column 'n' of type int64 in .* and string in .*; convert one"):
            fx.compare(a, b, on="n", how=how)


def test_targets_that_differ_are_refused():
    a, b = dumps_with_ids()
    target = pairs.TARGET.copy()
    target[5] = (target[5] + 1) % pairs.CLASSES
    b = b.set_column(b.schema.get_field_index("target"), "target", [target])
    with pytest.raises(fx.BadRowError, match="in the order of the ids, row 5: the target is"):
        fx.compare(a, b.take(ORDER), on="id")


def test_rows_without_scores():
    a, b = dumps_with_ids()
    rows = b["logits"].to_pylist()
    rows[int(ORDER[4])] = None
    b = b.set_column(b.schema.get_field_index("logits"), "logits", [pa.array(rows, b["logits"].type)])
    with pytest.raises(fx.BadRowError, match="row 4: "):
        fx.compare(a, b.take(ORDER), on="id")
    found = fx.compare(a, b.take(ORDER), on="id", on_bad_row="skip")
    assert found.rows.bad == (1 if pairs.TARGET[ORDER[4]] != -100 else 0)


def test_a_run_in_parts(by_position, tmp_path, monkeypatch):
    a, b = dumps_with_ids()
    pq.write_table(a, tmp_path / "a.parquet", row_group_size=40)
    pq.write_table(b.take(ORDER), tmp_path / "b.parquet", row_group_size=25)
    files = tmp_path / "a.parquet", tmp_path / "b.parquet"
    shards = [fx.compare(*files, on="id", shard=f"{k}/2", **OPTIONS).state for k in (1, 2)]
    assert min(shard.total for shard in shards) > 0
    assert bits(fx.merge_states(shards).result()) == bits(by_position)
    for _ in range(2):
        found = fx.compare(*files, on="id", resume=tmp_path / "r", **OPTIONS)
        assert bits(found) == bits(by_position)
    assert found.timing["resumed_rows"] == ROWS
    with pytest.raises(fx.StateError, match="run"):
        fx.compare(*files, on=["id", "n"], resume=tmp_path / "r", **OPTIONS)


def test_what_cannot_be_run_in_parts(tmp_path):
    with pytest.raises(fx.ConfigError, match=r"^engine='ray' needs files, but .* is in memory"):
        fx.compare(*dumps_with_ids(), on="id", engine="ray")
    with pytest.raises(fx.ConfigError, match=r"^shard needs files, but .* is in memory"):
        fx.compare(*dumps_with_ids(), on="id", shard="1/2")
    with pytest.raises(fx.ConfigError, match="how must be"):
        fx.compare(*dumps_with_ids(), how="outer")
    with pytest.raises(fx.ConfigError, match=r"^how='inner' requires on, "):
        fx.compare(*dumps_with_ids(), how="inner")


def test_ids_that_do_not_fit_in_memory():
    many = {"n": np.arange(30_000), "acc": np.arange(30_000) % 2}
    order = np.random.default_rng(1).permutation(30_000)
    other = {name: values[order] for name, values in many.items()}
    found = fx.compare(many, other, on="n", memory="1MB", scores="acc")
    assert (found.rows.used, found.metrics["acc"].difference.value) == (30_000, 0.0)
    assert found.metrics["acc"].correlation == pytest.approx(1.0)
    with pytest.raises(fx.SourceError, match=r"^cannot match the rows of .* by id: .* raise memory \(--memory\)"):
        fx.evaluate(many, targets={"n": np.arange(30_000), "y": np.zeros(30_000)}, on="n", memory="1MB", scores="acc")


CHANGES = {
    "nothing": lambda b: b,
    "other types": lambda b: b.set_column(b.column_names.index("n"), "n", pc.cast(b["n"], pa.decimal128(21, 2))),
    "fewer": lambda b: b.slice(3),
    "again": lambda b: pa.concat_tables([b, b.slice(5, 2), b.slice(0, 2)]),
    "null": lambda b: b.set_column(b.column_names.index("id"), "id", pa.array([None, *b["id"].to_pylist()[1:]])),
    "another kind": lambda b: b.set_column(b.column_names.index("n"), "n", pc.cast(b["n"], pa.string())),
}


@pytest.mark.parametrize("on", ["id", "n", ["n", "id"]])
@pytest.mark.parametrize("how", ["exact", "inner"])
@pytest.mark.parametrize("change", CHANGES)
def test_ids_in_a_temporary_folder_match_as_those_in_memory(on, how, change):
    a, b = dumps_with_ids()
    b = CHANGES[change](b.take(ORDER))
    found = []
    for fits in (True, False):
        try:
            names = [on] if isinstance(on, str) else on
            sides = [open_source(x, logits="logits", columns=tuple(names)) for x in (a, b)]
            memory = 1 << 30
            if fits:
                ids = ids_of(sides, names, memory)
                found_rows = match((ids[0], ids[1]), (sides[0].files[0], sides[1].files[0]), inner=how == "inner")
            else:
                [found_rows] = match_spilled(sides, names, memory, inner=how == "inner")
            found.append([place.tolist() for place in found_rows.places])
        except fx.FastxentError as error:
            found.append([type(error), str(error)])
    assert found[0] == found[1]


def test_a_full_disk_is_one_line(monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    monkeypatch.setattr("fastxent.verbs.comparison.reordered", _with_memory(alignment.reordered, 1 << 10))
    a, b = dumps_with_ids()
    with pytest.raises(fx.OutputError, match=r"cannot put rows in order in the temporary file .*No space left.*TMPDIR"):
        fx.compare(a, b.take(ORDER), on="id")


@pytest.mark.parametrize("rows", [ROWS - 9, ROWS + 9])
def test_a_dump_that_changes_between_the_reads_is_refused(rows, tmp_path, monkeypatch):
    """Ids are those of a file of another length."""
    a, b = dumps_with_ids()
    b = b.take(ORDER)
    longer = pa.concat_tables([b, b])
    read = a.select(["id"]), b.select(["id"])
    monkeypatch.setattr("fastxent.verbs.comparison.ids_of", lambda sides, names, memory: read)
    with pytest.raises(fx.SourceError, match=r"cannot read .* twice: it had 331 ids"):
        fx.compare(a, longer.slice(0, rows), on="id")


def test_arrays_in_memory_are_read_in_any_order(by_position):
    """They are neither copied as a whole nor written to a file."""
    a, _ = dumps_with_ids()
    b = {"logits": pairs.B[ORDER], "target": pairs.TARGET[ORDER], "n": NUMBER[ORDER]}
    assert bits(fx.compare(a, b, on="n", memory="1MB", **OPTIONS)) == bits(by_position)
    halves = [(x.view(np.uint32) >> 16).astype(np.uint16) for x in (pairs.A, pairs.B)]
    sides = [{"logits": x, "target": pairs.TARGET, "n": NUMBER} for x in halves]
    want = fx.compare(*sides, logits_dtype="bfloat16")
    sides[1] = {name: column[ORDER] for name, column in sides[1].items()}
    assert bits(fx.compare(*sides, on="n", logits_dtype="bfloat16")) == bits(want)


def test_columns_of_the_name_of_the_scores_in_memory():
    """A column "scores" beside the logits is read as it is."""
    rng = np.random.default_rng(8)
    order = rng.permutation(40)
    sides = [
        pa.table({"p": rng.normal(size=40), "y": np.arange(40) % 2, "scores": rng.random(40), "n": np.arange(40)})
        for _ in range(2)
    ]
    options = dict(logits="p", target="y", scores="scores", weight="scores")
    want = bits(fx.compare(*sides, **options))
    assert bits(fx.compare(sides[0], sides[1].take(order), on="n", **options)) == want
    found = fx.compare(sides[0].take(order), sides[1].slice(3), on="n", how="inner", **options)
    assert bits(found).replace('"only_a": 3', '"only_a": 0') == bits(
        fx.compare(sides[0].slice(3), sides[1].slice(3), **options)
    )


@settings(max_examples=60)
@given(st.data())
def test_matching_is_its_definition(data):
    """Rows are pairs of small numbers or texts; each place is looked up one by one."""
    kind = data.draw(st.sampled_from([st.integers(0, 9), st.text("ab", max_size=3)]))
    rows = st.lists(st.tuples(kind, st.integers(-2, 2)), unique=True, max_size=12)
    a, b = data.draw(rows), data.draw(rows)
    types = (pa.string() if isinstance((a + b + [("",)])[0][0], str) else pa.int32()), pa.int64()

    def table(rows):
        return pa.table({f"c{k}": pa.array([row[k] for row in rows], types[k]) for k in (0, 1)})

    found = match((table(a), table(b)), ("a", "b"), inner=True)
    common = [row for row in a if row in b]
    assert found.rows == len(common)
    for side, places in zip((a, b), found.places, strict=True):
        assert places.tolist() == [common.index(row) if row in common else -1 for row in side]
    if len(common) < max(len(a), len(b)):
        with pytest.raises(fx.SourceError, match="both dumps must have the same ids"):
            match((table(a), table(b)), ("a", "b"), inner=False)


def test_on_the_command_line(tmp_path, capsys):
    a, b = dumps_with_ids()
    pq.write_table(a, tmp_path / "a.parquet")
    pq.write_table(b.take(ORDER[:300]), tmp_path / "b.parquet")
    files = [str(tmp_path / "a.parquet"), str(tmp_path / "b.parquet")]
    assert run(["compare", *files, "--on", "id,n"]) == 2
    assert re.search(r"got 31 in \S+a.parquet that are not in \S+b.parquet", capsys.readouterr().err)
    assert run(["compare", *files, "--on", "id", "--on", "n", "--how", "inner", "--names", "old,new"]) == 0
    assert "31 only in old" in capsys.readouterr().out


def test_ids_that_are_lists_are_refused():
    a, b = pairs.both()
    lists = pa.array([[k] for k in range(len(a))])
    sides = [table.append_column("ids", lists) for table in (a, b)]
    with pytest.raises(fx.ColumnError, match=r"cannot match rows by column 'ids': its values are of type list<"):
        fx.compare(*sides, on="ids")
    with pytest.raises(fx.ColumnError, match=r"cannot name rows by column 'id': its values are of type list<"):
        fx.compare(*sides, id="ids")

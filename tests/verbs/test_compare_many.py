"""`compare_many`: the figures of `compare` for each dump, from one read of the base, and p-values adjusted by Holm."""

from __future__ import annotations

import itertools
import json
import math

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings, strategies as st

import fastxent as fx
from fastxent.io.lockstep import LockstepSource, ManyBatch
from fastxent.io.source import open_source
from fastxent.results.holm import holm
from tests.verbs import clicks, pairs, tags

RNG = np.random.default_rng(21)
OTHERS = {
    "low": pairs.B,
    "high": (pairs.A + RNG.normal(size=pairs.A.shape) * 0.2).astype(np.float16),
    "same": pairs.A,
}


def dumps(**columns):
    return pairs.dump(pairs.A, **pairs.COLUMNS), {name: pairs.dump(odds, **columns) for name, odds in OTHERS.items()}


@pytest.fixture(scope="module")
def result():
    base, others = dumps()
    return fx.compare_many(base, others, by="kind", cluster="doc", id="id", largest=3)


def plain(result):
    """The JSON of a comparison without what depends on the run, and without the p-values adjusted for dumps."""
    values = {**result.to_dict(), "timing": None, "files": None, "versions": None}
    values["metrics"] = {name: {**m, "adjusted_p_value": None} for name, m in values["metrics"].items()}
    return json.dumps(values)


def without_places(result):
    return [json.dumps({**json.loads(plain(each)), "largest": None}) for each in result.comparisons.values()]


def test_each_comparison_is_that_of_two_dumps(result):
    base, others = dumps()
    assert list(result.comparisons) == ["low", "high", "same"]
    for name, other in others.items():
        alone = fx.compare(base, other, by="kind", cluster="doc", id="id", largest=3, names=("base", name))
        assert plain(result[name]) == plain(alone)
    assert result.names == ("base", "low", "high", "same")


def test_p_values_are_adjusted_for_the_number_of_dumps(result):
    for name, metric in result["low"].metrics.items():
        each = [found.metrics[name].p_value for found in result.comparisons.values()]
        adjusted = [found.metrics[name].adjusted_p_value for found in result.comparisons.values()]
        if math.isnan(metric.p_value):
            assert math.isnan(adjusted[0])
            continue
        order = np.argsort(each, kind="stable")
        running = np.maximum.accumulate(np.array(each)[order] * np.arange(len(each), 0, -1))
        assert np.array(adjusted)[order] == pytest.approx(np.minimum(1, running))
    assert result["same"].metrics["cross_entropy"].adjusted_p_value == 1


@given(st.lists(st.floats(0, 1) | st.just(math.nan), max_size=8))
def test_holm(p_values):
    found = holm(p_values)
    known = [(p, q) for p, q in zip(p_values, found, strict=True) if p == p]
    assert all(math.isnan(q) for p, q in zip(p_values, found, strict=True) if p != p)
    for p, q in known:
        assert p <= q <= min(1.0, p * len(known)) or q == pytest.approx(p)
        # the closed testing procedure over Bonferroni: the largest over all sets of hypotheses that hold this one
        lower = sum(other < p for other, _ in known)
        assert q >= min(1.0, p * (len(known) - lower)) - 1e-12
    assert all(q <= r for (p, q) in known for (o, r) in known if p <= o)


def test_any_split_threads_memory_and_order_have_the_same_bits(result, tmp_path):
    base, others = dumps()
    sizes = {"base": 100, "low": 71, "high": 90, "same": 50}
    for name, table in {"base": base, **others}.items():
        pq.write_table(table, tmp_path / f"{name}.parquet", row_group_size=sizes[name], data_page_size=900)
    paths = {name: tmp_path / f"{name}.parquet" for name in others}
    options = dict(by="kind", cluster="doc", id="id", largest=3)
    want = without_places(result)
    for threads, memory in ((1, "1MB"), (3, "64MB")):
        found = fx.compare_many(tmp_path / "base.parquet", paths, threads=threads, memory=memory, **options)
        assert without_places(found) == want
    states = [fx.compare_many(tmp_path / "base.parquet", paths, shard=f"{k}/2", **options).state for k in (2, 1)]
    merged = fx.merge_states(states)
    assert without_places(merged.result()) == want
    assert merged == states[1].merge(states[0])
    first = fx.compare_many(tmp_path / "base.parquet", paths, resume=tmp_path / "progress", **options)
    again = fx.compare_many(tmp_path / "base.parquet", paths, resume=tmp_path / "progress", **options)
    assert without_places(first) == without_places(again) == want
    assert again.timing["resumed_rows"] == pairs.ROWS
    stream = pa.RecordBatchReader.from_batches(base.schema, base.to_batches(max_chunksize=23))
    assert without_places(fx.compare_many(stream, paths, **options)) == want


def test_the_base_is_read_once(monkeypatch):
    base, others = dumps()
    read = []

    class Spied:
        def __arrow_c_stream__(self, requested_schema=None):
            read.append(1)
            return base.__arrow_c_stream__(requested_schema)

    fx.compare_many(Spied(), list(others.values()))
    assert len(read) == 1


@settings(max_examples=25, deadline=None)
@given(st.lists(st.lists(st.integers(1, 40), min_size=1, max_size=6), min_size=3, max_size=4), st.integers(1, 3000))
def test_units_of_many_dumps_hold_each_row_once(cuts, memory):
    rows = max(sum(sizes) for sizes in cuts)
    logits = np.arange(rows * 3, dtype=np.float32).reshape(rows, 3)
    sources = []
    for sizes in cuts:
        ends = [0, *np.minimum(np.cumsum(sizes), rows).tolist(), rows]
        chunks = [pairs.dump(logits[a:b], np.arange(a, b)) for a, b in itertools.pairwise(ends) if a < b]
        sources.append(open_source(pa.concat_tables(chunks), logits="logits", columns=("target",)))
    seen = []
    for unit in LockstepSource.of(*sources).units():
        for batch in unit.read(17, memory, whole=True):
            assert isinstance(batch, ManyBatch)
            begin = batch.columns["target"][0].as_py()
            held = [block.pairs() for block in batch.blocks]
            for k, pair in enumerate(batch.pairs()):
                for side in (lambda block: block.values, lambda block: block.other.values):
                    values = np.concatenate([side(blocks[k]) for blocks in held])
                    assert np.array_equal(values, logits[begin : begin + batch.rows])
                assert pair.columns["target"].to_pylist() == list(range(begin, begin + batch.rows))
                assert pair.other.columns["target"].to_pylist() == pair.columns["target"].to_pylist()
            seen += range(begin, begin + batch.rows)
    assert sorted(seen) == list(range(rows))


def test_rows_in_any_order():
    base, others = dumps(id=pairs.COLUMNS["id"])
    want = fx.compare_many(base, others)
    shuffled = {name: table.take(np.random.default_rng(k).permutation(pairs.ROWS))
                for k, (name, table) in enumerate(others.items())}  # fmt: skip
    found = fx.compare_many(base, shuffled, on="id")
    assert without_places(found) == without_places(want)


def test_rows_that_all_dumps_have():
    base, others = dumps(id=pairs.COLUMNS["id"])
    lacking = {"low": others["low"].slice(10), "high": others["high"].slice(0, pairs.ROWS - 20), "same": others["same"]}
    with pytest.raises(fx.SourceError, match=r"10 in .* that are not in"):
        fx.compare_many(base, lacking, on="id")
    found = fx.compare_many(base, lacking, on="id", how="inner")
    kept = pairs.ROWS - 30
    want = fx.compare_many(base.slice(10, kept), {name: table.slice(10, kept) for name, table in others.items()})
    for name, rows in (("low", 20), ("high", 10), ("same", 30)):
        assert found[name].metrics == want[name].metrics
        assert found[name].rows.total == kept
        assert (found[name].rows.only_a, found[name].rows.only_b) == (30, rows)


def test_every_task():
    other = clicks.table(logits=clicks.ODDS * 1.5)
    found = fx.compare_many(clicks.table(), [other, clicks.table()], names=("base", "sharp", "same"))
    alone = fx.compare(clicks.table(), other, names=("base", "sharp"))
    assert plain(found["sharp"]) == plain(alone)
    nested = tags.table(logits=list(tags.ODDS * 1.5))
    found = fx.compare_many(tags.table(), [nested, tags.table()], task="multilabel", names=("base", "sharp", "same"))
    assert plain(found["sharp"]) == plain(fx.compare(tags.table(), nested, task="multilabel", names=("base", "sharp")))
    scores = [{"acc": [1.0, 0.0, None, 1.0]}, {"acc": [1.0, 1.0, 1.0, None]}, {"acc": [0.0, 0.0, 1.0, 1.0]}]
    found = fx.compare_many(scores[0], scores[1:], scores="acc", names=("x", "y", "z"))
    assert [each.metrics["acc"].difference.value for each in found.comparisons.values()] == [0.5, pytest.approx(-1 / 3)]
    one = fx.compare_many(clicks.table(), {"sharp": other})
    assert plain(one["sharp"]) == plain(alone)


def test_the_result_is_a_value(result):
    again = fx.CompareSet.from_json(result.to_json())
    assert again == result
    assert fx.ComparisonsState.from_bytes(result.state.to_bytes()) == result.state
    empty = result.state.emptied()
    assert empty.merge(result.state) == result.state.merge(empty) == result.state
    table = result.to_arrow()
    assert table.column_names[0] == "dump"
    assert set(table.column("dump").to_pylist()) == {"low", "high", "same"}
    for text in (repr(result), result.to_markdown()):
        assert "base → 3 dumps" in text
        assert "p (Holm)" in text
    assert max(map(len, repr(result).splitlines())) <= 80
    with pytest.raises(fx.StateError, match="different comparisons"):
        result.state.merge(fx.ComparisonsState(result.state.states[:2]))
    with pytest.raises(fx.StateError, match="cannot be merged"):
        fx.merge_states([result.state, result.state.states[0]])
    with pytest.raises(fx.StateError, match="not the state of several"):
        fx.ComparisonsState.from_bytes(result.state.states[0].to_bytes())
    data = bytearray(result.state.to_bytes())
    data[len(data) // 2] ^= 1
    with pytest.raises(fx.StateError, match="damaged"):
        fx.ComparisonsState.from_bytes(bytes(data))


@pytest.mark.parametrize(
    "change",
    [{"schema": "fastxent/compare/1"}, {"comparisons": []}, {"comparisons": None}, {"base": "low"}, {"timing": 3}],
)
def test_other_json_is_refused(result, change):
    with pytest.raises(fx.StateError, match="cannot read the comparisons"):
        fx.CompareSet.from_dict({**result.to_dict(), **change})
    with pytest.raises(fx.StateError, match="cannot read the comparison"):
        fx.CompareSet.from_json("[" * 100_000)


@pytest.mark.parametrize(
    ("others", "names", "match"),
    [
        (["a", "b"], ("x", "y"), r"names must hold the name of the base and of each other dump, 3 in all"),
        ({"p": "a"}, ("x", "y"), r"names must hold the name of the base alone"),
        ({"base": "a"}, None, r"names must be different strings"),
        (["a", "b"], ("x", "y", "y"), r"names must be different strings, got \('x', 'y', 'y'\)"),
        ([], None, r"others must hold at least one dump"),
        ("a", None, r"others must be a dict of name to dump, or a list of dumps"),
        (["a"], ("x", ""), r"names must be strings"),
    ],
)
def test_names_that_do_not_fit(others, names, match):
    with pytest.raises(fx.ConfigError, match=match):
        fx.compare_many({"logits": np.eye(2), "target": [0, 1]}, others, names=names)


def test_names_of_files(tmp_path):
    base, others = dumps()
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        pq.write_table(others["low"], tmp_path / folder / "dump.parquet")
    pq.write_table(others["same"], tmp_path / "base.parquet")
    paths = [tmp_path / "one" / "dump.parquet", str(tmp_path / "two" / "dump.parquet"), tmp_path / "base.parquet", base]
    found = fx.compare_many(base, paths)
    assert found.names == ("base", "dump 1", "dump 2", "base 3", "dump 4")


def test_dumps_that_do_not_fit(tmp_path):
    base, others = dumps()
    with pytest.raises(fx.SourceError, match=r"same number of rows: got 331 in .* and 330"):
        fx.compare_many(base, [others["low"], others["high"].slice(1)])
    with pytest.raises(fx.SourceError, match="same classes"):
        fx.compare_many(base, [others["low"], pairs.dump(pairs.A[:, :5])])
    target = pairs.TARGET.copy()
    target[7] += 1
    with pytest.raises(fx.BadRowError, match="row 7: the target is"):
        fx.compare_many(base, [others["low"], pairs.dump(pairs.B, target)])
    stream = pa.RecordBatchReader.from_batches(base.schema, base.slice(0, 300).to_batches(max_chunksize=50))
    with pytest.raises(fx.SourceError, match="same number of rows"):
        fx.compare_many(base, [others["low"], stream])
    bad = pairs.B.copy()
    bad[3] = np.nan
    found = fx.compare_many(base, {"bad": pairs.dump(bad), "low": others["low"]}, on_bad_row="skip")
    assert (found["bad"].rows.bad, found["low"].rows.bad) == (1, 0)
    assert found["low"].metrics["cross_entropy"].b == fx.evaluate(others["low"]).metrics["cross_entropy"]


def test_a_stream_is_one_dump():
    """Each of two readers would get every other batch: rows of one half against those of the other."""
    logits = pairs.dump(pairs.A).select(["logits"]).slice(0, 80)
    for count in (1, 2):
        stream = pa.RecordBatchReader.from_batches(logits.schema, logits.to_batches(max_chunksize=20))
        with pytest.raises(fx.SourceError, match="a stream must be one dump, got it for two"):
            fx.compare_many(logits if count == 2 else stream, [stream] * count, metrics=["entropy"])

"""The column chunks of a footer: pyarrow's numbers where it can be asked, an answer where it would abort."""

from __future__ import annotations

import io
from contextlib import closing
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fastxent.errors import SourceError
from fastxent.io.parquet.chunk import LogitsChunk, plan
from fastxent.io.parquet.footer import Footer, column_chunks
from fastxent.io.storage.local import LocalRanges
from fastxent.io.storage.remote import ReadRanges
from tests.io.held import held
from tests.io.parquet.handmade import varint


def whole(data: bytes) -> ReadRanges:
    return held(data, "a.parquet", 0, len(data))


@pytest.mark.parametrize("groups", [1, 3, 200])  # 200: more than the first guess
def test_the_same_numbers_as_pyarrow(tmp_path: Path, groups: int) -> None:
    path = tmp_path / "a.parquet"
    table = pa.table(
        {
            "id": pa.array([str(k) for k in range(1000)]),
            "logits": pa.array([[1.0, 2.0]] * 1000),
            "nested": pa.array([{"a": 1, "b": [b"x"]}] * 1000),
        }
    )
    codecs = {"id": "snappy", "logits.list.element": "lz4", "nested.a": "zstd", "nested.b.list.element": "none"}
    pq.write_table(table, path, row_group_size=1000 // groups, compression=codecs, write_page_index=True)
    metadata = pq.ParquetFile(path).metadata
    with closing(LocalRanges(str(path))) as source:
        for leaf in range(metadata.num_columns):
            infos = column_chunks(source, leaf)
            assert len(infos) == metadata.num_row_groups
            for group, info in enumerate(infos):
                theirs = metadata.row_group(group).column(leaf)
                assert info.rows == metadata.row_group(group).num_rows
                assert info.codec.removesuffix("_RAW") == theirs.compression
                assert info.encodings == set(theirs.encodings)
                assert info.entries == theirs.num_values
                assert info.size == theirs.total_compressed_size
                assert info.decompressed == theirs.total_uncompressed_size
                assert info.data_offset == theirs.data_page_offset
                assert info.dictionary_offset == theirs.dictionary_page_offset
                assert not info.elsewhere
                assert theirs.has_offset_index
                assert info.page_index is not None
                assert path.read_bytes()[sum(info.page_index) - 1] == 0  # a struct ends there
        several = [0, 2, metadata.num_columns - 1]
        together = Footer(source).infos(several)
        assert together == [
            list(group) for group in zip(*(column_chunks(source, leaf) for leaf in several), strict=True)
        ]
        assert Footer(source).infos([]) == [[]] * metadata.num_row_groups


def test_codecs_and_encodings_that_do_not_exist() -> None:
    """pyarrow 26 aborts the process when it is asked for the codec of such a file."""
    sink = io.BytesIO()
    pq.write_table(pa.table({"x": np.arange(8.0)}), sink, compression="zstd", use_dictionary=False)
    data = sink.getvalue()
    assert column_chunks(whole(data), 0)[0].codec == "ZSTD"
    begin = len(data) - 8 - int.from_bytes(data[-8:-4], "little")
    at = data.index(b"\x18\x01x\x15\x0c", begin)  # field 3: path ["x"]... field 4: codec 6
    broken = data[: at + 4] + b"\x3b" + data[at + 5 :]
    (info,) = column_chunks(whole(broken), 0)
    assert info.codec == "number -30"
    answer = plan(pq.ParquetFile(io.BytesIO(broken)).schema, 0, info, 0, 1, "float64", whole(broken))
    assert answer == "compression number -30"


@pytest.mark.parametrize("cut", [0, 3, 11, 12, 50])
def test_no_footer(cut: int) -> None:
    data = (b"PAR1" + bytes(60) + b"PAR1")[:cut]
    with pytest.raises(SourceError, match=r"a\.parquet: its footer is damaged"):
        column_chunks(whole(data), 0)


def test_a_footer_longer_than_the_file_or_of_nonsense() -> None:
    for length in (1 << 31, 53, 52, 4):
        data = b"PAR1" + b"\xff" * 52 + length.to_bytes(4, "little") + b"PAR1"
        with pytest.raises(SourceError, match="its footer is damaged"):
            column_chunks(whole(data), 0)


def test_row_groups_that_hold_nothing_take_no_memory() -> None:
    count = 1 << 20
    footer = b"\x49\xfc" + varint(count) + bytes(count) + b"\0"  # field 4: empty structs
    data = b"PAR1" + footer + len(footer).to_bytes(4, "little") + b"PAR1"
    with pytest.raises(SourceError, match="its footer is damaged"):
        Footer(whole(data)).infos(range(10_000))


def test_a_column_that_is_not_there() -> None:
    sink = io.BytesIO()
    pq.write_table(pa.table({"x": np.arange(8.0)}), sink)
    with pytest.raises(SourceError, match="its footer is damaged"):
        column_chunks(whole(sink.getvalue()), 1)


def test_numbers_that_contradict_the_file() -> None:
    sink = io.BytesIO()
    pq.write_table(pa.table({"x": np.arange(8.0)}), sink)
    source = whole(sink.getvalue())
    schema, (info,) = pq.ParquetFile(sink).schema, column_chunks(source, 0)
    assert isinstance(plan(schema, 0, info, 0, 1, "float64", source), LogitsChunk)
    for changes, match in (
        ({"size": 1 << 40}, "incomplete or its footer is damaged"),
        ({"size": -1}, "incomplete or its footer is damaged"),
        ({"data_offset": -5, "dictionary_offset": None}, "incomplete or its footer is damaged"),
        ({"data_offset": 3, "dictionary_offset": None}, "incomplete or its footer is damaged"),
        ({"rows": 9}, "8 values in 9 rows"),
        ({"rows": -1, "entries": -1}, "-1 values in -1 rows"),
    ):
        with pytest.raises(SourceError, match=match):
            plan(schema, 0, info._replace(**changes), 0, 1, "float64", source)  # type: ignore[arg-type]

"""Servers that fail or do not answer, and URLs that carry passwords."""

from __future__ import annotations

import asyncio
import io
import pickle
from typing import Any

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fsspec.asyn import AsyncFileSystem

import fastxent as fx
from fastxent.errors import SourceError
from fastxent.io.storage import remote
from fastxent.io.storage.files import find_files
from fastxent.names import public_name


class Answer(Exception):
    """An answer over HTTP that is not the file."""

    def __init__(self, status: int) -> None:
        super().__init__(f"status {status}")
        self.status = status


class Web(AsyncFileSystem):
    """What fsspec makes of a web server: every failure of a look is "not found", caused by the answer."""

    protocol = "web"
    cachable = False
    data = b""
    statuses: tuple[int, ...] = ()  # of the next looks
    stalled = False
    looks = 0

    async def _info(self, path: str, **_: Any) -> dict[str, Any]:
        cls = type(self)
        cls.looks += 1
        if cls.stalled:
            await asyncio.sleep(1000)
        if cls.statuses:
            status, cls.statuses = cls.statuses[0], cls.statuses[1:]
            raise FileNotFoundError(path) from Answer(status)
        return {"name": path, "size": len(cls.data), "type": "file"}

    async def _cat_file(self, path: str, start: int | None = None, end: int | None = None, **_: Any) -> bytes:
        return self.data[start:end]


@pytest.fixture
def web(monkeypatch: pytest.MonkeyPatch) -> type[Web]:
    sink = io.BytesIO()
    pq.write_table(pa.table({"logits": pa.array(np.eye(4).tolist()), "target": np.arange(4)}), sink)
    Web.data, Web.statuses, Web.stalled, Web.looks = sink.getvalue(), (), False, 0
    monkeypatch.setattr(remote, "_DELAYS", (0.0, 0.0, 0.0))
    fsspec.register_implementation("web", Web, clobber=True)
    return Web


def test_a_server_that_fails_is_asked_again(web: type[Web]) -> None:
    web.statuses = (500, 503, 429)
    assert fx.evaluate("web://host/a.parquet").rows.total == 4


@pytest.mark.parametrize(
    ("status", "looks", "message"),
    [
        (500, 4, "cannot read web://host/a.parquet: the server answered with HTTP 500"),
        (404, 1, "cannot read web://host/a.parquet: no such file or folder"),
        (403, 1, "cannot read web://host/a.parquet: permission denied"),
        (418, 1, "cannot read web://host/a.parquet: the server answered with HTTP 418"),
    ],
)
def test_only_what_is_not_there_is_called_so(status: int, looks: int, message: str, web: type[Web]) -> None:
    web.statuses = (status,) * 9
    with pytest.raises(SourceError) as got:
        find_files("web://host/a.parquet")
    assert str(got.value).startswith(message)
    assert "\n" not in str(got.value)
    assert web.looks == looks


def test_a_server_that_does_not_answer_is_given_up(web: type[Web], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "_PATIENCE", 0.05)
    web.stalled = True
    with pytest.raises(SourceError, match=r"^cannot read web://host/a.parquet"):
        find_files("web://host/a.parquet")


def test_a_read_without_an_answer_is_one_error() -> None:
    def fetch(offset: int, length: int) -> bytes:
        raise TimeoutError

    with pytest.raises(
        SourceError, match=r"^cannot read bytes 0 to 65536 of a: no answer within 30 s; check the network"
    ):
        remote.ReadRanges(fetch, "a", 0, 1 << 20).view(0, 10)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("s3://bucket/a.parquet", "s3://bucket/a.parquet"),
        ("s3://KEY:SE%2FCRET@bucket/a", "s3://***@bucket/a"),
        ("sftp://me@host/a@b", "sftp://me@host/a@b"),
        ("simplecache::https://u:p@host/a?x=1", "simplecache::https://***@host/a?x=1"),
        ("https://host/a?X-Amz-Signature=abc&n=1&token=t", "https://host/a?X-Amz-Signature=***&n=1&token=***"),
        ("GET https://u:p@ss@host/a failed", "GET https://***@host/a failed"),
    ],
)
def test_passwords_are_not_shown(url: str, shown: str) -> None:
    assert public_name(url) == shown


def test_passwords_reach_neither_results_nor_errors(web: type[Web]) -> None:
    result = fx.evaluate("web://me:geheim@host/a.parquet")
    assert result.files == ("web://***@host/a.parquet",)
    assert "geheim" not in result.to_json()
    (file,) = find_files("web://me:geheim@host/a.parquet")
    assert "geheim" not in pickle.loads(pickle.dumps(file)).name  # noqa: S301
    web.statuses = (500,) * 9
    with pytest.raises(SourceError) as got:
        find_files("web://me:geheim@host/a.parquet")
    assert "geheim" not in str(got.value)

"""Object storage, as a server on this machine speaks it: which requests are made, by pyarrow's client and by s3fs."""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
import requests
import s3fs
from moto.moto_server.threaded_moto_server import ThreadedMotoServer
from pyarrow import fs as pafs

import fastxent as fx
from fastxent.cli.program import run
from fastxent.io.storage import remote

MB = 1 << 20
N, C = 20_000, 300  # 24 MB of float32
X = np.random.default_rng(0).normal(size=(N, C)).astype(np.float32)
TABLE = pa.table({"logits": pa.FixedSizeListArray.from_arrays(X.ravel(), C), "target": np.arange(N) % C})
CLIENTS = {"pyarrow": "s3", "s3fs": "s3a"}


class Server:
    """A moto server behind a proxy that reads the requests and can cut connections."""

    def __init__(self) -> None:
        self.moto = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
        logging.getLogger("werkzeug").setLevel(logging.ERROR)
        self.moto.start()
        self.behind = self.moto.get_host_and_port()
        self.seen: list[tuple[str, str, int, int]] = []
        self.stumbles = False  # the first answer for each range breaks off
        self.cut: set[int] = set()  # numbers of GET requests whose answer breaks off
        self._gets = 0
        self._lock = threading.Lock()
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._socket.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        """One connection: requests one way, answers the other."""
        with contextlib.suppress(OSError), client, socket.create_connection(self.behind) as server:
            cut = threading.Event()
            back = threading.Thread(target=self._answers, args=(server, client, cut), daemon=True)
            back.start()
            while data := client.recv(1 << 16):
                if self._note(data):
                    cut.set()
                server.sendall(data)
            server.shutdown(socket.SHUT_WR)
            back.join()

    def _note(self, data: bytes) -> bool:
        """Remember a request; whether its answer is to be cut."""
        head = re.match(rb"(GET|HEAD) (\S+) HTTP", data)
        if not head:
            return False
        found = re.search(rb"\r\nrange: bytes=(\d+)-(\d+)", data, re.IGNORECASE)
        first, last = (int(found[1]), int(found[2])) if found else (0, -1)
        with self._lock:
            request = (head[1].decode(), head[2].decode(), first, last)
            stumbles = self.stumbles and request not in self.seen
            self.seen.append(request)
            ranged = found is not None
            self._gets += ranged
            return ranged and (stumbles or self._gets - 1 in self.cut)

    def _answers(self, server: socket.socket, client: socket.socket, cut: threading.Event) -> None:
        with contextlib.suppress(OSError):
            while data := server.recv(1 << 16):
                if cut.is_set():  # some of the answer, then nothing
                    client.sendall(data[: len(data) // 2])
                    client.shutdown(socket.SHUT_RDWR)
                    return
                client.sendall(data)
            client.shutdown(socket.SHUT_WR)

    def fresh(self) -> None:
        with self._lock:
            self.seen.clear()
            self.stumbles, self.cut, self._gets = False, set(), 0

    def ranges(self, key: str) -> list[tuple[int, int]]:
        return [(first, last) for method, path, first, last in self.seen if method == "GET" and path.endswith(key)]

    def stop(self) -> None:
        self._socket.close()
        self.moto.stop()


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with pytest.MonkeyPatch.context() as patched:
        for name in list(os.environ):
            if name.startswith("AWS_"):
                patched.delenv(name)
        server = Server()
        for name, value in {
            "AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_DEFAULT_REGION": "eu-west-3",
            "AWS_ENDPOINT_URL": server.url, "AWS_EC2_METADATA_DISABLED": "true",
        }.items():  # fmt: skip
            patched.setenv(name, value)
        client = boto3.client("s3")
        client.create_bucket(Bucket="dumps", CreateBucketConfiguration={"LocationConstraint": "eu-west-3"})
        client.create_bucket(Bucket="empty", CreateBucketConfiguration={"LocationConstraint": "eu-west-3"})
        for name, content in {
            "one.parquet": parquet(TABLE),
            "groups/a.parquet": parquet(TABLE.slice(0, 12_000), row_group_size=5000, compression="zstd"),
            "groups/b.parquet": parquet(TABLE.slice(12_000), row_group_size=5000, compression="zstd"),
            "groups/_SUCCESS": b"",
            "hive/fold=0/x.parquet": parquet(TABLE.slice(0, 500)),
            "hive/fold=1/x.parquet": parquet(TABLE.slice(500, 500)),
            "arrow/a.arrow": arrow(TABLE),
            "broken.parquet": parquet(TABLE)[: 5 * MB],
        }.items():
            client.put_object(Bucket="dumps", Key=name, Body=content)
        yield server
        server.stop()


@pytest.fixture
def s3(server: Server, monkeypatch: pytest.MonkeyPatch) -> Server:
    monkeypatch.setattr(remote, "_DELAYS", (0.0, 0.01, 0.02))
    server.fresh()
    s3fs.S3FileSystem.clear_instance_cache()
    return server


def parquet(table: pa.Table, **options: Any) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, **({"use_dictionary": ["target"], "compression": "none"} | options))
    return sink.getvalue().to_pybytes()


def arrow(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, table.schema) as out:
        out.write_table(table, max_chunksize=1000)
    return sink.getvalue().to_pybytes()


@pytest.fixture(scope="module")
def here() -> fx.EvalResult:
    return fx.evaluate(TABLE)


@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize(
    "path", ["one.parquet", "groups", "groups/", "groups/*.parquet", "g*/?.parquet", "arrow/a.arrow", "*ne.parquet"]
)
def test_the_figures_are_those_of_local_files(s3: Server, here: fx.EvalResult, client: str, path: str) -> None:
    result = fx.evaluate(f"{CLIENTS[client]}://dumps/{path}", threads=2)
    assert (result.rows, result.metrics) == (here.rows, here.metrics)


@pytest.mark.parametrize("client", CLIENTS)
def test_folders_with_partitions(s3: Server, client: str) -> None:
    result = fx.evaluate(f"{CLIENTS[client]}://dumps/hive", by="fold")
    assert {value: part.rows.total for value, part in result.slices["fold"].items()} == {0: 500, 1: 500}


@pytest.mark.parametrize("client", CLIENTS)
def test_only_ranges_are_read_each_once_and_some_mb_at_a_time(s3: Server, here: fx.EvalResult, client: str) -> None:
    fx.evaluate(f"{CLIENTS[client]}://dumps/one.parquet", threads=1)
    ranges = s3.ranges("/one.parquet")
    assert all(first <= last for first, last in ranges), "a request for the whole object"
    large = sorted(pair for pair in ranges if pair[1] - pair[0] >= MB)
    assert all(last - first < 4 * MB for first, last in large)
    assert all(first == before + 1 for (_, before), (first, _) in itertools.pairwise(large)), "read twice"
    assert 20 * MB < sum(last - first + 1 for first, last in large) <= N * C * 4 + MB
    assert len(ranges) - len(large) < 12  # footers, and the target column
    # the file is found and opened twice, and its version is compared at the beginning and at the end of its only unit
    assert sum(method == "HEAD" for method, *_ in s3.seen) <= 6


@pytest.mark.parametrize("client", CLIENTS)
def test_inspect_reads_few_rows(s3: Server, client: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["inspect", f"{CLIENTS[client]}://dumps/one.parquet"]) == 0
    assert "300 classes of float32" in capsys.readouterr().out
    assert sum(last - first + 1 for first, last in s3.ranges("/one.parquet")) < 4 * MB  # pages of 1 MB, prefetched


def test_transform_and_convert_read_from_afar(s3: Server, here: fx.EvalResult, tmp_path: Path) -> None:
    done = fx.transform("s3://dumps/groups", tmp_path / "o.arrow", keep="target", threads=2)
    assert done.metrics == here.metrics
    np.testing.assert_array_equal(pa.ipc.open_file(tmp_path / "o.arrow").read_all()["target"], TABLE["target"])
    fx.convert("s3://dumps/arrow/a.arrow", tmp_path / "o.parquet")
    assert fx.evaluate(tmp_path / "o.parquet").metrics == here.metrics


def test_datasets_and_filesystems_that_users_bring(s3: Server, here: fx.EvalResult) -> None:
    endpoint = s3.url.removeprefix("http://")
    filesystem = pafs.S3FileSystem(endpoint_override=endpoint, scheme="http", region="eu-west-3")
    assert fx.evaluate(ds.dataset("dumps/groups", filesystem=filesystem)).metrics == here.metrics
    assert fx.evaluate(ds.dataset("dumps/groups", filesystem=s3fs.S3FileSystem())).metrics == here.metrics


def test_the_command_line_in_a_process_of_its_own(s3: Server, here: fx.EvalResult) -> None:
    command = [sys.executable, "-m", "fastxent", "eval", "s3://dumps/groups", "--format", "json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
    assert fx.EvalResult.from_json(done.stdout).metrics == here.metrics


# ---- what goes wrong -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("dumps/nothing.parquet", "no such file or folder; check the path"),
        ("dumps/nothing/*.parquet", "no file matches"),
        ("nobucket/x.parquet", "no such file or folder; check the path"),
        ("nobucket/*.parquet", "no such file or folder|no file matches"),
        ("dumps/broken.parquet", "its footer is damaged or cut off"),
        ("empty", "holds no data files|no such file or folder"),
    ],
)
def test_what_is_not_there_is_one_line(
    s3: Server, client: str, path: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    url = f"{CLIENTS[client]}://{path}"
    assert run(["eval", url]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert url in said
    assert re.search(message, said), said


@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize("path", ["one.parquet", "groups", "groups/*.parquet"])
def test_a_denied_key_is_one_line(
    s3: Server, client: str, path: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    host, port = s3.behind
    reset = f"http://{host}:{port}/moto-api/reset-auth"
    requests.post(reset, data="0", timeout=20)  # from now on, credentials count
    try:
        url = f"{CLIENTS[client]}://dumps/{path}"
        assert run(["eval", url]) == 2
    finally:
        requests.post(reset, data="inf", timeout=20)
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert url in said
    assert "permission denied" in said


@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize("path", ["one.parquet", "groups", "arrow/a.arrow"])
def test_cut_connections_change_nothing(s3: Server, here: fx.EvalResult, client: str, path: str) -> None:
    url = f"{CLIENTS[client]}://dumps/{path}"
    fx.evaluate(url, threads=2)
    count = len([1 for method, _, _, last in s3.seen if method == "GET" and last >= 0])
    s3.fresh()
    s3.stumbles = True
    assert fx.evaluate(url, threads=2).metrics == here.metrics
    assert len([1 for method, _, _, last in s3.seen if method == "GET" and last >= 0]) > count


@pytest.mark.parametrize("client", CLIENTS)
def test_a_line_that_stays_dead_is_one_line(
    s3: Server, client: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "_DELAYS", ())  # the clients' own tries take seconds
    url = f"{CLIENTS[client]}://dumps/one.parquet"
    s3.cut = set(range(4, 10_000))
    assert run(["eval", url]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert re.search(rf"cannot read (bytes \d+ to \d+ of )?{url}", said), said
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("fastxent-fetch")]

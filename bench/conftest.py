"""Options of the benchmarks: how much to run, and how large."""

from __future__ import annotations

import pytest

from bench.cases import BYTES
from bench.turns import Effort
from fastxent.options.sizes import parse_size


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("fastxent benchmarks")
    group.addoption("--quick", action="store_true", help="only the cases of the table of marks, on little data")
    group.addoption("--size", default=None, help="logits in each file of test_evaluate, such as 2GB (default 256MB)")
    group.addoption("--logits", default=None, help="logits in each case of test_kernels (default 128MiB)")


@pytest.fixture(scope="session")
def effort(pytestconfig: pytest.Config) -> Effort:
    quick = pytestconfig.getoption("--quick")
    logits, size = pytestconfig.getoption("--logits"), pytestconfig.getoption("--size")
    return Effort(
        quick=quick,
        logits=parse_size(logits) if logits else BYTES // 2 if quick else BYTES,
        file=parse_size(size) if size else (64 << 20 if quick else 256_000_000),
    )

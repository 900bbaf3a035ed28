"""Tests after which no thread may be left."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from fastxent.io.storage import remote
from tests.io.storage.fetching import threads


@pytest.fixture
def no_thread_is_left(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(remote, "_DELAYS", (0.0, 0.001, 0.002))
    yield
    gc.collect()
    assert threads() == []

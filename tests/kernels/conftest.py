"""Memory with a fence behind it."""

from __future__ import annotations

import ctypes
import mmap

import numpy as np
import pytest


@pytest.fixture
def fenced():
    """Two pages, of which the second may not be touched: a read or write past the first kills the process."""
    page = mmap.PAGESIZE
    memory = mmap.mmap(-1, 2 * page)
    base = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mprotect.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    assert libc.mprotect(base + page, page, 0) == 0
    yield np.frombuffer(memory, np.uint8, page), base
    assert libc.mprotect(base + page, page, 3) == 0

"""The one table of cases: job x classes x dtype x threads, the data of each, and the truth it must agree with.

A job is one call of the public API. `Data` holds its arguments; `run` makes the call; `check` holds the result against
the oracle of the tests before anything is timed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import ml_dtypes
import numpy as np

import fastxent as fx
from bench.cpus import available_cpus
from tests import reference as ref

CLASSES = (1, 2, 10, 100, 1000, 32_000, 128_256)
FEW = (2, 10)
DTYPES = tuple(ref.DTYPES)
JOBS = ("loss", "fresh_loss", "record", "gradient", "log_softmax", "binary")
BOUND = {"gradient": "copy", "log_softmax": "copy"}  # the ceiling of a job that writes as much as it reads; else "read"
BYTES = 128 << 20  # of logits in a case of the table of marks; half of it in others
_CHECKED = 200_000  # logits held against the oracle, in rows spread over the whole


@dataclass(frozen=True)
class Case:
    job: str
    classes: int
    dtype: str
    threads: int

    def __str__(self) -> str:
        return f"{self.job}-C{self.classes}-{self.dtype}-{self.threads}t"

    @property
    def bound(self) -> str:
        return BOUND.get(self.job, "read")

    @property
    def marked(self) -> bool:
        """Stands in the table of marks: float32 on all threads, and the loss of halves beside it."""
        if self.threads != available_cpus():
            return False
        if self.dtype in ("float16", "bfloat16"):
            return self.job == "loss" and self.classes >= 1000
        few = self.job in ("loss", "fresh_loss", "gradient") and self.classes in FEW
        some = self.job == "loss" and self.classes == 100
        return self.dtype == "float32" and (self.job == "binary" or few or some or self.classes >= 1000)


def cases() -> Iterator[Case]:
    """Every case; a single class is the binary job, and that job has a single class. Losses into fresh memory, which
    is a part of their time where classes are few, are the job "fresh_loss"."""
    for job in JOBS:
        for classes in FEW if job == "fresh_loss" else CLASSES:
            if (classes == 1) == (job == "binary"):
                for dtype in DTYPES:
                    for threads in sorted({1, available_cpus()}):
                        yield Case(job, classes, dtype, threads)


# ---- data ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Data:
    x: np.ndarray  # (n, C) logits, or (n,) for the binary job
    target: np.ndarray  # (n,) int64 class ids; 0 or 1 in the computing dtype for the binary job
    out: np.ndarray | None  # where losses, gradients or log-softmax go; a record is fresh memory each time

    def moved(self, result: Any) -> int:
        """Bytes the job cannot do without: logits and targets in, results out."""
        results = result if isinstance(result, tuple) else (result,)
        return self.x.nbytes + self.target.nbytes + sum(r.nbytes for r in results if isinstance(r, np.ndarray))


@lru_cache(maxsize=2)
def _normals(dtype: str, nbytes: int) -> np.ndarray:
    """Logits as a language model has them: a spread of 3 around 0."""
    kind = ref.DTYPES[dtype]
    values = np.random.default_rng(0).standard_normal(nbytes // kind.itemsize, np.float32)
    values *= 3
    return values.astype(kind, copy=False)


def data_of(case: Case, nbytes: int = BYTES) -> Data:
    values = _normals(case.dtype, nbytes)
    rng = np.random.default_rng(1)
    if case.job == "binary":
        real = np.float64 if case.dtype == "float64" else np.float32
        return Data(values, rng.integers(2, size=values.size).astype(real), np.ones(values.size, real))
    rows = max(1, values.size // case.classes)
    x = values[: rows * case.classes].reshape(rows, case.classes)
    # zeros would be pages that were never touched: the first timed call must not pay for them
    out = np.full_like(x, 1) if case.bound == "copy" else None
    if case.job == "loss":
        out = np.ones(rows, np.float64 if case.dtype == "float64" else np.float32)
    return Data(x, rng.integers(case.classes, size=rows), out)


def use_threads(threads: int) -> None:
    """Set the number of threads, and have their pool running before anything is timed."""
    if fx.get_num_threads() != threads:
        fx.set_num_threads(threads)
        fx.logsumexp(np.ones((threads * 256, 4096), np.float32))


def runner(case: Case, data: Data) -> Callable[[], Any]:
    """The call of the public API that the case times."""
    x, target, out = data.x, data.target, data.out
    return {
        "loss": lambda: fx.cross_entropy(x, target, reduction="none", out=out),
        "fresh_loss": lambda: fx.cross_entropy(x, target, reduction="none"),
        "record": lambda: fx.row_statistics(x, target),
        "gradient": lambda: fx.cross_entropy_with_grad(x, target, reduction="sum", out=out),
        "log_softmax": lambda: fx.log_softmax(x, out=out),
        "binary": lambda: fx.binary_cross_entropy_with_logits(x, target, reduction="none", out=out),
    }[case.job]


# ---- truth ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Truth:
    """What the oracle says of some rows spread over the data, first and last included.

    The check is for right or wrong before timing; how exact a kernel is, `bench.accuracy` measures.
    """

    case: Case
    rows: np.ndarray
    values: dict[str, np.ndarray]  # one entry, or the fields of a record

    def check(self, result: Any) -> None:
        """Our own result. An exponential of x - max in float32 is off by its argument's rounding: |x| <= 36 here."""
        taken = self._taken(result)
        for name, truth in self.values.items():
            dtype = taken[name].dtype
            if dtype.kind == "i":
                np.testing.assert_array_equal(taken[name], truth, err_msg=f"{name}, {self.case}")
                continue
            narrow = np.float64 if self.case.dtype == "float64" else np.float32
            tolerance = 36 * float(np.finfo(narrow).eps) + float(ml_dtypes.finfo(dtype).eps)
            relative = self.case.job in ("loss", "fresh_loss", "binary")  # a small loss is as exact as a large one
            self._compare(name, taken[name], truth, tolerance, 0 if relative else tolerance)

    def check_peer(self, result: Any, name: str) -> None:
        """A peer's result: the same numbers to what its dtype can hold, so that the same work is compared."""
        tolerance = {"float64": 1e-11, "float32": 1e-4, "float16": 2e-2, "bfloat16": 1e-1}[self.case.dtype]
        taken = self._taken(result)
        for field, truth in self.values.items():
            self._compare(f"{field} of {name}", taken[field], truth, tolerance, tolerance)

    def _taken(self, result: Any) -> dict[str, np.ndarray]:
        if self.case.job == "record":
            return {name: np.asarray(getattr(result, name))[self.rows] for name in self.values}
        name = next(iter(self.values))
        return {name: np.asarray(result[1] if self.case.job == "gradient" else result)[self.rows]}

    def _compare(self, name: str, found: np.ndarray, truth: np.ndarray, rtol: float, atol: float) -> None:
        found, truth = found.astype(np.float64), truth.astype(np.float64)
        np.testing.assert_allclose(found, truth, rtol, atol, err_msg=f"{name}, {self.case}")


def truth_of(case: Case, data: Data) -> Truth:
    n = data.x.shape[0]
    rows = np.unique(np.linspace(0, n - 1, max(3, min(n, _CHECKED // case.classes))).astype(np.int64))
    x, target = data.x[rows], data.target[rows]
    if case.job == "binary":
        return Truth(case, rows, {"loss": ref.binary_cross_entropy(x, target, input="logits", reduction="none")})
    if case.job == "record":
        record = ref.row_statistics(x, target)
        names = ("nll", "lse", "entropy", "confidence", "brier", "rank", "predicted")
        return Truth(case, rows, {name: getattr(record, name) for name in names})
    if case.job in ("loss", "fresh_loss"):
        return Truth(case, rows, {"loss": ref.cross_entropy(x, target, reduction="none")})
    if case.job == "log_softmax":
        return Truth(case, rows, {"log_softmax": ref.log_softmax(x)})
    return Truth(case, rows, {"gradient": ref.cross_entropy_with_grad(x, target, reduction="sum")[1]})

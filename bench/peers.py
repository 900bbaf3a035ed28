"""The same jobs by other libraries, each the fastest way its public API has. Imported on use; a missing one is told.

`competitors` gives, for a case, the calls that can do the job in that dtype on that number of threads. Whatever a
library needs to convert beforehand (tensors, device arrays, data frames) is converted outside the timed call.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from bench.cases import Case, Data
from bench.cpus import available_cpus

Call = Callable[[], Any]
MODULES = {
    "torch": "torch", "jax+optax": "optax", "scipy": "scipy", "scikit-learn": "sklearn", "polars": "polars",
    "duckdb": "duckdb", "arro3": "arro3.io",
}  # fmt: skip


class Record(NamedTuple):
    """The row record as a peer computes it, field for field what the oracle is asked."""

    nll: Any
    lse: Any
    entropy: Any
    confidence: Any
    brier: Any
    rank: Any
    predicted: Any


def installed(name: str) -> bool:
    module = MODULES[name]
    if "." in module and importlib.util.find_spec(module.split(".")[0]) is None:
        return False
    return importlib.util.find_spec(module) is not None


def missing() -> list[str]:
    """Peers that are not installed, and so are not in the run."""
    return [name for name in MODULES if not installed(name)]


def competitors(case: Case, data: Data) -> dict[str, Call]:
    """{peer: call} for the peers installed that can do the case; `finished` makes NumPy arrays of what a call gives."""
    if case.job == "fresh_loss":
        case = replace(case, job="loss")
    made = {name: make(case, data) for name, make in _MAKERS.items() if installed(name)}
    return {name: call for name, call in made.items() if call is not None}


def finished(result: Any) -> Any:
    """A peer's result as NumPy arrays, halves as float32: not timed."""
    if isinstance(result, tuple):
        return type(result)(*map(finished, result)) if isinstance(result, Record) else tuple(map(finished, result))
    if hasattr(result, "detach"):
        result = result.detach()
        return (result.float() if result.itemsize == 2 else result).numpy()
    return np.asarray(result)


# ---- torch -----------------------------------------------------------------------------------------------------


def tensor(array: np.ndarray) -> Any:
    import torch

    if str(array.dtype) == "bfloat16":
        return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(array)


def _torch(case: Case, data: Data) -> Call | None:
    import torch
    import torch.nn.functional as F

    torch.set_num_threads(case.threads)
    x, target = tensor(data.x), tensor(data.target)
    if case.job == "binary":
        target = target.to(x.dtype)
        return lambda: F.binary_cross_entropy_with_logits(x, target, reduction="none")
    if case.job == "loss":
        return lambda: F.cross_entropy(x, target, reduction="none")
    if case.job == "log_softmax":
        out = tensor(data.out.copy())  # type: ignore[union-attr]
        return lambda: torch.log_softmax(x, -1, out=out)
    if case.job == "gradient":

        def gradient() -> Any:
            leaf = x.detach().requires_grad_()
            loss = F.cross_entropy(leaf, target, reduction="sum")
            loss.backward()
            return loss, leaf.grad

        return gradient

    if data.x.dtype.itemsize == 2:
        return None  # log-probabilities in 8 bits make no record worth comparing
    index = target[:, None]

    def record() -> Record:
        log_p = torch.log_softmax(x, -1)
        p = log_p.exp()
        predicted = x.argmax(-1)
        at = x.gather(1, index)
        p_target = p.gather(1, index)[:, 0]
        return Record(
            nll=-log_p.gather(1, index)[:, 0],
            lse=torch.logsumexp(x, -1),
            entropy=-(p * log_p).sum(-1),
            confidence=p.gather(1, predicted[:, None])[:, 0],
            brier=(p * p).sum(-1) - 2 * p_target + 1,
            rank=(x > at).sum(-1),  # ties as if the target came first, which random logits rarely have
            predicted=predicted,
        )

    return record


# ---- JAX -------------------------------------------------------------------------------------------------------


def _jax(case: Case, data: Data) -> Call | None:
    if case.threads != available_cpus():
        return None  # its pool is sized when it starts
    import jax
    import jax.numpy as jnp
    import optax

    jax.config.update("jax_enable_x64", True)
    x, target = jnp.asarray(data.x), jnp.asarray(data.target)
    per_row = optax.losses.softmax_cross_entropy_with_integer_labels

    def record(x: Any, t: Any) -> tuple[Any, ...]:
        log_p = jax.nn.log_softmax(x)
        p = jnp.exp(log_p)
        index = t[:, None]
        at = jnp.take_along_axis(x, index, 1)
        p_target = jnp.take_along_axis(p, index, 1)[:, 0]
        return (
            -jnp.take_along_axis(log_p, index, 1)[:, 0], jax.nn.logsumexp(x, -1), -(p * log_p).sum(-1), p.max(-1),
            (p * p).sum(-1) - 2 * p_target + 1, (x > at).sum(-1), x.argmax(-1),
        )  # fmt: skip

    functions: dict[str, Callable[..., Any]] = {
        "loss": per_row,
        "binary": optax.losses.sigmoid_binary_cross_entropy,
        "log_softmax": lambda x, t: jax.nn.log_softmax(x),
        "gradient": jax.value_and_grad(lambda x, t: per_row(x, t).sum()),
        "record": record,
    }
    if case.job == "record" and data.x.dtype.itemsize == 2:
        return None
    function = jax.jit(functions[case.job])

    def call() -> Any:
        result = jax.block_until_ready(function(x, target))
        return Record(*result) if case.job == "record" else result

    return call


# ---- NumPy's relatives: one thread -----------------------------------------------------------------------------


def _scipy(case: Case, data: Data) -> Call | None:
    from scipy import special

    if data.x.dtype.itemsize == 2:
        return None
    x, rows, target = data.x, np.arange(len(data.x)), data.target
    if case.job == "log_softmax":
        return lambda: special.log_softmax(x, axis=-1)
    if case.job == "loss":
        return lambda: special.logsumexp(x, axis=-1) - x[rows, target]
    if case.job == "binary":
        return lambda: -target * special.log_expit(x) - (1 - target) * special.log_expit(-x)
    return None


def _sklearn(case: Case, data: Data) -> Call | None:
    from sklearn.utils.extmath import softmax

    if data.x.dtype.itemsize == 2 or case.job != "loss":
        return None
    x, rows, target = data.x, np.arange(len(data.x)), data.target
    return lambda: -np.log(softmax(x)[rows, target])


# ---- expressions over columns: one column per class ------------------------------------------------------------


def _columns(case: Case, data: Data) -> dict[str, np.ndarray] | None:
    if case.threads != available_cpus() or data.x.dtype.itemsize == 2:
        return None
    if case.job == "binary":
        return {"x": data.x, "t": data.target}
    if case.job == "loss" and case.classes <= 10:
        return {**{f"c{j}": np.ascontiguousarray(data.x[:, j]) for j in range(case.classes)}, "t": data.target}
    return None


def _polars(case: Case, data: Data) -> Call | None:
    columns = _columns(case, data)
    if columns is None:
        return None
    import polars as pl

    frame = pl.DataFrame(columns)
    t = pl.col("t")
    if case.job == "binary":
        x = pl.col("x")
        expression = pl.max_horizontal(x, 0) - x * t + (-x.abs()).exp().log1p()
    else:
        names = [pl.col(f"c{j}") for j in range(case.classes)]
        top = pl.max_horizontal(names)
        at = pl.coalesce(pl.when(t == j).then(c) for j, c in enumerate(names))
        expression = top + pl.sum_horizontal((c - top).exp() for c in names).log() - at
    return lambda: frame.select(expression.alias("loss"))["loss"].to_numpy()


def _duckdb(case: Case, data: Data) -> Call | None:
    columns = _columns(case, data)
    if columns is None:
        return None
    import duckdb
    import pyarrow as pa

    connection = duckdb.connect()
    connection.execute(f"SET threads = {case.threads}")
    connection.register("rows", pa.table(columns))
    if case.job == "binary":
        loss = "greatest(x, 0) - x * t + ln(1 + exp(-abs(x)))"
    else:
        names = [f"c{j}" for j in range(case.classes)]
        at = " ".join(f"WHEN {j} THEN {c}" for j, c in enumerate(names))
        top = f"greatest({', '.join(names)})"
        loss = f"top + ln({' + '.join(f'exp({c} - top)' for c in names)}) - CASE t {at} END"
        return lambda: connection.execute(
            f"SELECT {loss} AS loss FROM (SELECT *, {top} AS top FROM rows)"
        ).fetchnumpy()["loss"]
    return lambda: connection.execute(f"SELECT {loss} AS loss FROM rows").fetchnumpy()["loss"]


_MAKERS: dict[str, Callable[[Case, Data], Call | None]] = {
    "torch": _torch, "jax+optax": _jax, "scipy": _scipy, "scikit-learn": _sklearn, "polars": _polars,
    "duckdb": _duckdb,
}  # fmt: skip

"""`plan` and `merge_states`: an evaluation as work units for any engine, and the merge of their states.

units = fx.plan("dump/*.parquet", by="language")      # footers are read, no logits
states = [unit.run() for unit in units]                # anywhere, in any order
result = fx.merge_states(states).result()              # bit for bit what fx.evaluate gives
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from typing import Any, TypeVar, Unpack, cast

from fastxent.engine.job import Job
from fastxent.engine.units import WorkUnit, work_units
from fastxent.errors import ConfigError, StateError
from fastxent.options.checks import shown
from fastxent.options.option import taking
from fastxent.options.runs import PlanOptions
from fastxent.state.comparison import CompareState
from fastxent.state.coverage import MIXED
from fastxent.state.evaluation import EvalState
from fastxent.state.saved import AnyState, absorbed, load_state
from fastxent.verbs.evaluation import Evaluation

S = TypeVar("S", EvalState, CompareState)


@taking(PlanOptions, checks=True)
def plan(source: Any, **options: Unpack[PlanOptions]) -> list[WorkUnit[EvalState]]:
    """Split the evaluation of files into work units for any engine.

    Args:
        source: files, as in `evaluate`. Data in memory cannot be planned, because it would have to travel.
        unit_size: approximate size of the logits of a unit. Small pieces of consecutive files are joined up to it. A
            row group that cannot be read in parts is not split.
        memory: memory limit for the rows that are processed while a unit runs.
        limit, worst, id, options: those of `evaluate`.

    Returns:
        Units that cover every row once. ``unit.run()`` returns an `EvalState`. `merge_states` of all of them is the
        state of the whole source, with the same bits as that of `evaluate`.

    >>> import os, tempfile, numpy as np, fastxent as fx
    >>> folder = tempfile.mkdtemp()
    >>> for name, values in {"logits": np.eye(4, dtype=np.float32), "target": np.array([0, 1, 2, 0])}.items():
    ...     np.save(f"{folder}/{name}.npy", values)
    >>> units = fx.plan(folder)
    >>> fx.merge_states(unit.run() for unit in units).result().metrics["accuracy"].value
    0.75
    """
    job = Evaluation.open(source, options, columns=[name for name in (options["id"],) if name is not None])
    job = Job(job.source, job.recipe.listing(options["worst"], options["id"]), options["limit"])
    for warning in job.warnings:
        warnings.warn(warning, stacklevel=3)
    return work_units(job, job.pieces(), int(options["unit_size"]), int(options["memory"]))


def merge_states(states: Iterable[S | bytes]) -> S:
    """Merge states of different rows.

    Args:
        states: iterable of `EvalState`, or of `CompareState`, or of bytes of their `to_bytes`. They are taken one at a
            time, so that an iterator of any length needs the memory of two states.

    Raises:
        StateError: the configurations differ, a unit of a plan or a shard is there twice or missing, or there are
            states of runs that were not split besides, which do not say what they hold.
    """
    merged: AnyState | None = None
    kinds: set[bool] = set()
    for given in states:
        state: Any = load_state(given) if isinstance(given, bytes) else given
        if not isinstance(state, AnyState):
            raise ConfigError(
                f"states must be EvalState objects, CompareState objects or their bytes, got {shown(given)}"
            )
        if state.total:
            kinds.add(state.coverage.whole)
        if len(kinds) > 1:
            raise StateError(MIXED)
        merged = absorbed(state.emptied() if merged is None else merged, state)
    if merged is None:
        raise StateError("states must hold at least one state, got none")
    if (missing := merged.coverage.missing()) is not None:
        raise StateError(f"{missing}; give the states of all parts")
    return cast(S, merged)

"""Run a job: on the threads of this process or on a cluster, in one run or in several."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import Any

from fastxent.engine.checkpoints import Checkpoints
from fastxent.engine.job import Job
from fastxent.engine.loop import Loop
from fastxent.engine.recipe import Recipe, S, Watch
from fastxent.engine.shards import Shard


def run_job(
    job: Job[Recipe[S]],
    options: Mapping[str, Any],
    visit: Callable[[int, Any], None] | None = None,
    done: Callable[[int], None] | None = None,
    watch: Watch[S] | None = None,
) -> tuple[S, dict[str, Any]]:
    """(the state of all rows, or of those of the shard; timing).

    options: those of `options.runs.SplitOptions`. visit, done: as of `Loop`; not on a cluster.
    watch: as of `Loop`.
    """
    resume, shard, engine = options["resume"], options["shard"], options["engine"]
    threads, progress, memory = options["threads"], options["progress"], int(options["memory"])
    units, rows = job.units(), job.rows
    with ExitStack() as stack:
        part = ledger = None
        if resume is not None or shard is not None or engine != "local":
            what = f"engine={engine!r}" if engine != "local" else "resume" if resume is not None else "shard"
            pieces = job.pieces(what)
            if shard is not None:
                part = Shard.parse(shard)
                pieces = part.of_pieces(pieces)
            counts = [unit.rows for unit, _ in pieces]
            rows = None if None in counts else sum(count for count in counts if count)
            units = (unit for unit, _ in pieces)
        if resume is not None:
            ledger = stack.enter_context(Checkpoints(resume, job, shard and str(part)))
        if engine == "ray":
            from fastxent.engine.ray import run

            state, timing = run(
                job, pieces, threads=threads, memory=memory, rows=rows, progress=progress, ledger=ledger, watch=watch
            )
        else:
            loop = Loop(
                job.recipe, units, row_bytes=job.row_bytes, threads=threads, memory=memory, rows=rows,
                progress=progress, visit=visit, done=done, ledger=ledger, watch=watch,
            )  # fmt: skip
            state, timing = loop.run()
        if part is not None:
            state.coverage = part.coverage(job)
    return state, timing | job.told()

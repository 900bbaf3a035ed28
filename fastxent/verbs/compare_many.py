"""`compare_many`: several dumps of the same rows, each compared with one of them, in one pass over all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Unpack

from fastxent.engine.run import run_job
from fastxent.options.option import taking
from fastxent.options.runs import CompareManyOptions
from fastxent.verbs.comparisons import Comparisons, named

if TYPE_CHECKING:
    from fastxent.results.compare_many import CompareSet


@taking(CompareManyOptions, checks=True)
def compare_many(
    base: Any, others: Mapping[str, Any] | Sequence[Any], **options: Unpack[CompareManyOptions]
) -> CompareSet:
    """Compare several dumps of the same rows with one of them, as `compare` does, in one pass over all.

    Each dump is read once; the base is not read again for each of the others. The figures are those of `compare`.

    Args:
        base: dump, as in `evaluate`. The dump that the others are compared with.
        others: dict of name to dump, or list of dumps.
        names: list of str or None. Names of the base and of each of ``others``; for a dict, of the base alone. None:
            "base" and the names of the files without suffix.
        on, how: as in `compare`. ``how="inner"`` uses the rows that all dumps have; ``rows.only_a`` and ``rows.only_b``
            count the others.
        logits_b, head_b, bias_b: as in `compare`, of all the others.
        Other options: as in `compare`.

    Returns:
        `CompareSet`. ``result[name]`` is the `CompareResult` of a dump: a difference is that dump less the base. Its
        p-values are also adjusted by Holm for the number of dumps (``adjusted_p_value``).

    Raises:
        ConfigError: ``names`` do not fit ``others``.
        As `compare` besides.

    >>> import numpy as np, fastxent as fx
    >>> base, better, worse = ({"logits": k * np.eye(3), "target": [0, 1, 2]} for k in (2.0, 3.0, 1.0))
    >>> result = fx.compare_many(base, {"better": better, "worse": worse})
    >>> [found.metrics["cross_entropy"].difference.value < 0 for found in result.comparisons.values()]
    [True, False]
    """
    names = options["names"]
    base_name, dumps = named(others, names)
    with Comparisons.open(base, dumps, base_name, options) as opened:  # type: ignore[arg-type]  # other names
        state, timing = run_job(opened.job, options)
    found = state.result(timing=timing)
    results = {}
    details = zip(found.comparisons.items(), opened.files, opened.only, opened.warnings, strict=True)
    for (name, result), files, only, warnings in details:
        rows = replace(result.rows, only_a=only[0], only_b=only[1])
        results[name] = replace(result, rows=rows, files=files, warnings=(*result.warnings, *warnings))
    return replace(found, comparisons=results, state=state)

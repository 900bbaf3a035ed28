"""The rows of a per-row file."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from fastxent.errors import ConfigError
from fastxent.io.layout import find_field
from fastxent.io.writers import carried, carried_field
from fastxent.kernels.rows.record import NO_TARGET
from fastxent.options.config import EvalConfig
from fastxent.scoring.rows import (
    BAD_LOGITS,
    IGNORED,
    USED,
    BinaryRows,
    KeptColumns,
    MultilabelRows,
    ScoredRows,
    TopkRows,
)

if TYPE_CHECKING:
    import pyarrow as pa

_STATUS = ["used", "ignored", "bad"]
_TOPK = (
    "nll_low", "nll_high", "rank_low", "rank_high", "predicted", "confidence", "entropy_low", "entropy_high",
    "covered_mass",
)  # fmt: skip
_COMPARED = _TOPK[:4]  # with a target
_FIELDS = {"rank_low": "rank", "entropy_low": "entropy", "covered_mass": "mass"}  # of `TopkRows`


def per_row_schema(source: pa.Schema, id: str | None, config: EvalConfig) -> pa.Schema:
    """id, nll, rank, predicted, confidence, entropy, status ("used", "ignored" or "bad"). Of binary dumps: id, nll,
    predicted, probability (of the positive class), entropy, status. Of multilabel dumps: id, nll (mean over the labels
    of the row), wrong (labels that are predicted wrongly), entropy (as nll), status. Of log-probabilities: id, nll,
    status. Of top-k dumps: id, nll (null where it is not known), nll_low, nll_high, rank_low, rank_high, predicted,
    confidence, entropy_low, entropy_high, covered_mass, status."""
    import pyarrow as pa

    number, whole, task = pa.float64(), pa.int64(), config.task
    fields = [
        ("nll", number), ("rank", whole), ("predicted", whole), ("confidence", number), ("entropy", number),
        ("status", pa.dictionary(pa.int8(), pa.string())),
    ]  # fmt: skip
    if task == "scores":
        raise ConfigError(
            "per_row requires logits or target_logprob, because the dump already holds the scores of each row"
        )
    if task == "likelihood":
        fields = [fields[0], fields[-1]]
    if task == "binary":
        fields = [fields[0], fields[2], ("probability", number), *fields[4:]]
    elif task == "multilabel":
        fields = [fields[0], ("wrong", whole), *fields[4:]]
    if config.partial:
        found = find_field(source, str(config.ids))
        text = config.classes is None and found is not None and "string" in str(found.type)
        kinds = {"rank_low": whole, "rank_high": whole, "predicted": pa.large_string() if text else whole}
        fields = [*((name, kinds.get(name, number)) for name in ("nll", *_TOPK)), fields[-1]]
    if id in dict(fields):
        raise ConfigError(
            f"id must not be {id!r}, because the per-row file has another column of that name; rename the id column"
        )
    return pa.schema([*([] if id is None else [carried_field(source, id)]), *fields])


def per_row_batch(rows: ScoredRows, schema: pa.Schema, id: str | None) -> pa.RecordBatch:
    """The rows of a batch under `per_row_schema`. Numbers are null in rows that are not used, and those that compare
    with a target where there is none."""
    import pyarrow as pa
    import pyarrow.compute as pc

    assert rows.kept is not None
    unused = rows.status != USED
    unlabelled = unused | (rows.target == NO_TARGET)
    names = np.where(rows.status == IGNORED, 1, np.where(rows.status >= BAD_LOGITS, 2, 0)).astype(np.int8)
    columns = [] if id is None else [carried(rows.kept.columns[id], schema.field(id))]
    if isinstance(rows, TopkRows):
        columns.append(pa.array(rows.nll, mask=unlabelled | np.isnan(rows.nll)))
        for name in _TOPK:
            values = getattr(rows, _FIELDS.get(name, name))
            mask = unlabelled if name in _COMPARED else unused
            tokens = rows.tokens if name == "predicted" else None
            if tokens is None:
                columns.append(pa.array(values, mask=mask))
            else:
                columns.append(pc.if_else(pa.array(mask), None, tokens.cast(pa.large_string())))
    elif isinstance(rows.kept, KeptColumns):
        columns.append(pa.array(rows.nll, mask=unused))
    else:
        compared = (rows.nll,) if isinstance(rows, BinaryRows) else (rows.nll, rows.rank)
        columns += [pa.array(values, mask=unlabelled) for values in compared]
        alone: tuple[np.ndarray, ...] = (rows.predicted, rows.confidence, rows.entropy)
        if isinstance(rows, MultilabelRows):
            alone = (np.divide(rows.entropy, rows.counted, where=rows.counted > 0, out=np.zeros(len(unused))),)
        columns += [pa.array(values, mask=unused) for values in alone]
    columns.append(pa.DictionaryArray.from_arrays(pa.array(names), _STATUS))
    return pa.record_batch(columns, schema=schema)

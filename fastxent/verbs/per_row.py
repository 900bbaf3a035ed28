"""The rows of a per-row file."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from fastxent.errors import ConfigError
from fastxent.io.writers import carried, carried_field
from fastxent.kernels.rows.record import NO_TARGET
from fastxent.scoring.rows import BAD_LOGITS, IGNORED, USED, BinaryRows, KeptColumns, MultilabelRows, ScoredRows

if TYPE_CHECKING:
    import pyarrow as pa

_STATUS = ["used", "ignored", "bad"]


def per_row_schema(source: pa.Schema, id: str | None, task: str) -> pa.Schema:
    """id, nll, rank, predicted, confidence, entropy, status ("used", "ignored" or "bad"). Of binary dumps: id, nll,
    predicted, probability (of the positive class), entropy, status. Of multilabel dumps: id, nll (mean over the labels
    of the row), wrong (labels that are predicted wrongly), entropy (as nll), status. Of log-probabilities: id, nll,
    status."""
    import pyarrow as pa

    number, whole = pa.float64(), pa.int64()
    fields = [
        ("nll", number), ("rank", whole), ("predicted", whole), ("confidence", number), ("entropy", number),
        ("status", pa.dictionary(pa.int8(), pa.string())),
    ]  # fmt: skip
    if task == "scores":
        raise ConfigError("per_row needs logits or target_logprob; the scores of each row are in the dump itself")
    if task == "likelihood":
        fields = [fields[0], fields[-1]]
    if task == "binary":
        fields = [fields[0], fields[2], ("probability", number), *fields[4:]]
    elif task == "multilabel":
        fields = [fields[0], ("wrong", whole), *fields[4:]]
    if id in dict(fields):
        raise ConfigError(f"id={id!r} is also the name of another column of the per-row file; rename that column")
    return pa.schema([*([] if id is None else [carried_field(source, id)]), *fields])


def per_row_batch(rows: ScoredRows, schema: pa.Schema, id: str | None) -> pa.RecordBatch:
    """The rows of a batch under `per_row_schema`. Numbers are null in rows that are not used, and those that compare
    with a target where there is none."""
    import pyarrow as pa

    assert rows.kept is not None
    unused = rows.status != USED
    unlabelled = unused | (rows.target == NO_TARGET)
    names = np.where(rows.status == IGNORED, 1, np.where(rows.status >= BAD_LOGITS, 2, 0)).astype(np.int8)
    columns = [] if id is None else [carried(rows.kept.columns[id], schema.field(id))]
    if isinstance(rows.kept, KeptColumns):
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

"""The rows of a per-row file."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from fastxent.score import Scored
from fastxent.scored import BAD_LOGITS, IGNORED, USED

if TYPE_CHECKING:
    import pyarrow as pa


def per_row_batch(scored: Scored, id: str | None) -> pa.RecordBatch:
    """id, nll, rank, predicted, confidence, entropy, status ("used", "ignored" or "bad"), one for each row.

    Figures are null in rows that are not used.
    """
    import pyarrow as pa

    rows = scored.rows
    unused = rows.status != USED
    names = np.where(rows.status == IGNORED, 1, np.where(rows.status >= BAD_LOGITS, 2, 0)).astype(np.int8)
    columns: dict[str, pa.Array] = {} if id is None else {id: scored.batch.columns[id]}
    columns |= {
        "nll": pa.array(rows.nll, mask=unused),
        "rank": pa.array(rows.rank, mask=unused),
        "predicted": pa.array(rows.predicted, mask=unused),
        "confidence": pa.array(rows.confidence, mask=unused),
        "entropy": pa.array(rows.entropy, mask=unused),
        "status": pa.DictionaryArray.from_arrays(pa.array(names), ["used", "ignored", "bad"]),
    }
    return pa.record_batch(columns)

"""Make digits.parquet: logits of a real classifier on scikit-learn's handwritten digits.

1,797 images of 8 x 8 pixels, 10 classes. Each image is scored by a logistic regression that was not trained
on it (5 folds), nor on its neighbours in the file: the set was collected writer by writer, so neighbours are
often by the same writer. The regression is hardly regularised and therefore overconfident, as its calibration
table shows.

    python examples/make_digits.py [DEST]

Columns:
    id      int64        place in scikit-learn's file
    logits  list<float>  10 float32 decision values, out of fold
    target  int64        the digit
    fold    string       which of the 5 folds the row was held out in
    block   int64        13 runs of consecutive images. scikit-learn keeps no writer ids, and its notes count 13
                         writers behind these images; a run is one writer's average share, not exactly one writer

The result is deterministic for one build of scikit-learn and BLAS; another may differ in the last digits.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

FOLDS, BLOCKS = 5, 13


def main(dest: Path) -> None:
    images, target = load_digits(return_X_y=True)
    rows = len(target)
    block = np.arange(rows) * BLOCKS // rows
    logits = np.empty((rows, 10))
    fold = np.empty(rows, dtype=object)
    for k, (seen, held_out) in enumerate(GroupKFold(FOLDS).split(images, target, groups=block), start=1):
        model = make_pipeline(StandardScaler(), LogisticRegression(C=10.0, max_iter=1000))
        model.fit(images[seen], target[seen])
        logits[held_out] = model.decision_function(images[held_out])
        fold[held_out] = f"fold {k}"
    table = pa.table(
        {
            "id": pa.array(np.arange(rows)),
            "logits": pa.array(list(logits.astype(np.float32)), pa.list_(pa.float32())),
            "target": pa.array(target, pa.int64()),
            "fold": pa.array(fold, pa.string()),
            "block": pa.array(block),
        }
    )
    pq.write_table(table, dest, compression="zstd")
    print(f"{dest}: {rows} rows, {dest.stat().st_size:,} bytes, accuracy {np.mean(logits.argmax(1) == target):.4f}")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).with_name("digits.parquet"))

"""Multilabel dumps: the loss and its gradient beside torch's."""

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
import torch.nn.functional as F

import fastxent as fx


@pytest.mark.parametrize("weighted", [False, True])
def test_the_loss_and_its_gradient_are_those_of_torch(tmp_path, weighted):
    rng = np.random.default_rng(0)
    x = torch.tensor(rng.normal(size=(200, 6)) * 3, requires_grad=True)
    target, w = rng.random((200, 6)), rng.integers(1, 4, 200).astype(float)
    weight = torch.tensor(w)[:, None].expand(200, 6) if weighted else None
    loss = F.binary_cross_entropy_with_logits(x, torch.tensor(target), weight=weight, reduction="sum")
    loss = loss / (weight.sum() if weighted else 1200)
    loss.backward()
    dump = {"logits": x.detach(), "target": target, "w": w}
    options = {"task": "multilabel", "weight": "w" if weighted else None}
    result = fx.transform(dump, tmp_path / "g.parquet", output="grad", **options)
    assert result.metrics["cross_entropy"].value == pytest.approx(loss.item(), rel=1e-12)
    grad = np.array(pq.read_table(tmp_path / "g.parquet")["grad"].to_pylist())
    np.testing.assert_allclose(grad, x.grad.numpy(), rtol=1e-9, atol=1e-18)

"""The torch loop of the README."""

import torch

import fastxent as fx
import readme


def test_the_torch_loop(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    model = torch.nn.Linear(4, 3)
    loader = [(torch.randn(8, 4), torch.randint(0, 3, (8,))) for _ in range(3)]
    exec(readme.block("torch loop"), {"fx": fx, "model": model, "loader": loader})  # noqa: S102
    with torch.inference_mode():
        logits, target = torch.cat([model(x) for x, _ in loader]), torch.cat([y for _, y in loader])
    found = fx.evaluate("torch.parquet").metrics["cross_entropy"].value
    assert abs(found - torch.nn.functional.cross_entropy(logits, target).item()) < 1e-6

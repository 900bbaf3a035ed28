"""`compare` with renormalize=False: log-probabilities as they are stored, and llama.cpp's own figures."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

import fastxent as fx
from fastxent.cli.program import run
from tests.io.llama import handmade

CHUNKS, CONTEXT, CLASSES = 5, 12, 130
OPTIONS: dict[str, Any] = dict(renormalize=False, cluster="chunk", largest=0)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Two files of the same tokens, with many classes at the floor."""
    folder, rng = tmp_path_factory.mktemp("kld"), np.random.default_rng(2)
    tokens = rng.integers(0, CLASSES, (CHUNKS, CONTEXT))
    logits = rng.normal(size=(CHUNKS, CONTEXT - 1 - CONTEXT // 2, CLASSES)) * 7
    paths = folder / "base.kld", folder / "other.kld"
    for path, values in zip(paths, (logits, logits + rng.normal(size=logits.shape)), strict=True):
        path.write_bytes(handmade.write(tokens, values))
    return paths


@pytest.fixture(scope="module")
def result(files):
    return fx.compare(*files, **OPTIONS)


def test_the_figures_are_those_of_llama_perplexity(files, result):
    """As tools/perplexity computes them, in float64 from the stored rows."""
    a, b = (handmade.read(path.read_bytes()) for path in files)
    at = np.arange(len(a["target"])), a["target"]
    p, q = (side["logits"].astype(np.float64) for side in (a, b))
    assert (p <= -16).any()
    nll_a, nll_b = -p[at], -q[at]
    kl = np.where(p > -16, np.exp(p) * (p - q), 0.0).sum(axis=1)
    change = np.exp(-nll_b) - np.exp(-nll_a)
    loss, found = result.metrics["cross_entropy"], result.divergences["kl_divergence_ab"]
    assert (loss.a.value, loss.b.value) == pytest.approx((nll_a.mean(), nll_b.mean()), rel=1e-7)
    assert loss.correlation == pytest.approx(1.0, abs=0.2)
    assert result.perplexity_ratio.value == pytest.approx(math.exp((nll_b - nll_a).mean()), rel=1e-6)
    assert found.mean.value == pytest.approx(kl.mean(), rel=1e-6)
    assert found.max == pytest.approx(kl.max(), rel=1e-6)
    assert found.quantiles[0.5] == pytest.approx(np.quantile(kl, 0.5), rel=4e-3)
    assert result.target_probability.mean.value == pytest.approx(change.mean(), rel=1e-5)
    assert result.target_probability.rms.value == pytest.approx(math.sqrt((change**2).mean()), rel=1e-6)
    assert result.same_top_1.value == (p.argmax(axis=1) == q.argmax(axis=1)).mean()
    assert result.warnings == ()
    assert not result.config.renormalize
    assert "as in llama.cpp" in repr(result)


def test_log_probabilities_of_any_source(files, result):
    rows = [handmade.read(path.read_bytes()) for path in files]
    found = fx.compare(*rows, input="log_probs", **OPTIONS)
    assert (found.metrics, found.divergences) == (result.metrics, result.divergences)
    given = fx.compare(*rows, input="log_probs", cluster="chunk", largest=0)
    assert given.metrics == found.metrics
    assert given.divergences != found.divergences
    again = fx.CompareResult.from_json(found.to_json())
    assert again == found
    assert again.config.renormalize is False


def test_what_cannot_be_used_as_it_is_stored(files, result):
    rows = handmade.read(files[1].read_bytes())
    with pytest.raises(
        fx.SourceError, match=r"^renormalize=False requires log-probabilities, got logits in .*log_probs"
    ):
        fx.compare(files[0], rows, renormalize=False)
    with pytest.raises(fx.ConfigError, match=r"^renormalize=False cannot be combined with input='probs'"):
        fx.compare(rows, rows, renormalize=False, input="probs")
    with pytest.raises(fx.ConfigError, match=r"^temperature requires input='logits'"):
        fx.compare(*files, renormalize=False, temperature=2.0)
    with pytest.raises(fx.ConfigError, match=r"^renormalize must be True or False, got 'no'"):
        fx.compare(*files, renormalize="no")
    with pytest.raises(fx.StateError, match="renormalize"):
        result.state.merge(fx.compare(*files, cluster="chunk", largest=0, input="log_probs").state)


def test_on_the_command_line(files, capsys):
    assert run(["compare", *map(str, files), "--no-renormalize", "--cluster", "chunk"]) == 0
    assert "Log-probabilities as stored" in capsys.readouterr().out

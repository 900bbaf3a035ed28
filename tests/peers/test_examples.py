"""The programs and calls of docs/examples.md beside torch, and beside optax where torch has no such loss."""

import numpy as np
import optax
import pytest
import torch
import torch.nn.functional as F

import readme
from examples import policy_gradient, recurrent

TORCH = {name: torch.as_tensor(readme.given()[name]) for name in ("x", "y", "q", "p", "s", "w", "z", "t")}


def peers():
    """The value of each row of the table of calls, in the order of the page."""
    x, y, q, p, s, w, z, t = TORCH.values()
    hot = F.one_hot(y, 3).double()
    rows = F.cross_entropy(x, q, reduction="none")
    bits = F.binary_cross_entropy_with_logits
    focal = (1 - p[range(4), y]) ** 2 * F.cross_entropy(x, y, reduction="none")
    smooth = [torch.tensor(np.array(optax.smooth_labels(v.numpy(), 0.1))) for v in (hot, q)]
    return [
        rows,
        F.cross_entropy(x, y, reduction="none"),
        bits(z, t, reduction="none"),
        bits(z, t, pos_weight=torch.tensor(3.0).double(), reduction="none"),
        F.cross_entropy(x, q),
        F.cross_entropy(x, q),
        F.cross_entropy(x, smooth[0]),
        F.cross_entropy(x, smooth[1]),
        focal.mean(),
        bits(z, t),
        (rows * s).sum() / 4,
        (rows * s).sum() / s.sum(),
        F.cross_entropy(x, y, weight=w, reduction="sum") / 4,
        0.25 * focal.mean(),
        bits(z, 0.9 * t + 0.05),
        F.cross_entropy(x, y, weight=w),
        F.kl_div(p.log(), q, reduction="batchmean"),
        F.kl_div(p.log(), q, reduction="batchmean"),
        F.kl_div(p.log(), q, reduction="batchmean") / np.log(2),
        F.kl_div(p.log(), q, reduction="batchmean") / np.log(2),
    ]


def test_the_calls_of_the_page_are_those_of_torch():
    calls, expected = readme.calls(), peers()
    assert len(calls) == len(expected)
    for (_, call, _), value in zip(calls, expected, strict=True):
        np.testing.assert_allclose(eval(call, readme.given()), value.numpy(), rtol=2e-7, err_msg=call)  # noqa: S307


def test_the_policy_gradient_is_that_of_autograd():
    rng = np.random.default_rng(0)
    x, weights = rng.normal(size=(64, 8)), rng.normal(size=(8, 4))
    action, advantage = rng.integers(4, size=64), rng.normal(size=64)
    loss, grad = policy_gradient.loss_and_grad(weights, x, action, advantage)
    w = torch.tensor(weights, requires_grad=True)
    policy = torch.distributions.Categorical(logits=torch.tensor(x) @ w)
    peer = -(policy.log_prob(torch.tensor(action)) * torch.tensor(advantage)).mean()
    peer.backward()
    assert loss == pytest.approx(peer.item(), rel=1e-12)
    np.testing.assert_allclose(grad, w.grad.numpy(), rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("window", [1, 4, 20])
def test_the_truncated_gradient_is_that_of_autograd(window):
    """torch truncates where the memory is detached. A window of 20 holds every letter."""
    net = recurrent.new_net(16, np.random.default_rng(0))
    given, target = recurrent.spelled(recurrent.WORDS[:40])
    loss, grad = recurrent.read_through(net, given, target, window)

    peer = {name: torch.tensor(value, requires_grad=True) for name, value in net.items()}
    h, total, letters = torch.zeros(40, 16, dtype=torch.float64), 0.0, torch.tensor(given)
    for begin in range(0, given.shape[1], window):
        h, logits = h.detach(), []
        for letter in letters[:, begin : begin + window].T:
            h = torch.tanh(peer["read"][letter] + h @ peer["keep"])
            logits.append(h @ peer["write"] + peer["bias"])
        flat = torch.tensor(target[:, begin : begin + window]).reshape(-1)
        total = total + F.cross_entropy(torch.stack(logits, 1).flatten(0, 1), flat, reduction="sum")
    total = total / (target != recurrent.IGNORED).sum()
    total.backward()
    assert loss == pytest.approx(total.item(), rel=1e-12)
    for name, value in grad.items():
        np.testing.assert_allclose(value, peer[name].grad.numpy(), rtol=1e-9, atol=1e-13, err_msg=name)

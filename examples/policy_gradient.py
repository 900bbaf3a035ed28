"""A policy gradient: advantages of either sign as the ``sample_weight`` of the cross-entropy.

    python examples/policy_gradient.py

REINFORCE on a contextual bandit: a context x has one best action of four, which pays 1, the others pay 0. The policy is
softmax(x·W). A taken action a with the advantage A = reward − baseline adds A·(−log π(a|x)) to the loss, so the step
down the loss makes actions more likely that paid more than the baseline, and others less.
"""

from __future__ import annotations

import numpy as np

import fastxent as fx

CONTEXTS, ACTIONS, STEPS, RATE = 512, 4, 200, 2.0


def loss_and_grad(
    weights: np.ndarray, x: np.ndarray, action: np.ndarray, advantage: np.ndarray
) -> tuple[float, np.ndarray]:
    """Σ A·(−log π(a|x)) / rows, and its gradient with respect to ``weights`` (features, actions).

    The mean is over rows. ``reduction="mean"`` would divide by the sum of the advantages, which is about 0.
    """
    loss, slope = fx.cross_entropy_with_grad(x @ weights, action, sample_weight=advantage, reduction="sum")
    return loss / len(x), x.T @ slope / len(x)


def draw(policy: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """One action for each row of probabilities."""
    drawn = (policy.cumsum(axis=1) < rng.random((len(policy), 1))).sum(axis=1)
    return np.minimum(drawn, policy.shape[1] - 1)  # a sum of probabilities may be just below 1


def train(seed: int = 0) -> tuple[float, float]:
    """The expected reward of the first policy, which is uniform, and of the last."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(CONTEXTS, 8))
    best = (x @ rng.normal(size=(8, ACTIONS))).argmax(axis=1)
    weights = np.zeros((8, ACTIONS))

    def expected() -> float:
        return float(fx.softmax(x @ weights)[np.arange(CONTEXTS), best].mean())

    first = expected()
    for _ in range(STEPS):
        action = draw(fx.softmax(x @ weights), rng)
        reward = (action == best).astype(float)
        _, grad = loss_and_grad(weights, x, action, reward - reward.mean())
        weights -= RATE * grad
    return first, expected()


if __name__ == "__main__":
    first, last = train()
    print(f"expected reward: {first:.2f} at first, {last:.1f} after {STEPS} steps")

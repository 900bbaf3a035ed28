"""Two linear classifiers by gradient descent, down to the loss of scikit-learn's `LogisticRegression`.

    python examples/gradient_descent.py

Handwritten digits with `cross_entropy_with_grad`, tumours with `binary_cross_entropy_with_logits_with_grad`. Each call
returns the loss and its gradient with respect to the logits. The chain rule gives the gradient of the weights.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from sklearn.datasets import load_breast_cancer, load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

import fastxent as fx

Loss = Callable[[np.ndarray, np.ndarray], fx.LossAndGrad[float]]  # of logits and targets
C = 0.01  # scikit-learn's: the objective is the mean loss + |weights|² / (2·C·rows), where intercepts are free


def with_ones(x: np.ndarray) -> np.ndarray:
    """Standardized columns and a column of ones, whose weights are the intercepts."""
    return np.column_stack([StandardScaler().fit_transform(x), np.ones(len(x))])


def objective(loss: Loss, x: np.ndarray, y: np.ndarray, weights: np.ndarray) -> tuple[float, np.ndarray]:
    """The penalized mean loss of a linear model, and its gradient with respect to ``weights`` (columns, outputs)."""
    value, slope = loss(x @ weights, y)  # slope: d value / d logits
    penalty = weights / (C * len(x))
    penalty[-1] = 0.0
    return value + 0.5 * float((penalty * weights).sum()), x.T @ slope + penalty


def descend(loss: Loss, x: np.ndarray, y: np.ndarray, outputs: int, steps: int = 300) -> tuple[float, np.ndarray]:
    """Gradient descent with Nesterov's momentum from zero weights.

    The step and the momentum follow from the least and the most curvature that the objective can have.
    """
    least = 1.0 / (C * len(x))
    most = 0.5 * np.linalg.norm(x, 2) ** 2 / len(x) + least
    momentum = (1.0 - (least / most) ** 0.5) / (1.0 + (least / most) ** 0.5)
    weights = ahead = np.zeros((x.shape[1], outputs))
    for _ in range(steps):
        moved = ahead - objective(loss, x, y, ahead)[1] / most
        weights, ahead = moved, moved + momentum * (moved - weights)
    return objective(loss, x, y, weights)[0], weights


def binary(logits: np.ndarray, y: np.ndarray) -> fx.LossAndGrad[float]:
    """The mean loss of one logit per row."""
    return fx.binary_cross_entropy_with_logits_with_grad(logits, y[:, None])


def peer(loss: Loss, x: np.ndarray, y: np.ndarray) -> float:
    """The same objective at the weights that scikit-learn finds."""
    model = LogisticRegression(C=C, tol=1e-10, max_iter=10_000).fit(x[:, :-1], y)
    return objective(loss, x, y, np.column_stack([model.coef_, model.intercept_]).T)[0]


CASES = {
    "digits": (fx.cross_entropy_with_grad, load_digits, 10),
    "tumours": (binary, load_breast_cancer, 1),
}


def main() -> None:
    for name, (loss, load, outputs) in CASES.items():
        x, y = load(return_X_y=True)
        x = with_ones(x)
        reached, weights = descend(loss, x, y, outputs)
        score = x @ weights
        right = np.mean((score.argmax(axis=1) if outputs > 1 else score[:, 0] > 0) == y)
        print(f"{name}: loss {reached:.5f}, scikit-learn {peer(loss, x, y):.5f}, accuracy {right:.3f}")


if __name__ == "__main__":
    main()

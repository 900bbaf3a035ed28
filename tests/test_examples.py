"""The programs and calls of docs/examples.md: what they print, and the plain formulas in NumPy beside the calls.

torch, optax and the gradients are in tests/peers/test_examples.py.
"""

import re
import runpy
from pathlib import Path

import numpy as np
import pytest

import readme
from examples import gradient_descent, policy_gradient, recurrent

ROOT = Path(__file__).resolve().parent.parent
PROGRAMS = ("gradient_descent", "policy_gradient", "recurrent")
NUMBER = re.compile(r"\d+(?:\.\d+)?")


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_program_prints_what_the_page_shows(name, capsys):
    """The last digit may differ by one, since products of matrices depend on the BLAS."""
    shown = readme.sessions(readme.EXAMPLES)[f"python examples/{name}.py"]
    runpy.run_path(str(ROOT / "examples" / f"{name}.py"), run_name="__main__")
    printed = capsys.readouterr().out.splitlines()
    assert [NUMBER.sub("#", line) for line in printed] == [NUMBER.sub("#", line) for line in shown]
    for new, old in zip(NUMBER.findall(" ".join(printed)), NUMBER.findall(" ".join(shown)), strict=True):
        digits = len(old.partition(".")[2])
        assert float(new) == pytest.approx(float(old), abs=1.01 * 10.0**-digits if digits else 0)


# ---- calls -----------------------------------------------------------------------------------------------------------


def plain():
    """The value of each row of the tables, from formulas in float64, in the order of the page."""
    x, y, q, p, s, w, z, t = (readme.given()[name] for name in ("x", "y", "q", "p", "s", "w", "z", "t"))
    log_p = x - np.log(np.exp(x).sum(axis=1, keepdims=True))
    rows, hot = np.arange(len(x)), np.eye(3)[y]
    soft, hard = -(q * log_p).sum(axis=1), -log_p[rows, y]
    focal = (1 - np.exp(-hard)) ** 2 * hard
    positive, negative = np.log1p(np.exp(-z)), np.log1p(np.exp(z))
    smooth = 0.9 * t + 0.05
    kl = np.sum(q * np.log(np.where(q > 0, q, 1) / p), axis=1).mean()
    return [
        soft,
        hard,
        t * positive + (1 - t) * negative,
        3 * t * positive + (1 - t) * negative,
        soft.mean(),
        soft.mean(),
        -((0.9 * hot + 0.1 / 3) * log_p).sum(axis=1).mean(),
        -((0.9 * q + 0.1 / 3) * log_p).sum(axis=1).mean(),
        focal.mean(),
        (t * positive + (1 - t) * negative).mean(),
        (s * soft).mean(),
        (s * soft).sum() / s.sum(),
        (w[y] * hard).mean(),
        0.25 * focal.mean(),
        (smooth * positive + (1 - smooth) * negative).mean(),
        (w[y] * hard).sum() / w[y].sum(),
        kl,
        kl,
        kl / np.log(2),
        kl / np.log(2),
    ]


def test_the_calls_of_the_page_give_the_numbers_beside_them():
    calls, expected = readme.calls(), plain()
    assert len(calls) == len(expected)
    for (_, call, shown), value in zip(calls, expected, strict=True):
        np.testing.assert_allclose(eval(call, readme.given()), value, rtol=1e-13, err_msg=call)  # noqa: S307
        np.testing.assert_allclose([float(number) for number in shown.split()], value, atol=5.01e-7, err_msg=call)


def test_the_blocks_of_the_page_run():
    x, y, s = (readme.given()[name] for name in ("x", "y", "s"))
    beside = {"weights": np.zeros((3, 3)), "target": y, "step": 0.1, "action": y, "advantage": s - 0.8}
    for code in readme.blocks(readme.EXAMPLES).values():
        names = {**readme.given(), **beside, "logits": x.copy()}
        exec(code, names)  # noqa: S102
        assert np.isfinite(names["loss"] if "loss" in code else names["x"]).all()


# ---- what the programs compute ---------------------------------------------------------------------------------------


def test_gradient_descent_ends_at_the_minimum():
    """That of the digits has the loss of scikit-learn to all digits that the page shows."""
    loss, load, outputs = gradient_descent.CASES["tumours"]
    x, y = load(return_X_y=True)
    x = gradient_descent.with_ones(x)
    reached, weights = gradient_descent.descend(loss, x, y, outputs)
    assert abs(gradient_descent.objective(loss, x, y, weights)[1]).max() < 1e-6
    assert reached == pytest.approx(gradient_descent.peer(loss, x, y), rel=1e-9)


def test_the_policy_gradient_is_that_of_its_formula():
    rng = np.random.default_rng(1)
    x, weights = rng.normal(size=(30, 8)), rng.normal(size=(8, 4))
    action, advantage = rng.integers(4, size=30), rng.normal(size=30)
    loss, grad = policy_gradient.loss_and_grad(weights, x, action, advantage)
    policy = np.exp(x @ weights) / np.exp(x @ weights).sum(axis=1, keepdims=True)
    slope = advantage[:, None] * (policy - np.eye(4)[action]) / 30
    assert loss == pytest.approx(-(advantage * np.log(policy[np.arange(30), action])).mean(), rel=1e-12)
    np.testing.assert_allclose(grad, x.T @ slope, rtol=1e-10, atol=1e-14)


def test_an_action_is_drawn_with_its_probability_and_is_never_out_of_range():
    rng = np.random.default_rng(0)
    policy = np.tile([0.1, 0.0, 0.6, 0.3], (20_000, 1))
    share = np.bincount(policy_gradient.draw(policy, rng), minlength=4) / len(policy)
    np.testing.assert_allclose(share, policy[0], atol=0.02)
    assert share[1] == 0
    assert (policy_gradient.draw(np.full((1000, 2), 0.0), rng) == 1).all()


def test_the_gradient_of_the_net_is_that_of_finite_differences():
    """In one window nothing is truncated."""
    net = recurrent.new_net(5, np.random.default_rng(3))
    given, target = recurrent.spelled(["two", "eleven", "six"])
    _, grad = recurrent.read_through(net, given, target, window=20)
    for name, value in net.items():
        for place in ((0, *[0] * (value.ndim - 1)), tuple(size - 1 for size in value.shape)):
            sides = []
            for shift in (1e-5, -1e-5):
                moved = {**net, name: value.copy()}
                moved[name][place] += shift
                sides.append(recurrent.read_through(moved, given, target, window=20)[0])
            assert grad[name][place] == pytest.approx((sides[0] - sides[1]) / 2e-5, rel=1e-6, abs=1e-9)


def test_padding_changes_nothing():
    """A longer word beside the others adds padding to them, and only its own letters to the sums."""
    net = recurrent.new_net(5, np.random.default_rng(4))
    short, long = ["two", "six"], ["seventy-seven"]
    sums = {}
    for words in (tuple(short), tuple(long), (*short, *long)):
        given, target = recurrent.spelled([*words])
        loss, grad, _ = recurrent.loss_and_grad(net, given, target, np.zeros((len(words), 5)))
        sums[words] = np.concatenate([[loss], *(grad[name].ravel() for name in sorted(grad))])
    alone, other, both = sums.values()
    np.testing.assert_allclose(both, alone + other, rtol=1e-12, atol=1e-13)

"""The verdict on synthetic timings: an unchanged tree passes, a slower case is caught, whatever the noise."""

from __future__ import annotations

import numpy as np
import pytest

from bench import paired

CASES = [f"case {m}" for m in range(24)]
SLOWED = 3


def timings(seed: int, generations: int = 5, slowdown: float = 0.0) -> np.ndarray:
    """Drifting, bursty, heavy-tailed timings of processes that differ by luck, on a machine that others use too."""
    rng = np.random.default_rng(seed)
    shape = (generations, 4, 5, len(CASES))
    logs = np.log(rng.uniform(0.001, 0.1, len(CASES)))
    logs = logs + rng.normal(0, 0.05, (generations, 1, 5, 1)).cumsum(axis=0)  # the machine drifts
    logs = logs + rng.normal(0, 0.01, (generations, 4, 1, 1))  # a process is slower in all it does
    logs = logs + rng.normal(0, 0.01, (generations, 4, 1, len(CASES)))  # or in one case, by where its memory lies
    logs = logs + 0.01 * np.abs(rng.standard_t(2, shape))
    logs = logs + (rng.random(shape) < 0.05) * rng.exponential(0.7, shape)  # something else ran
    logs[:, 2:, :, SLOWED] += np.log1p(slowdown)
    return np.exp(logs)


@pytest.mark.parametrize("generations", [4, 5, 7])
def test_an_unchanged_tree_passes_20_of_20(generations: int) -> None:
    for run in range(20):
        assert not any(v.slower or v.faster for v in paired.verdicts(CASES, timings(run, generations), least=0))


def test_the_chance_of_a_false_alarm_is_what_was_promised() -> None:
    """At a level that can be counted: of 400 unchanged trees, 5 % fail at a level of 5 % (2 sigma: 28 of them)."""
    failed = sum(
        any(v.slower for v in paired.verdicts(CASES, timings(run, 4), alpha=0.05, least=0)) for run in range(400)
    )
    assert 5 <= failed <= 32


@pytest.mark.parametrize("slowdown", [0.06, 0.2, 3.0])
def test_a_slower_case_is_caught_and_no_other(slowdown: float) -> None:
    for run in range(10):
        found = paired.verdicts(CASES, timings(100 + run, slowdown=slowdown))
        assert [v.case for v in found if v.slower] == [CASES[SLOWED]]
        assert found[SLOWED].change == pytest.approx(slowdown, abs=0.05 * (1 + slowdown))
        assert found[SLOWED].p_slower <= paired.ALPHA < found[SLOWED].p_faster
        assert 0 < found[SLOWED].noise < 0.03


def test_everything_slower_at_once_is_caught() -> None:
    seconds = timings(1)
    seconds[:, 2:] *= 1.1
    assert sum(v.slower for v in paired.verdicts(CASES, seconds)) > len(CASES) / 2


def test_faster_is_told_and_fails_nothing() -> None:
    found = paired.verdicts(CASES, timings(2, slowdown=-0.2))
    assert [v.case for v in found if v.faster] == [CASES[SLOWED]]
    assert not any(v.slower for v in found)


def test_a_slowdown_below_the_least_fails_nothing() -> None:
    seconds = np.exp(np.random.default_rng(0).normal(0, 1e-4, (6, 4, 5, 2)))
    seconds[:, 2:, :, 0] *= 1.01
    first, _ = paired.verdicts(["a", "b"], seconds)
    assert first.p_slower <= paired.ALPHA
    assert not first.slower
    assert paired.verdicts(["a", "b"], seconds, least=0.005)[0].slower


def test_timings_without_noise_are_no_division_by_zero() -> None:
    same = paired.verdicts(["a"], np.ones((4, 4, 3, 1)))[0]
    assert (same.change, same.noise, same.slower) == (0, 0, False)
    seconds = np.ones((4, 4, 3, 1))
    seconds[:, 2:] = 2
    assert paired.verdicts(["a"], seconds)[0].slower


def test_the_verdict_does_not_depend_on_units_or_on_a_slow_round() -> None:
    seconds = timings(3, slowdown=0.1)
    found = paired.verdicts(CASES, seconds)
    slow_rounds = np.array([1, 1, 50, 1, 7.0])[:, None]
    for v, w in zip(found, paired.verdicts(CASES, seconds * 1e3 * slow_rounds), strict=True):
        assert (w.slower, w.faster) == (v.slower, v.faster)
        assert w.change == pytest.approx(v.change, abs=1e-12)


@pytest.mark.parametrize(
    ("seconds", "message"),
    [
        (np.ones((3, 4, 5, 1)), "3 generations cannot tell"),
        (np.ones((4, 3, 5, 1)), "are not"),
        (np.ones((4, 4, 5, 2)), "are not"),
        (np.zeros((4, 4, 5, 1)), "not a positive number"),
        (np.full((4, 4, 5, 1), np.nan), "not a positive number"),
    ],
)
def test_timings_that_prove_nothing_are_refused(seconds: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        paired.verdicts(["a"], seconds)

"""Runs of parts behave as the sets of parts that they stand for."""

from __future__ import annotations

from hypothesis import given, settings, strategies as st

from fastxent.state.coverage import Coverage

PARTS = st.sets(st.integers(0, 14), min_size=1, max_size=14)
OF = 15


def coverage(parts: set[int]) -> Coverage:
    found = Coverage()
    for part in parts:
        found.absorb(Coverage.part("d", part, OF))
    return found


def held(found: Coverage) -> set[int]:
    if not found.divisions:
        return set(range(OF))
    return {part for first, last in found.divisions["d"][1] for part in range(first, last + 1)}


@given(PARTS, PARTS)
@settings(deadline=None)
def test_runs_are_sets(one, other):
    left, right = coverage(one), coverage(other)
    assert held(left) == one
    assert (left.overlap(right) is None) == (not one & other)
    if one & other:
        numbers = sorted(part + 1 for part in one & other)
        assert str(numbers[0]) in str(left.overlap(right))
        assert ("are" in str(left.overlap(right))) == (len(numbers) > 1)
    for found in (left, right):
        assert Coverage.from_dict(found.to_dict()) == found
    left.absorb(right)
    assert held(left) == one | other
    assert (left.missing() is None) == (len(one | other) == OF)
    assert left == coverage(one | other)
    assert held(right) == other


@given(PARTS)
@settings(deadline=None)
def test_what_is_missing_is_named(parts):
    gaps = [part + 1 for part in range(OF) if part not in parts]
    said = str(coverage(parts).missing())
    named = said.partition("part")[2].lstrip("s ").partition(" of ")[0]
    ends = [tuple(map(int, run.split("-"))) for run in named.split(", ")]
    assert [part for run in ends for part in range(run[0], run[-1] + 1)] == gaps

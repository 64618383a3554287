"""Intervals hold the truth as often as they say, and say so where there is too little to go by."""

import numpy as np
import pytest
from scipy import stats

from mtnet_jax.evaluation.intervals import (
    Interval,
    holm,
    paired_bootstrap,
    resampled_counts,
    seed_interval,
    weighed,
)


def test_seeds_by_the_table_of_t():
    # Standard error of 1, 2, 3 is 1 / sqrt(3); 4.302653 is t at 97.5 % with 2 degrees of freedom.
    interval = seed_interval([1.0, 2.0, 3.0])
    assert interval.value == pytest.approx(2)
    assert interval.high == pytest.approx(2 + 4.302653 / 3**0.5)
    assert interval.low == pytest.approx(2 - 4.302653 / 3**0.5)


def test_seeds_hold_the_truth_as_often_as_they_say():
    rng = np.random.default_rng(0)
    held = [
        interval.low <= 5 <= interval.high
        for interval in (seed_interval(rng.normal(5, 2, 3)) for _ in range(2000))
    ]
    assert np.mean(held) == pytest.approx(0.95, abs=0.015)


@pytest.mark.parametrize("values", [[], [None], [4.0], [4.0, None], [4.0, 6.0]])
def test_too_few_seeds_have_no_limits(values):
    interval = seed_interval(values)
    known = [v for v in values if v is not None]
    assert interval == Interval(np.mean(known) if known else None, None, None, len(known))
    assert not interval.excludes_zero()


def test_bootstrap_of_single_heads_is_scipys():
    rng = np.random.default_rng(1)
    differences = rng.gamma(2.0, 3.0, 300) - 5
    mine = paired_bootstrap(differences, np.arange(300), resamples=9999)
    theirs = stats.bootstrap((differences,), np.mean, method="percentile", rng=rng)
    assert mine.value == pytest.approx(differences.mean())
    np.testing.assert_allclose([mine.low, mine.high], theirs.confidence_interval, atol=0.05)


def test_bootstrap_by_person_holds_the_truth_where_that_by_head_does_not():
    rng = np.random.default_rng(2)
    held = {"person": 0, "head": 0}
    for trial in range(300):
        persons = np.repeat(np.arange(30), rng.integers(2, 30, 30))
        differences = rng.normal(0, 1, 30)[persons] + rng.normal(0, 1, len(persons))
        for name, groups in (("person", persons), ("head", np.arange(len(persons)))):
            interval = paired_bootstrap(differences, groups, resamples=400, seed=trial)
            held[name] += interval.low <= 0 <= interval.high
    assert held["person"] / 300 > 0.87
    assert held["head"] / 300 < 0.6


def test_heads_without_a_difference_are_left_out():
    differences = np.array([1.0, np.nan, 3.0, np.nan])
    interval = paired_bootstrap(differences, np.array(["a", "b", "c", "c"]))
    assert interval == Interval(2.0, None, None, 2)  # too few images for limits
    assert paired_bootstrap(np.full(3, np.nan), np.arange(3)) == Interval(None, None, None, 0)


def test_excluding_zero():
    assert Interval(2.0, 1.0, 3.0, 5).excludes_zero()
    assert Interval(-2.0, -3.0, -1.0, 5).excludes_zero()
    assert not Interval(1.0, -1.0, 3.0, 5).excludes_zero()


def test_resamples_are_those_of_one_large_draw():
    """Drawn row by row, which takes less memory, with the same numbers."""
    drawn = np.random.default_rng(3).integers(50, size=(40, 50))
    expected = np.stack([np.bincount(row, minlength=50) for row in drawn])
    counts = resampled_counts(50, 40, 3)
    np.testing.assert_array_equal(counts, expected)
    values = np.random.default_rng(0).normal(size=50)
    np.testing.assert_allclose(weighed(counts, values), expected @ values, rtol=1e-12)


def test_p_of_seeds_is_that_of_students_test():
    values = [0.3, 1.9, 0.8, -0.2]
    assert seed_interval(values).p == pytest.approx(stats.ttest_1samp(values, 0).pvalue)
    assert seed_interval([2.0, 2.0, 2.0]).p == 0
    assert seed_interval([0.0, 0.0, 0.0]).p == 1


def test_p_of_a_bootstrap_is_the_level_at_which_its_interval_comes_to_0():
    differences = np.random.default_rng(4).normal(0.3, 2, 80)
    images = np.arange(80)
    p = paired_bootstrap(differences, images).p
    assert 0.01 < p < 0.5
    wider, narrower = (
        paired_bootstrap(differences, images, level=1 - p * factor) for factor in (0.9, 1.1)
    )
    assert wider.low < 0 < narrower.low


def test_holm_by_hand():
    # 0.01 * 4, then 0.02 * 3, 0.03 * 2 and 0.5 * 1, none of them below the one before.
    assert holm([0.03, None, 0.01, 0.5, 0.02]) == pytest.approx([0.06, None, 0.04, 0.5, 0.06])
    assert holm([0.04, 0.011, 0.02]) == pytest.approx([0.04, 0.033, 0.04])
    assert holm([0.7, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


def test_a_family_without_differences_seldom_has_one():
    rng = np.random.default_rng(5)
    families = [[seed_interval(rng.normal(0, 1, 3)).p for _ in range(6)] for _ in range(1500)]
    assert np.mean([min(each) < 0.05 for each in families]) > 0.2
    assert np.mean([min(holm(each)) < 0.05 for each in families]) < 0.06

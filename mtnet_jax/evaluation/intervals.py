"""How sure a number is: Student's t over seeds, the paired bootstrap over images or persons.

The two answer different questions. Seeds say how far a number moves when the same thing is trained
again, on the same test images; a bootstrap over 3 to 10 of them is too narrow (it covers some 80 %
where it says 95), Student's t is not. Images, or persons where a person has many, say how far a
number moves with other test images, for the networks as they were trained. A difference that is
beyond both is worth a word.

Every function gives None for limits that so few seeds or groups cannot support.
"""

import functools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats

ENOUGH_SEEDS = 3  # for Student's t: with 2 the 95 % interval is 13 standard errors to either side
ENOUGH_GROUPS = 10  # images or persons for a bootstrap: of fewer it is too narrow
LEVEL = 0.95
RESAMPLES = 2000


class Interval(NamedTuple):
    """A number and where it may lie.

    Attributes:
      value: the number; None where there is nothing to take it of.
      low, high: limits of the interval; None where there were too few seeds or groups.
      support: number of the seeds or groups that it rests on.
      p: how often a number as far from 0 would come of chance alone; None as the limits.
    """

    value: float | None
    low: float | None
    high: float | None
    support: int
    p: float | None = None

    def excludes_zero(self) -> bool:
        """Whether it has limits and both are on one side of 0."""
        return self.low is not None and self.high is not None and self.low * self.high > 0


def seed_interval(values: Sequence[float | None], level: float = LEVEL) -> Interval:
    """Mean over seeds and its Student's t interval.

    Args:
      values: one for each seed; None where that run has no such number.
      level: of confidence.
    """
    known = np.array([value for value in values if value is not None], np.float64)
    if not len(known):
        return Interval(None, None, None, 0)
    centre = float(known.mean())
    if len(known) < ENOUGH_SEEDS:
        return Interval(centre, None, None, len(known))
    error = float(known.std(ddof=1)) / len(known) ** 0.5
    half = float(stats.t.ppf((1 + level) / 2, len(known) - 1)) * error
    if not error:
        return Interval(centre, centre, centre, len(known), float(centre == 0))
    p = float(2 * stats.t.sf(abs(centre) / error, len(known) - 1))
    return Interval(centre, centre - half, centre + half, len(known), p)


def paired_bootstrap(
    differences: np.ndarray,
    groups: np.ndarray,
    *,
    resamples: int = RESAMPLES,
    level: float = LEVEL,
    seed: int = 0,
) -> Interval:
    """Mean difference between two systems on the same heads, resampled by image or by person.

    Args:
      differences: (n,) error of the one minus error of the other, of each head; NaN where either
        has none, which leaves the head out.
      groups: (n,) what stands or falls together: the image, or the person, of each head.
      resamples: of the bootstrap.
      level: of confidence, between percentiles.
      seed: of the resampling.
    """
    differences = np.asarray(differences, np.float64)
    kept = np.isfinite(differences)
    names, group = np.unique(np.asarray(groups)[kept], return_inverse=True)
    if not len(names):
        return Interval(None, None, None, 0)
    sums = np.bincount(group, differences[kept], len(names))
    sizes = np.bincount(group, minlength=len(names))
    value = float(sums.sum() / sizes.sum())
    if len(names) < ENOUGH_GROUPS:
        return Interval(value, None, None, len(names))
    counts = resampled_counts(len(names), resamples, seed)
    # Groups differ in size, so both sums are resampled: every resample has a head or more.
    return resampled_interval(
        value, weighed(counts, sums) / weighed(counts, sizes), len(names), level
    )


def resampled_interval(
    value: float, resampled: np.ndarray, support: int, level: float = LEVEL
) -> Interval:
    """The interval of a bootstrap, between percentiles.

    Args:
      value: of what was measured.
      resampled: (resamples,) the same of each resample.
      support: number of the groups.
      level: of confidence.
    """
    low, high = percentile_limits(resampled, level)
    # The level at which the percentiles come to 0; so many resamples say no less than 2 in that.
    beyond = min(np.count_nonzero(resampled <= 0), np.count_nonzero(resampled >= 0))
    p = min(1.0, 2 * (beyond + 1) / (len(resampled) + 1))
    return Interval(value, low, high, support, p)


def holm(values: Sequence[float | None]) -> list[float | None]:
    """Values of p of a family of comparisons, corrected for how many there are.

    Holm 1979, Scandinavian Journal of Statistics 6: where nothing differs, any of them is below
    0.05 in 5 % of all families, whatever depends on what.

    Args:
      values: None where there is none; it does not count.
    """
    known = sorted((p, n) for n, p in enumerate(values) if p is not None)
    corrected: list[float | None] = [None] * len(values)
    least = 0.0
    for place, (p, n) in enumerate(known):
        least = max(least, min(1.0, p * (len(known) - place)))
        corrected[n] = least
    return corrected


@functools.lru_cache(maxsize=2)  # many figures of the same heads are resampled one after another
def resampled_counts(groups: int, resamples: int = RESAMPLES, seed: int = 0) -> np.ndarray:
    """(resamples, groups) uint16: how often each group is drawn, of as many draws as groups."""
    rng, counts = np.random.default_rng(seed), np.empty((resamples, groups), np.uint16)
    for row in counts:  # all at once would take several gigabytes of a large set
        row[:] = np.bincount(rng.integers(groups, size=groups), minlength=groups)
    counts.flags.writeable = False  # it is kept
    return counts


def weighed(counts: np.ndarray, values: np.ndarray) -> np.ndarray:
    """(resamples,): the sum of the values (groups,) in each resample."""
    return np.array([row.astype(np.float64) @ values for row in counts])


def percentile_limits(resampled: np.ndarray, level: float = LEVEL) -> tuple[float, float]:
    """The limits that leave out equally many of the resampled values on either side."""
    low, high = np.quantile(resampled, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
